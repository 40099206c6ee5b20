"""What recurrent networks learn: the adding problem, a source of known entropy, rows of digits. Minutes each."""

import json
import statistics
from functools import partial

import pytest
import torch

from dlx.models.sequence.gru import GRU
from dlx.models.sequence.lstm import LSTM
from dlx.models.sequence.rnn import RNN
from dlx.tasks.spec import Reals, RealSequence, RegressionSequences

pytestmark = pytest.mark.slow


def adding_error(make, steps, seed, length=50):
    """The mean squared error on 1,000 new samples after so many steps of 64 samples that are never seen again."""
    torch.manual_seed(seed)
    spec = RegressionSequences(sequence=RealSequence(length=length, size=2), target=Reals())
    model = make(spec=spec, hidden=64)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    objective = model.objectives()[0]

    def draw(count):
        value_BT, rows = torch.rand(count, length), torch.arange(count)
        mark_BT = torch.zeros(count, length)
        mark_BT[rows, torch.randint(0, length // 2, (count,))] = 1
        mark_BT[rows, torch.randint(length // 2, length, (count,))] = 1
        target = (value_BT * mark_BT).sum(1, keepdim=True)
        return {"sequence": torch.stack([value_BT, mark_BT], -1), "target": target}

    for _ in range(steps):
        loss, _ = model.training_loss(draw(64), objective)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        return model.training_loss(draw(1000), objective)[0].item()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("make", "steps"),
    [(GRU, 1500), (partial(GRU, reset_after=True), 1500), (LSTM, 3000)],
    ids=["gru", "gru-after", "lstm"],
)
def test_gates_solve_the_adding_problem(make, steps, seed):
    assert adding_error(make, steps, seed) < 0.01


@pytest.mark.parametrize("seed", range(3))
def test_the_vanilla_rnn_tells_the_mean(seed):
    assert adding_error(RNN, 3000, seed) > 0.15  # the variance of the sum is 1/6


def test_lstm_reaches_the_entropy_of_a_source(dlx_call):
    from dlx.data.markov_source import MarkovSource

    entropy = MarkovSource(order=2).entropy
    call = dlx_call("train", "model=lstm", "data=markov_source", "data.order=2", "trainer.epochs=10", "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out)["metrics"]["test/loss"] == pytest.approx(entropy, rel=0.01)


def test_a_latent_state_comes_near_the_entropy_of_a_source(dlx_call):
    from dlx.data.markov_source import MarkovSource

    entropy = MarkovSource(order=2).entropy
    words = ("model=latent_autoregressive", "data=markov_source", "data.order=2", "trainer.epochs=10")
    call = dlx_call("train", *words, "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out)["metrics"]["test/loss"] == pytest.approx(entropy, rel=0.02)


@pytest.mark.parametrize(("model", "bar"), [("rnn", 0.95), ("lstm", 0.96), ("gru", 0.95)])
def test_rows_of_digits(model, bar, dlx_call):
    found = []
    for seed in range(3):
        words = ["data=digits", "model.hidden=64", "trainer.epochs=60", f"seed={seed}"]
        call = dlx_call("train", f"model={model}", *words, "--json")
        assert call.code == 0, call.err
        found.append(json.loads(call.out)["metrics"]["test/accuracy"])
    assert statistics.mean(found) >= bar, found
