"""Every option in conf/ is found and tried: a dry run, some steps, a kill, a resume to the same bits.

A new option needs no line here. Where one cannot be tried so, the table says why.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_ends import assert_same_end
from test_quality import BARS

from dlx.config import compose
from dlx.config.build import find_class
from dlx.config.groups import options
from dlx.config.signature import read
from dlx.data.dataset import Dataset, TensorSource

STEPS = ("trainer.max_steps=4", "trainer.log_every=1", "trainer.validate_every=2", "data.batch_size=8")
ELSEWHERE = {
    ("model", "ensemble"): "is made of other runs: models/test_ensemble.py",
    ("model", "markov"): "is fitted in closed form, without steps: models/sequence/test_markov.py",
    ("model", "autoregressive"): "is fitted in closed form, without steps: models/sequence/test_autoregressive.py",
    ("model", "stump"): "is fitted in closed form, without steps: models/test_stump.py",
    ("model", "polynomial"): "is fitted in closed form, without steps: models/test_polynomial.py",
}
SMALLER = {
    "densenet": ["model.depth=16"], "alexnet": ["model.width=0.125"], "vgg": ["model.width=0.25"],
    "googlenet": ["model.width=0.25"], "vit": ["model.depth=2"], "torchvision": ["model.arch=shufflenet_v2_x0_5"],
    "timm": ["model.arch=test_resnet"],
    "stdlib_text": ["data.size=20000"], "markov_source": ["data.size=4000"], "dates": ["data.samples=100"],
    "reverse": ["data.samples=100"], "copy": ["data.samples=100", "data.delay=5"], "parity": ["data.samples=100"],
    "adding": ["data.samples=100"], "ar_process": ["data.size=1000", "data.length=16"],
    "stdlib_modules": ["data.lines=30"], "sentence_pairs": ["data.length=32"],
    "rnn": ["model.hidden=8"], "lstm": ["model.hidden=8"], "gru": ["model.hidden=8"],
    "latent_autoregressive": ["model.state=8"],
    "gpt": ["model.dim=16", "model.depth=1", "data.size=40000"],
    "bert": ["model.dim=16", "model.depth=1", "data.size=40000"], "bert_classifier": ["data.lines=40"],
    "transformer": ["model.dim=16", "model.depth=1", "data.samples=200"],
    "digit_scenes": ["data.samples=60"],
}  # fmt: skip
LINES = [f"line {n} of a text, to be read: {n * n}" for n in range(100)]
PAIRS = [(line, line[::-1]) for line in LINES]
PUBLISHED = {
    "TinyShakespeare": ("texts", {"text": "\n".join(LINES)}),
    "WikiText": ("texts", dict.fromkeys(("train", "val", "test"), "\n".join(LINES))),
    "Multi30k": ("read", {"train": PAIRS[:80], "val": PAIRS[80:90], "test": PAIRS[90:]}),
}
"""What stands in for texts that are downloaded: the method that reads them, and its output."""
GROUPS = ("model", "dataset", "optimizer", "scheduler", "regularization")
OPTIONS = [(group, name) for group in GROUPS for name in options(group) if "/" not in name]


@pytest.fixture
def data(here, monkeypatch):
    """What a dataset reads: files of two classes, and, in place of what is downloaded, examples of its spec."""
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (80, 10, 12, 3), dtype=np.uint8)):
        path = here / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (here / "words.txt").write_text("\n".join(LINES))
    (here / "pairs.tsv").write_text("\n".join("\t".join(pair) for pair in PAIRS))
    rows = [f'"{line}",{"even" if number % 2 else "odd"}' for number, line in enumerate(LINES)]
    (here / "texts.csv").write_text("\n".join(["text,label", *rows]))

    def stand_in(target: str) -> None:
        cls = find_class(target, base=Dataset)
        if cls.__name__ in PUBLISHED:
            method, output = PUBLISHED[cls.__name__]
            monkeypatch.setattr(cls, method, lambda self: output)
        elif "download" in read(target).params:
            source = TensorSource(**{name: entry.example(80) for name, entry in cls.spec.entries.items()})
            monkeypatch.setattr(cls, "splits", lambda self: {"train": source})

    return stand_in


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_it_trains_and_is_resumed_to_the_same_bits(group, name, data, alone, dlx_call, sigterm_at, request):
    if (group, name) in ELSEWHERE:
        pytest.skip(ELSEWHERE[group, name])
    if name == "timm":
        pytest.importorskip("timm")
    if group not in ("model", "dataset"):  # others have no pictures of their own
        request.getfixturevalue("no_pictures")
    words = [*alone(group, name), *SMALLER.get(name, ()), *STEPS]
    if "model=mlp" in words:
        words.append("model.hidden=[8]")
    data(compose(words)["dataset"]["_target_"])

    def run(*command: str, code: int = 0) -> Path:
        call = dlx_call(*command)
        assert call.code == code, call.err
        return Path(json.loads(call.out.splitlines()[-1])["run"])

    if group in ("model", "dataset"):
        planned = dlx_call("train", *words, "--dry-run")
        assert planned.code == 0, planned.err
        assert not Path("outputs").exists()
    whole = run("train", *words, "--json")
    with sigterm_at(3):
        cut = run("train", *words, "--json", code=143)
    assert_same_end(run("resume", str(cut), "--json"), whole)


def test_each_exception_is_an_option():
    assert set(ELSEWHERE) <= set(OPTIONS)
    assert set(SMALLER) <= {*options("model"), *options("dataset")}


def test_every_model_has_a_bar_that_make_quality_measures(alone):
    """Those of models of sequences are slow tests of models/sequence."""
    without = {"torchvision", "timm", "ensemble", "stump", "polynomial"}  # many, made of others, or weak by design
    targets = {name: compose(alone("model", name))["model"]["_target_"] for name in options("model")}
    sequences = {name for name, target in targets.items() if ".sequence." in target}
    assert set(options("model")) - sequences == set(BARS) | without
    texts = [path.read_text() for path in (Path(__file__).parent / "models" / "sequence").glob("test_*.py")]
    slow = "\n".join(text for text in texts if "mark.slow" in text)
    closed_form = {name for group, name in ELSEWHERE if group == "model"}
    assert [name for name in sequences - closed_form if not re.search(rf"(model=|\"){name}\b", slow)] == []


def test_every_method_has_a_file_of_tests():
    files = {path.stem for path in (Path(__file__).parent / "methods").glob("test_*.py")}
    assert {f"test_{name}" for name in options("method")} <= files
