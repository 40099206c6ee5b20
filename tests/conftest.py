"""What the tests share: dlx called as a person would, in an empty folder."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.utils.data
from typer.main import get_command

import dlx.cli
from dlx.config.groups import GROUPS
from dlx.tasks.system import System

TESTS = Path(__file__).parent
TOGETHER = (
    "sweeps/test_ray.py", "sweeps/test_slurm.py", "training/test_distributed.py", "tests/test_installed.py",
    "dashboard/test_page.py",
)  # fmt: skip
BLANK = ("cli", "data", "families", "models", "optim", "regularization", "tracking", "training")
DRAWN = (
    "cli/test_eval_command.py", "cli/test_predict_command.py", "cli/test_report_command.py", "cli/test_words.py",
    "training/test_report.py", "training/test_sharpness.py",
)  # fmt: skip
torch.set_num_threads(1)
os.fsync = lambda descriptor: None  # no test cuts the power, and a training waits 40 ms for the disk
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5  # not 5 s, for a loader's worker that does not end by itself


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each test goes to the next free process, but those of a file in TOGETHER to one, and first, so that what they
    share (a cluster, an environment, a browser) is made once.

    What `--dist loadgroup` is for; that of pytest-xdist 3.8 groups nothing with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file.endswith(TOGETHER) else nodeid

    return Grouped(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    """What importing and collecting made stays to the end: a collection of garbage need not look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def compositions():
    """What Hydra composed, by choices and folders."""
    return {}


@pytest.fixture(autouse=True)
def compose_once(request, monkeypatch, compositions):
    """Hydra takes 65 ms for each composition. Those of files that no test writes are made once, but where composing is
    what is tested."""
    if request.path.parent.name == "config" and request.path.name != "test_schema.py":
        return
    module = sys.modules["dlx.config.compose"]  # the package has a function of the same name
    hydra = module._compose_choices

    def once(chosen, conf_dirs):
        if any(not Path(folder).is_relative_to(TESTS) for folder in conf_dirs):
            return hydra(chosen, conf_dirs)
        words = repr((chosen, list(map(str, conf_dirs))))
        if words not in compositions:
            compositions[words] = hydra(chosen, conf_dirs)
        return copy.deepcopy(compositions[words])

    monkeypatch.setattr(module, "_compose_choices", once)


@pytest.fixture
def no_pictures(monkeypatch):
    """A training of a few steps takes less time than drawing what it predicts, which most tests do not look at."""
    monkeypatch.setattr("dlx.tasks.supervised.Supervised.showcase", lambda self, batch: {})


@pytest.fixture(autouse=True)
def blank_pictures(request, monkeypatch):
    """Figures are made and saved, but left blank, where they are not what is tested: matplotlib takes longer for one
    than a training of a few steps."""
    file = request.path.relative_to(TESTS)
    if file.parts[0] in BLANK and file.as_posix() not in DRAWN:
        monkeypatch.setattr("matplotlib.figure.Figure.draw", lambda self, renderer: None)


@dataclass
class Call:
    code: int
    out: str
    err: str


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.delenv("DLX_OUTPUTS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def commands():
    """The parser of all commands, which takes Typer 20 ms to make."""
    return get_command(dlx.cli.app)


@pytest.fixture
def dlx_call(here, monkeypatch, capsys, commands):
    """Runs `dlx ARGUMENTS` in this process."""
    monkeypatch.setattr(dlx.cli, "app", commands)

    def call(*arguments: str) -> Call:
        monkeypatch.setattr(sys, "argv", ["dlx", *arguments])
        code = 0
        try:
            dlx.cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Call(code, captured.out, captured.err)

    return call


@pytest.fixture
def only_run(here):
    """The one run folder below outputs/."""

    def find() -> Path:
        (config,) = Path("outputs").glob("*/*/config.yaml")
        return config.parent

    return find


def _subclasses(kind):
    return {below for one in kind.__subclasses__() for below in (one, *_subclasses(one))}


@pytest.fixture
def sigterm_at(monkeypatch):
    """with sigterm_at(9): the ninth step inside, counted over all trainings, gets SIGTERM."""

    @contextmanager
    def at(number: int):
        steps = itertools.count(1)

        def counted(own):
            def after_step(system, step):
                own(system, step)
                if next(steps) == number:
                    os.kill(os.getpid(), signal.SIGTERM)

            return after_step

        with monkeypatch.context() as patch:
            for kind in (System, *_subclasses(System)):  # some do something there
                if own := vars(kind).get("after_step"):
                    patch.setattr(kind, "after_step", counted(own))
            yield

    return at


@pytest.fixture
def write_files(here):
    """Text files by path, written in the current directory."""

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = here / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


TINY = ("model=mlp", "model.hidden=[16]", "trainer.max_steps=8", "trainer.log_every=3", "trainer.validate_every=4")


@pytest.fixture
def tiny():
    return TINY


FILES = {
    "image_folder": "photos", "text_file": "words.txt", "parallel_text": "pairs.tsv", "labeled_text": "texts.csv",
    "masked_folder": "scenes", "camvid": "scenes", "two_folders": "sides", "celeba": "faces",
    "progressive_gan_celeba": "photos",
    "voc": "scenes", "voc_segmentation": "scenes", "coco": "scenes", "yolo_folder": "scenes",
    "recipe/proposed_voc": "scenes",
    "captioned_folder": "captioned", "text2image_cub": "captioned", "puzzle_gan_celeba": "photos",
    "cyclegan_horse2zebra": "sides", "stargan_celeba": "faces",
}  # fmt: skip
"""What datasets of a person's own files are pointed to."""
FILES_OF_EXPERIMENTS = {"imagenet": "photos", "voc": "scenes", "camvid": "scenes", "bccd": "scenes"}
"""The same for experiments, by the last word of their names."""
MODEL_OF = {
    "mlp": ("function1d",),
    "lstm": (
        "stdlib_text", "text_file", "tinyshakespeare", "wikitext", "markov_source", "copy", "parity", "adding",
        "ar_process", "noisy_sine", "labeled_text", "stdlib_modules", "recipe/bert_classifier",
    ),
    "seq2seq": ("dates", "reverse", "parallel_text", "multi30k"),
    "bert": ("sentence_pairs", "recipe/bert"),
    "rnade": ("toy_density",),
    "fcn": ("masked_folder", "camvid", "voc_segmentation"),
    "independent_pixels": ("voc", "coco", "yolo_folder", "recipe/proposed_voc"),
    "yolo": ("digit_scenes",),
    "text2image": ("captioned_folder",),
    "cyclegan": ("two_domains", "two_folders"),
    "stargan": ("celeba",),
    "dqn": ("cartpole", "chain", "gymnasium"),
}  # fmt: skip
"""A model that reads a dataset, where the default one does not."""


@pytest.fixture(scope="session")
def alone():
    """The overrides that choose one option, with what it cannot be without: alone(group, option)."""

    def words(group: str, option: str) -> list[str]:
        model = {"function1d": ["model=mlp"], "stochastic_depth": ["model=resnet"]}.get(option, [])
        if group == "dataset":
            model = [f"model={name}" for name, read in MODEL_OF.items() if option in read]
        if group == "regularization" and not model:
            model = ["model=mlp"]
        last = option.rpartition("_")[2]
        files = FILES.get(option) or (FILES_OF_EXPERIMENTS.get(last) if group == "experiment" else None)
        choice = f"{group}=[{option}]" if GROUPS[group].many else f"{group}={option}"
        of_runs = ["model.members_from=[a]"] if option == "ensemble" and group == "model" else []
        return [*model, choice, *of_runs, *([f"data.path={files}"] if files else [])]

    return words
