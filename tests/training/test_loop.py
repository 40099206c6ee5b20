import json
from pathlib import Path

import pytest
import torch

from dlx.runs.checkpoint import latest_checkpoint, load_weights
from dlx.runs.metrics import read_metrics
from dlx.training.interval import Due, Interval

QUICK = ("model=mlp", "model.hidden=[16]", "trainer.max_steps=6", "trainer.log_every=1")


def losses(run: str) -> list[float]:
    return [row["train/loss"] for row in read_metrics(Path(run) / "metrics.jsonl") if "train/loss" in row]


def train(dlx_call, *arguments: str) -> str:
    call = dlx_call("train", *QUICK, *arguments, "--json")
    assert call.code == 0, call.err
    return json.loads(call.out)["run"]


def test_accumulation_is_the_same_training(dlx_call):
    one, four = (losses(train(dlx_call, f"trainer.accumulate={n}")) for n in (1, 4))
    assert one == pytest.approx(four, rel=1e-5)


def test_accumulation_over_a_partial_batch_is_the_same_training(dlx_call):
    """125 samples in batches of 32 end in one of 29, which 4 does not divide; it is the fourth of the six."""
    words = ["data.subset=139", "data.drop_last=false", "scheduler=constant", "optim=sgd"]
    one, four = (losses(train(dlx_call, *words, f"trainer.accumulate={n}")) for n in (1, 4))
    assert len(one) == 6
    assert one == pytest.approx(four, rel=1e-5)


def test_the_loop_equals_a_loop_written_by_hand(dlx_call):
    """Same data order, same init, plain torch: what the loop adds changes nothing."""
    from dlx.data.digits import Digits
    from dlx.data.splits import SplitSettings
    from dlx.models.mlp import MLP
    from dlx.random import generator, reseed

    ours = losses(train(dlx_call, "optim=sgd", "scheduler=constant", "seed=5"))
    dataset = Digits()
    split = SplitSettings(batch_size=32).split(dataset)["train"]
    raw = split.source.take(split.index)
    order = torch.randperm(len(split), generator=generator(5, "order", 0))
    reseed(5, "init")
    model = MLP(spec=dataset.spec, hidden=(16,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = []
    for step in range(6):
        index = order[32 * step : 32 * (step + 1)]
        loss = torch.nn.functional.cross_entropy(
            model(dataset.spec.image.normalize(raw["image"][index])), raw["label"][index]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert ours == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast_stays_close(dlx_call, precision):
    full, half = losses(train(dlx_call)), losses(train(dlx_call, f"trainer.precision={precision}"))
    assert half != full
    assert half == pytest.approx(full, rel=0.05)


def test_clipping_bounds_the_step(dlx_call):
    run = train(dlx_call, "trainer.clip_norm=1e-6", "optim=sgd", "scheduler=constant")
    assert losses(run)[0] == pytest.approx(losses(train(dlx_call))[0])
    folder, _ = latest_checkpoint(Path(run) / "checkpoints")
    clipped = load_weights(folder / "last.safetensors")
    still, _ = latest_checkpoint(Path(train(dlx_call, "optim=sgd", "optim.lr=0.0")) / "checkpoints")
    unmoved = load_weights(still / "last.safetensors")
    moved = torch.cat([(clipped[name] - unmoved[name]).flatten() for name in clipped]).norm()
    assert 0 < moved <= 6 * 0.1 * 1e-6 * 1.01


def test_the_average_of_weights_is_what_is_judged(dlx_call):
    folder, _ = latest_checkpoint(Path(train(dlx_call, "trainer.ema=0.9")) / "checkpoints")
    last, best = load_weights(folder / "last.safetensors"), load_weights(folder / "best.safetensors")
    assert any(not torch.equal(last[name], best[name]) for name in last)


def test_a_monitored_figure_that_there_is_not_is_refused_before_anything_is_written(dlx_call, here):
    call = dlx_call("train", *QUICK, "trainer.monitor=val/acuracy:max")
    assert call.code == 2
    assert "trainer.monitor: val/acuracy: no such metric; did you mean val/accuracy? val/loss, " in call.err
    assert list(here.iterdir()) == []


def test_monitor_chooses_the_best(dlx_call):
    by_loss = dlx_call(
        "train", *QUICK, "optim.lr=1e-2", "trainer.validate_every=1", "trainer.monitor=val/loss:min", "--json"
    )
    run = Path(json.loads(by_loss.out)["run"])
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "val/loss" in row]
    assert json.loads((run / "summary.json").read_text())["val/loss"] == min(row["val/loss"] for row in rows)


def test_no_scheduler_changes_the_first_step_and_plateau_falls(dlx_call):
    run = train(dlx_call, "scheduler=plateau", "scheduler.patience=0", "trainer.validate_every=1", "optim.lr=0.0")
    rows = read_metrics(Path(run) / "metrics.jsonl")
    assert {row["lr"] for row in rows if "lr" in row} == {0.0}


def test_intervals():
    assert Interval.parse(500, 10) == Interval(steps=500)
    assert Interval.parse("2epochs", 10) == Interval(steps=20)
    assert Interval.parse("5min", 10) == Interval(seconds=300)
    for wrong in ("often", "0", "-1", "5 years"):
        with pytest.raises(ValueError, match="5min"):
            Interval.parse(wrong, 10)
    due = Due(Interval(steps=3))
    assert [step for step in range(1, 8) if due.at(step)] == [3, 6]


@pytest.mark.slow
def test_compile_is_the_same_training(dlx_call):
    assert losses(train(dlx_call, "trainer.compile=true")) == pytest.approx(losses(train(dlx_call)), rel=1e-4)
