"""What the contracts promise beside the walk: stages, players, views, parts, pictures, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from zoo.growing import Growing
from zoo.sentence import Sentence
from zoo.walk import QLearning
from zoo.wgan import WGAN

from dlx.config import compose
from dlx.runs.checkpoint import latest_checkpoint, load_state, load_weights
from dlx.runs.folder import RunFolder
from dlx.runs.metrics import read_metrics
from dlx.training.prepare import prepare

HERE = Path(__file__).parent
STEPS = ("trainer.max_steps=12", "trainer.log_every=4", "trainer.validate_every=4", "trainer.threads=1", "--json")


def trained(call, *words) -> dict:
    given = {word.partition("=")[0] for word in words}
    done = call("train", *words, *(word for word in STEPS if word.partition("=")[0] not in given))
    assert done.code == 0, done.err + done.out
    return json.loads(done.out.splitlines()[-1])


def rows(run: str) -> list[dict]:
    return read_metrics(Path(run) / "metrics.jsonl")


def no_runs() -> bool:
    return not list(Path("outputs").rglob("config.yaml"))


# Stages


def test_what_is_best_begins_anew_with_a_stage(call):
    """The first stage's loss is of another kind, and lower: it must not be the run's best."""
    told = trained(call, "model=toy_painter", "model.first=4", "trainer.validate_every=2")
    summary = RunFolder(told["run"]).summary()
    assert summary["best_step"] > 4
    history = load_state(latest_checkpoint(Path(told["run"]) / "checkpoints")[0])["state"]["history"]
    assert [row["step"] for row in history] == [6, 8, 10, 12]


def test_optimizers_schedule_and_progress_count_within_the_stage(call, monkeypatch):
    seen = []
    loss = Growing.training_loss

    def training_loss(self, batch, objective):
        seen.append((int(batch["step"]), int(batch["stage"]), round(float(batch["progress"]), 3)))
        return loss(self, batch, objective)

    monkeypatch.setattr(Growing, "training_loss", training_loss)
    told = trained(call, "model=toy_growing", "scheduler=cosine", "trainer.log_every=1")
    assert [step for step, *_ in seen] == list(range(12))
    assert [stage for _, stage, _ in seen] == [0] * 6 + [1] * 6
    assert [progress for *_, progress in seen] == [round(k / 6, 3) for k in range(6)] * 2
    rates = [row["lr"] for row in rows(told["run"]) if "lr" in row]
    assert rates[:6] == rates[6:]
    assert rates[0] == max(rates)


def test_early_stopping_acts_in_the_last_stage(call):
    stop = ("reg=[early_stopping]", "reg.early_stopping.patience=1", "optim.lr=0.0", "trainer.validate_every=1")
    told = trained(call, "model=toy_growing", *stop)
    assert max(row["step"] for row in rows(told["run"])) == 8  # the sixth step begins the second stage


def test_a_stage_that_is_longer_than_the_run_is_refused(call):
    for words in (("model=toy_painter", "model.first=12"), ("model=toy_growing", "model.grows_at=0.01")):
        refused = call("train", *words, *STEPS)
        assert refused.code == 2
        assert refused.err.startswith("error: model: ")
        assert "first" in refused.err or "grows_at" in refused.err
    assert no_runs()


def test_a_longer_training_that_moves_a_passed_boundary_is_refused(call, monkeypatch):
    told = trained(call, "model=toy_growing")
    refused = call("resume", told["run"], "trainer.max_steps=24")
    assert refused.code == 2
    assert "its stages began at steps [0, 6]" in refused.err
    assert RunFolder(told["run"]).status()["status"] == "finished"


def test_a_resume_across_a_boundary_needs_no_more(call, monkeypatch):
    """Cut at the very boundary: the checkpoint has the first stage's optimizers, the next step has the second's."""

    def after_step(self, step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = trained(call, "model=toy_growing")
    with monkeypatch.context() as patch:
        patch.setattr(Growing, "after_step", after_step)
        cut = call("train", "model=toy_growing", *STEPS)
    run = json.loads(cut.out.splitlines()[-1])["run"]
    assert json.loads(call("resume", run, "--json").out)["metrics"] == whole["metrics"]


# Players


def test_each_player_has_its_own_clip_norm_and_rate(call):
    words = ("optimizer.players.critic.clip_norm=0.01", "optimizer.players.generator.lr=1e-5", "trainer.log_every=1")
    told = trained(call, "model=toy_wgan", *words)
    last = next(row for row in reversed(rows(told["run"])) if "lr/critic" in row)
    assert (last["lr/critic"], last["lr/generator"]) == (3e-3, 1e-5)
    assert last["train/critic/grad_norm"] > 0.01  # before it is clipped
    steps = [row["step"] for row in rows(told["run"]) if "train/generator/loss" in row]
    assert steps == [5, 10]
    wrong = call("train", "model=toy_wgan", "optimizer.players.critic.clip_norm=0")
    assert wrong.code == 2
    assert "clip_norm must be above 0" in wrong.err


def test_only_the_generator_is_averaged(call):
    one = trained(call, "model=toy_wgan", "trainer.ema=0.9", "name=a")
    folder, _ = latest_checkpoint(Path(one["run"]) / "checkpoints")
    last, best = (load_weights(folder / f"{name}.safetensors") for name in ("last", "best"))
    differ = {name.split(".")[0] for name in last if not torch.equal(last[name], best[name])}
    assert differ == {"generator"}


def test_a_player_that_no_objective_has_is_refused(call, monkeypatch):
    monkeypatch.setattr(WGAN, "players", ("critic", "genrator"))
    refused = call("train", "model=toy_wgan", *STEPS)
    assert refused.code == 2
    assert "objectives critic, generator and players critic, genrator" in refused.err
    assert no_runs()


def test_a_divergence_names_the_player(call, monkeypatch):
    loss = WGAN.training_loss

    def training_loss(self, batch, objective):
        value, logs = loss(self, batch, objective)
        return (value * float("nan") if objective.name == "generator" else value), logs

    monkeypatch.setattr(WGAN, "training_loss", training_loss)
    ended = call("train", "model=toy_wgan", *STEPS)
    assert ended.code == 3
    assert "generator: the loss is nan at step 5" in ended.out + ended.err


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_gradient_penalty_under_autocast(precision, call):
    told = trained(call, "model=toy_wgan", f"trainer.precision={precision}")
    assert all(row["train/critic/loss"] == row["train/critic/loss"] for row in rows(told["run"]) if "lr/critic" in row)


# What the loop refuses


def test_settings_that_a_system_cannot_take_are_refused(call):
    for words, text in (
        (("model=toy_wgan", "trainer.compile=true"), "trainer.compile: must be false"),
        (("model=toy_contrastive", "trainer.accumulate=2"), "trainer.accumulate: must be 1"),
        (("model=toy_wgan", "dataset.weights=w.npy"), "dataset.weights: must be null: WGAN has several objectives"),
        (("model=toy_growing", "dataset.weights=w.npy"), "takes no sample weights"),
        (("model=toy_wgan", "trainer.monitor=val/loss:min"), "WGAN is not evaluated"),
        (("model=toy_walk", "dataset.subset=8"), "dataset.subset: must not be set"),
        (("model=toy_walk", "dataset.workers=2"), "dataset.workers: must not be set"),
        (("model=toy_detector", "data=sentences"), "Detector takes SizedBoxes"),
    ):
        refused = call("train", *words, *STEPS)
        assert refused.code == 2, (words, refused.err)
        assert text in refused.err, refused.err
        assert len(refused.err.splitlines()) == 1
    assert no_runs()


def test_a_layer_with_the_name_of_a_hook_is_refused():
    class Wrong(Sentence):
        def __init__(self, **given):
            super().__init__(**given)
            self.sample = torch.nn.Linear(1, 1)

    with pytest.raises(AttributeError, match="cannot have the name of a method"):
        Wrong(spec=__import__("zoo.texts").texts.Sentences.spec)


def test_a_split_that_lacks_an_entry_is_refused(call, monkeypatch):
    from zoo.texts import Sentences

    from dlx.data.dataset import TensorSource

    monkeypatch.setattr(Sentences, "splits", lambda self: {"train": TensorSource(tokens=torch.zeros(50, 9).long())})
    refused = call("train", "model=toy_sentence", *STEPS)
    assert refused.code == 2
    assert "its spec names label, which train samples lack" in refused.err
    assert no_runs()


# Randomness


def test_how_often_one_validates_changes_no_weight(call):
    ends = []
    for every in (1, 40):
        told = trained(call, "model=toy_walk", f"trainer.validate_every={every}")
        ends.append(load_weights(latest_checkpoint(Path(told["run"]) / "checkpoints")[0] / "last.safetensors"))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_no_metric_depends_on_the_batch_size_of_the_evaluation(call):
    for model in ("toy_vae", "toy_masked", "toy_segmenter", "toy_seq2seq"):
        told = [trained(call, f"model={model}", f"dataset.eval_batch_size={size}")["metrics"] for size in (5, 64)]
        assert told[0] == pytest.approx(told[1], rel=1e-5)


def test_the_environment_acts_under_its_own_scope(call, monkeypatch):
    """What is drawn elsewhere before a step moves no episode."""
    told = trained(call, "model=toy_walk")

    def before_step(self, step, data):
        torch.rand(100)

    monkeypatch.setattr(QLearning, "before_step", before_step)
    assert trained(call, "model=toy_walk")["metrics"] == told["metrics"]


# Fits after the training


def test_what_is_fitted_is_what_is_evaluated(call):
    told = trained(call, "model=toy_rcnn", "optim.lr=1e-8")
    before = next(row for row in rows(told["run"]) if "val/accuracy" in row)
    assert before["val/accuracy"] < 0.8  # the network has learned nothing
    assert told["metrics"]["val/accuracy"] > 0.9
    best = load_weights(latest_checkpoint(Path(told["run"]) / "checkpoints")[0] / "best.safetensors")
    assert best["fitted"] == 1


def test_a_fit_sees_all_of_the_split_in_eval_mode(call, monkeypatch):
    from zoo.rcnn import RCNN

    seen = {}
    fit = RCNN.fit

    def watched(self, data):
        seen.update(count=sum(len(batch["index"]) for batch in data.train.eval_batches()), training=self.training)
        seen["grad"] = torch.is_grad_enabled()
        fit(self, data)

    monkeypatch.setattr(RCNN, "fit", watched)
    trained(call, "model=toy_rcnn")
    split = prepare(compose(["model=toy_rcnn"], conf_dirs=[HERE / "conf"], trust=["zoo"])).splits["train"]
    assert seen == {"count": len(split), "training": False, "grad": False}


# What comes after the training loses nothing


def test_a_showcase_with_a_bug_loses_no_training(call, monkeypatch):
    def showcase(self, batch):
        raise KeyError("image")

    monkeypatch.setattr(Sentence, "showcase", showcase)
    ended = call("train", "model=toy_sentence", *STEPS)
    assert ended.code == 5
    assert "pictures not made: KeyError: 'image'" in ended.err
    folder = RunFolder(json.loads(ended.out.splitlines()[-1])["run"])
    assert folder.status()["status"] == "finished"
    assert folder.summary()["test/accuracy"] > 0
    again = call("resume", str(folder.path))
    assert again.code == 2
    assert "finished" in again.err


def test_a_test_evaluation_with_a_bug_is_done_again_by_resume(call, monkeypatch):
    metrics, calls = Sentence.metrics, []

    def breaks(self, statistics):
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("no memory")
        return metrics(self, statistics)

    whole = trained(call, "model=toy_sentence", "reg=[]")
    with monkeypatch.context() as patch:
        patch.setattr(Sentence, "metrics", breaks)
        patch.setattr(Sentence, "gaps", {})
        ended = call("train", "model=toy_sentence", *STEPS)
    assert ended.code == 5
    run = next(path.parent for path in Path("outputs").rglob("config.yaml") if path.parent != Path(whole["run"]))
    assert "the test split is not evaluated: RuntimeError: no memory" in RunFolder(run).status()["reason"]
    assert RunFolder(run).summary()["lacks"] == ["test"]
    resumed = call("resume", str(run), "--json")
    assert resumed.code == 0, resumed.err
    assert "lacks" not in RunFolder(run).summary()
    told = json.loads(resumed.out)["metrics"]
    assert told["test/accuracy"] == whole["metrics"]["test/accuracy"]


# Pictures


def test_pictures_of_a_training_that_is_watched(call):
    words = ("model=toy_vae", "trainer.validate_every=1", "trainer.max_steps=40")
    done = call("train", *words, "trainer.threads=1", "--json")
    media = Path(json.loads(done.out)["run"]) / "media"
    steps = sorted(int(path.stem.rpartition("-")[2]) for path in media.glob("samples-0*.png"))
    assert steps[:4] == [1, 2, 3, 4]
    assert steps[-1] == 40
    assert 8 <= len(steps) <= 22
    gaps = [b - a for a, b in pairwise(steps)]
    assert gaps[-1] > gaps[0]  # closer together at the start
    assert len(list(media.glob("samples-strip-*.png"))) == 1
    (film,) = media.glob("samples-film-*.gif")
    from PIL import Image

    with Image.open(film) as animation:
        assert animation.n_frames > 4


def test_pictures_under_one_seed_show_the_same_latents(call):
    """With no learning all pictures are the same."""
    told = trained(call, "model=toy_vae", "optim.lr=0.0", "trainer.pictures_every=4")
    pictures = sorted((Path(told["run"]) / "media").glob("samples-0*.png"))
    assert [path.stem[-2:] for path in pictures] == ["04", "08", "12"]
    assert len({path.read_bytes() for path in pictures}) == 1


def test_a_text_is_a_medium(call):
    told = trained(call, "model=toy_language")
    (text,) = (Path(told["run"]) / "media").glob("samples-00000012.txt")
    assert set(text.read_text()) <= set("abcdefgh\n-")


# Parts


def test_a_part_by_option_is_checked_like_the_model_itself(call):
    told = trained(call, "model=toy_detector", "model.trunk={name: resnet, depth: 20}", "model.trunk.depth=32")
    config = (Path(told["run"]) / "config.yaml").read_text()
    assert "dlx.models.vision.resnet.ResNet" in config
    assert "depth: 32" in config
    weights = load_weights(latest_checkpoint(Path(told["run"]) / "checkpoints")[0] / "last.safetensors")
    assert any(name.startswith("trunk.stages.2.4") for name in weights)  # 5 blocks a stage
    assert not any(name.startswith("trunk.fc") for name in weights)  # a trunk has no head
    assert call("eval", told["run"]).code == 0
    again = call("train", "--from", told["run"], "model.trunk.name=cnn", *STEPS)
    assert again.code == 0, again.err
    assert "depth" not in (Path(json.loads(again.out.splitlines()[-1])["run"]) / "config.yaml").read_text()


def test_mistakes_in_a_part_are_named(call):
    for word, text in (
        ("model.trunk.depht=3", "model.trunk.depht: CNN has no such key"),
        ("model.trunk.dropout=abc", "model.trunk.dropout: must be a number"),
        ("model.trunk.dropout=1.5", "model.trunk.dropout: must be in [0, 1)"),
        ("model.trunk.name=resnt", "did you mean resnet?"),
        ("model.trunk=7", "model.trunk: must name an option"),
        ("model.trunk.name=nin", "spec must have a label"),
        ("model.trunk.name=linear", "has no method `features`, which a trunk needs"),
    ):
        refused = call("train", "model=toy_detector", word, *STEPS)
        assert refused.code == 2, word
        assert text in refused.err, refused.err
    wrong = call("train", "model=toy_contrastive", "model.augmentation={name: dropout}", *STEPS)
    assert wrong.code == 2
    assert "model.augmentation.name: dropout has no class of its own" in wrong.err
    assert no_runs()


def test_a_part_from_a_run_reads_what_these_data_have(call):
    first = trained(call, "model=toy_codes", "name=codes")["run"]
    masked = trained(call, "model=toy_masked", "name=masked")["run"]
    wrong = call("train", "model=toy_painter", "model.codes_from=masked", *STEPS)
    assert wrong.code == 2
    assert "Masked is not a subclass of Codes" in wrong.err
    other = call("train", "model=toy_codes", "data=two_sides", *STEPS)
    assert other.code == 2
    both = call("train", "model=toy_painter", "model.codes_from=codes", "model.codes={name: toy_codes}", *STEPS)
    assert both.code == 2
    assert "is given twice" in both.err
    told = trained(call, "model=toy_painter", "model.codes_from=codes", "name=painter")
    weights = load_weights(latest_checkpoint(Path(told["run"]) / "checkpoints")[0] / "best.safetensors")
    codes = load_weights(latest_checkpoint(Path(first) / "checkpoints")[0] / "best.safetensors")
    assert all(torch.equal(weights[f"codes.{name}"], codes[name]) for name in codes)
    assert masked


def test_weights_begin_where_init_from_says(call):
    first = trained(call, "model=toy_painter", "name=painter")["run"]
    weights = load_weights(latest_checkpoint(Path(first) / "checkpoints")[0] / "best.safetensors")
    done = call("train", "model=toy_codes", "trainer.init_from=painter:codes", "optim=sgd", "optim.lr=0.0", *STEPS)
    assert done.code == 0, done.err
    assert "init_from       4 tensors of painter:codes" in done.err
    run = json.loads(done.out.splitlines()[-1])["run"]
    own = load_weights(latest_checkpoint(Path(run) / "checkpoints")[0] / "last.safetensors")
    assert all(torch.equal(own[name], weights[f"codes.{name}"]) for name in own)
    torch.save({"state_dict": {"encoder.weight": torch.ones(8, 36), "other": torch.ones(1)}}, "part.pth")
    partly = call("train", "model=toy_codes", "trainer.init_from=part.pth", *STEPS)
    assert "1 tensors of part.pth; anew: encoder.bias, decoder.weight, decoder.bias; 1 unused" in partly.err
    for source, text in (("none.pth", "there is no such file"), ("painter:code", "did you mean codes?")):
        refused = call("train", "model=toy_codes", f"trainer.init_from={source}", *STEPS)
        assert refused.code == 2
        assert text in refused.err


# Several processes


GATHERS = """
import os, torch, torch.distributed as dist
from dlx.tasks import gather_with_grad
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
x, w = torch.randn(8, 3), torch.randn(3, 2, requires_grad=True)
def loss(z):
    z = torch.nn.functional.normalize(z, dim=1)
    return torch.nn.functional.cross_entropy(z @ z.T, torch.arange(8).roll(4))
alone, = torch.autograd.grad(loss(x @ w), w)
together, = torch.autograd.grad(loss(gather_with_grad(x[4 * rank : 4 * rank + 4] @ w)), w)
dist.all_reduce(together)
assert torch.allclose(together / 2, alone, atol=1e-6), (together / 2, alone)
own = loss(gather_with_grad(x[4 * rank : 4 * rank + 4] @ w))
print("same", rank, flush=True)
dist.barrier()
dist.destroy_process_group()  # one that ends first resets the other's connection
"""


def test_gathered_samples_have_the_gradient_of_one_process(here):
    Path("gathers.py").write_text(GATHERS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "gathers.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("same") == 2
