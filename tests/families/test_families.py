"""Every kind of system walks through every command: each does its work, or is refused in one line before the start."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image
from run_ends import assert_same_end

from dlx.config import compose
from dlx.runs.metrics import read_metrics
from dlx.tasks.system import System

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Family:
    """What is expected of one. A text is a refusal's, None: it works.

    predict: what it answers to; sample: further words; metrics: of an evaluation, empty where there is none.
    """

    metrics: tuple[str, ...]
    first: tuple[str, ...] = ()  # a run that must be there, and the words that name it
    predict: str | None = None
    sample: tuple[str, ...] | None = None
    kfold: str | None = None
    accumulate: str | None = None
    batched: str | None = None
    export: str | None = "is no map of inputs to outputs"
    rows: tuple[str, ...] = ("train/loss",)
    words: tuple[str, ...] = field(default=())


GAN_ROWS = ("train/critic/loss", "train/generator/loss", "lr/critic", "lr/generator", "train/critic/grad_norm")
CYCLE_ROWS = ("train/generators/loss", "train/critics/loss", "train/cycle", "lr/generators")
FAMILIES = {
    "detector": Family(("loss", "recall"), predict="photo", batched="do not stay on the device|similar length"),
    "segmenter": Family(("loss", "miou"), export=None, batched="torch cannot stack aten::"),
    "rcnn": Family(("accuracy",), batched="a fit after the training"),
    "sentence": Family(("loss", "accuracy", "nll"), predict="abcdefgha", export=None),
    "language": Family(
        ("loss", "perplexity", "bits_per_byte"), predict="abc", sample=("--prompt", "abc"),
        batched="windows of a stream", export=None,
    ),
    "seq2seq": Family(("loss", "accuracy", "exact_match"), predict="abc", batched="similar length"),
    "masked": Family(("loss",), batched="windows of a stream"),
    "finetuned": Family(
        ("loss", "accuracy", "nll"), first=("masked", "model.body_from=masked"), predict="abcdefgha", export=None
    ),
    "vae": Family(
        ("nll", "bpd"), predict="photo", sample=("--given", "scale=2"), rows=("train/loss", "train/warmup")
    ),
    "wgan": Family((), sample=(), kfold="is not evaluated", batched="several objectives", rows=GAN_ROWS),
    "cycle": Family(("cycle",), batched="several objectives", rows=CYCLE_ROWS),
    "growing": Family(("mse",), batched="stages", rows=("train/loss", "train/share")),
    "painter": Family(("loss",), sample=("--prompt", "a cross"), batched="stages"),
    "painter_from": Family(
        ("loss",), first=("codes", "model.codes_from=codes"), sample=("--prompt", "a cross")
    ),
    "contrastive": Family(("knn_accuracy",), accumulate="compares the samples", batched="views"),
    "walk": Family(("return",), sample=(), kfold="is an environment", batched="a dataset that acts"),
}  # fmt: skip
STEPS = ("trainer.max_steps=12", "trainer.log_every=4", "trainer.validate_every=4", "trainer.threads=1")


def words_of(name: str) -> list[str]:
    return [f"model=toy_{name.removesuffix('_from')}", *FAMILIES[name].first[1:], *STEPS]


def prepare(name: str, call) -> None:
    """What the family begins with, trained in the current directory."""
    if first := FAMILIES[name].first:
        assert call("train", f"model=toy_{first[0]}", *STEPS, f"name={first[0]}").code == 0


def result_of(call) -> dict:
    assert call.code == 0, call.err + call.out
    return json.loads(call.out.splitlines()[-1])


def is_refused(call, text: str) -> None:
    assert call.code == 2, call.err + call.out
    assert any(part in call.err for part in text.split("|")), call.err
    assert len(call.err.splitlines()) <= 5


def runs() -> set[Path]:
    return {path.parent for path in Path("outputs").rglob("config.yaml")}


@pytest.mark.parametrize("name", FAMILIES)
def test_it_trains_and_is_resumed_to_the_same_bits(name, call, monkeypatch):
    prepare(name, call)
    family, words = FAMILIES[name], words_of(name)
    whole = result_of(call("train", *words, "--json"))
    run = Path(whole["run"])
    assert set(whole["metrics"]) >= {f"{split}/{m}" for split in ("val", "test") for m in family.metrics}
    rows = read_metrics(run / "metrics.jsonl")
    assert set(family.rows) <= set().union(*rows)
    assert all(any(key.startswith(("train/", "val/", "test/", "lr")) for key in row) for row in rows)  # none is empty
    kind = type_of(name)
    own = kind.after_step
    for cut in (3, 8):

        def after_step(self, step, cut=cut):
            own(self, step)
            if step == cut:
                os.kill(os.getpid(), signal.SIGTERM)

        with monkeypatch.context() as patch:
            patch.setattr(kind, "after_step", after_step)
            ended = call("train", *words, "--json")
        assert ended.code == 143, ended.err
        resumed = result_of(call("resume", json.loads(ended.out.splitlines()[-1])["run"], "--json"))
        assert resumed["metrics"] == whole["metrics"]
        assert_same_end(Path(resumed["run"]), run)


def type_of(name: str) -> type[System]:
    from dlx.config.build import _load

    config = compose([f"model=toy_{name.removesuffix('_from')}", "model.body_from=x"][: 1 + (name == "finetuned")],
                     conf_dirs=[HERE / "conf"], trust=["zoo"])  # fmt: skip
    return _load(config["model"]["_target_"])


@pytest.mark.parametrize("name", FAMILIES)
def test_every_command_works_or_says_why_not(name, call):
    prepare(name, call)
    family, words = FAMILIES[name], words_of(name)
    before = runs()

    shown = call("show", *words)
    assert shown.code == 0, shown.err
    assert "parameters" in shown.out
    planned = call("train", *words, "--dry-run")
    assert planned.code == 0, planned.err
    assert "steps           12" in planned.out
    assert runs() == before

    trained = call("train", *words, "--json")
    told = result_of(trained)
    run = told["run"]

    evaluated = result_of(call("eval", run, "--json"))
    for metric in family.metrics:
        assert evaluated["metrics"][f"test/{metric}"] == pytest.approx(told["metrics"][f"test/{metric}"], rel=1e-5)
    assert all(Path(picture).stat().st_size for picture in evaluated["pictures"])

    predicts(family, run, call)
    samples(family, run, call)
    exports(family, run, call)

    report = call("report", run, "--out", "page.html")
    assert report.code == 0, report.err
    assert "<html" in Path("page.html").read_text()
    compared = call("compare", *map(str, sorted(runs() - before)), "--json")
    assert compared.code == 0, compared.err
    listed = call("runs", "--json")
    assert Path(run).name in listed.out


def predicts(family: Family, run: str, call) -> None:
    text = family.predict if family.predict != "photo" else None
    Image.new("L", (40, 20), 90).save("photo.png")
    answered = call("predict", run, *(("--text", text) if text else ("photo.png",)), "--json")
    if family.predict is None:
        is_refused(answered, "dlx predict:")
    else:
        (answer,) = result_of(answered)["predictions"]
        assert answer["file"] == (text or "photo.png")
        assert len(answer) >= 2


def samples(family: Family, run: str, call) -> None:
    made = call("sample", run, "-n", "3", *(family.sample or ()), "--json")
    if family.sample is None:
        is_refused(made, "dlx sample:")
        return
    told = result_of(made)
    assert told["pictures"] or any(told["texts"].values())
    again = result_of(call("sample", run, "-n", "3", *family.sample, "--json"))
    assert again["texts"] == told["texts"]
    is_refused(call("sample", run, "--given", "tempratur=1"), "unknown argument")


def exports(family: Family, run: str, call) -> None:
    written = call("export", run, "--format", "safetensors", "--json")
    if family.export is not None:
        is_refused(written, family.export)
    else:
        assert result_of(written)["files"][0]["difference"] < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_many_runs_of_it(name, call):
    prepare(name, call)
    family, words = FAMILIES[name], words_of(name)
    seeds = call("train", *words, "method=seeds", "method.count=2", "--json", "--executor", "batched")
    told = result_of(seeds)
    assert len(told["members"][0]["details"]["members"]) == 2
    reasons = [line for line in seeds.err.splitlines() if line.startswith("batched:") and "one after another" in line]
    if family.batched is None:
        assert reasons == []
    else:
        assert len(reasons) == 1
        assert any(part in reasons[0] for part in family.batched.split("|")), reasons

    before = runs()
    folds = call("train", *words, "method=kfold", "method.k=2", "--json")
    if family.kfold is None:
        assert any(key.startswith("val/") for key in result_of(folds)["members"][0]["metrics"])
    else:
        is_refused(folds, family.kfold)
        assert runs() == before

    swept = call("sweep", *words, "optim.lr=1e-3,1e-2")
    assert swept.code == 0, swept.err
    header = next(line for line in swept.out.splitlines() if line.startswith("member"))
    columns = [column for column in header.split() if "/" in column]
    assert columns == [f"{split}/{family.metrics[-1]}" for split in ("val", "test") if family.metrics] or all(
        f"/{metric.rpartition('/')[2]}" in "".join(f"/{m}" for m in family.metrics) for metric in columns
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_settings_of_the_loop(name, call):
    prepare(name, call)
    family, words = FAMILIES[name], words_of(name)
    before = runs()
    accumulated = call("train", *words, "trainer.accumulate=2", "--json")
    if family.accumulate == "compares the samples":
        is_refused(accumulated, family.accumulate)
        assert runs() == before
    else:
        result_of(accumulated)
    result_of(call("train", *words, "trainer.precision=bf16", "trainer.ema=0.9", "--json"))


TWO = """
import json, os, signal, sys
from dlx.config import Config, compose
from dlx.config.build import _load
from dlx.runs.folder import RunFolder
from dlx.training.run import resume, train
from dlx.training.distributed import Dist
from matplotlib.figure import Figure
Dist.destroy = lambda self: None  # the processes stay together for all families
Figure.draw = lambda self, renderer: None  # pictures stay blank
for name, words in json.loads(sys.argv[1]).items():
    config = compose(words, conf_dirs=[sys.argv[2]], trust=["zoo"])
    whole = train(config, quiet=True)
    kind = _load(config["model"]["_target_"])
    own = kind.after_step
    def after_step(self, step, own=own):
        own(self, step)
        if step == 6 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
    kind.after_step = after_step
    ended = train(config, quiet=True)
    kind.after_step = own
    folder = RunFolder(ended.run)
    resumed = resume(folder, Config.load(folder.config_path, trust=["zoo"]), quiet=True)
    if os.environ["RANK"] == "0":
        print("@" + json.dumps({name: [str(whole.run), str(resumed.run), ended.status, resumed.status]}), flush=True)
"""


def test_two_processes_are_resumed_to_the_same_bits(call):
    """All families in one pair of processes. What each keeps for itself (an image pool, a memory) comes back."""
    for name in FAMILIES:
        prepare(name, call)
    Path("two.py").write_text(TWO)
    families = {name: [*words_of(name), "trainer.device=cpu", f"name={name}-two"] for name in FAMILIES}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "two.py"]
    done = subprocess.run(
        [*command, json.dumps(families), str(HERE / "conf")], capture_output=True, text=True, timeout=600, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith("@"):
            found |= json.loads(line[1:])
    assert set(found) == set(families), done.stderr[-3000:]
    for name, (whole, resumed, cut, status) in found.items():
        assert (name, cut, status) == (name, "interrupted", "finished")
        assert_same_end(Path(whole), Path(resumed))
    shutil.rmtree("outputs")
