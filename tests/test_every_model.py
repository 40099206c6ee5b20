"""Every option of `model`: a dry run, some steps, a kill, a resume to the same bits, an evaluation, samples or answers.

A new model needs no line here. What makes it smaller stands in test_every_option.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from run_ends import assert_same_end
from test_every_option import SMALLER, STEPS, data  # noqa: F401 (a fixture)
from test_quality import BARS

from dlx.config import compose
from dlx.config.groups import options
from dlx.runs.folder import RunFolder
from dlx.tasks.spec import Reals, RealSequence
from dlx.training.load import load_system

MADE_OF_OTHERS = {"ensemble": "is made of other runs: models/test_ensemble.py"}
CLOSED_FORM = {"markov", "autoregressive", "independent_pixels", "markov_pixels", "stump", "polynomial"}
"""They are fitted without steps, so that there is nothing to resume."""
MODELS = [name for name in options("model") if "/" not in name]


@pytest.mark.parametrize("name", MODELS)
def test_it_trains_resumes_evaluates_and_samples_or_predicts(name, data, alone, dlx_call, sigterm_at):  # noqa: F811
    if name in MADE_OF_OTHERS:
        pytest.skip(MADE_OF_OTHERS[name])
    if name == "timm":
        pytest.importorskip("timm")
    words = [*alone("model", name), *SMALLER.get(name, ()), *STEPS]
    if name == "mlp":
        words.append("model.hidden=[8]")
    data(compose(words)["dataset"]["_target_"])

    def run(*command: str, code: int = 0) -> dict:
        call = dlx_call(*command)
        assert call.code == code, call.err
        return json.loads(call.out.splitlines()[-1])

    planned = dlx_call("train", *words, "--dry-run")
    assert planned.code == 0, planned.err
    assert not Path("outputs").exists()
    folder = Path(run("train", *words, "--json")["run"])
    if name not in CLOSED_FORM:
        with sigterm_at(3):
            cut = run("train", *words, "--json", code=143)["run"]
        assert_same_end(Path(run("resume", cut, "--json")["run"]), folder)

    assert run("eval", str(folder), "--json")["run"] == str(folder)
    made = dlx_call("sample", str(folder), "-n", "2", "--json")
    if asked := re.search(r"--given (\w+)=FILE", made.err):  # it makes something of an image
        made = dlx_call("sample", str(folder), "-n", "2", "--given", f"{asked[1]}=photos/cat/0.png", "--json")
    if made.code == 0:
        result = json.loads(made.out.splitlines()[-1])
        assert result["pictures"] or result["texts"]
    else:
        assert "makes nothing" in made.err, made.err
        assert run("predict", str(folder), *something_to_read(folder), "--json")["predictions"]


def something_to_read(folder: Path) -> list[str]:
    """What `dlx predict` is given, by what the system reads."""
    run = RunFolder(folder)
    entry = next(iter(load_system(run, run.load_config()).spec.inputs.values()))
    if entry.is_text:
        return ["--text", "abc"]
    if not isinstance(entry, Reals | RealSequence):
        return ["photos/cat/0.png"]
    Path("numbers.csv").write_text("\n".join(",".join(["0.5"] * entry.size) for _ in range(40)))
    return ["numbers.csv"]


def test_every_model_has_a_bar_that_make_quality_measures(alone):
    """Those of other models than classifiers of images are slow tests of their own folders."""
    without = {"torchvision", "timm", "ensemble", "stump", "polynomial"}  # many, made of others, or weak by design
    targets = {name: compose(alone("model", name))["model"]["_target_"] for name in options("model")}
    folders = ("sequence", "generative", "segmentation", "detection", "contrastive")
    apart = {name for name, target in targets.items() if target.split(".")[2] in folders}
    assert set(options("model")) - apart == set(BARS) | without
    models = Path(__file__).parent / "models"
    texts = [path.read_text() for folder in folders for path in (models / folder).glob("test_*.py")]
    slow = "\n".join(text for text in texts if "mark.slow" in text)
    assert [name for name in apart - CLOSED_FORM if not re.search(rf"(model=|\"){name}\b", slow)] == []
