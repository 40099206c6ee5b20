"""RNN, LSTM and GRU: torch's with the same weights, fused and step by step, padding, causality, caches, beginnings."""

import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from dlx.models.sequence.gru import GRU
from dlx.models.sequence.lstm import LSTM
from dlx.models.sequence.recurrent import GRUCell
from dlx.models.sequence.rnn import RNN
from dlx.tasks.spec import Image, Label, LabeledImages, Reals, RealSequence, RegressionSequences

IN_TORCH = {
    "tanh": (RNN, nn.RNN),
    "relu": (partial(RNN, activation="relu"), partial(nn.RNN, nonlinearity="relu")),
    "lstm": (LSTM, nn.LSTM),
    "gru": (partial(GRU, reset_after=True), nn.GRU),
}
MODELS = {name: make for name, (make, _) in IN_TORCH.items()} | {
    "sigmoid": partial(RNN, activation="sigmoid"),
    "gru-paper": GRU,
}
each = pytest.mark.parametrize("name", MODELS)
each_in_torch = pytest.mark.parametrize("name", IN_TORCH)


def both(name, spec, hidden=6, num_layers=2):
    """A model, and torch's layer with the same weights."""
    ours, theirs = IN_TORCH[name]
    model = ours(spec=spec, hidden=hidden, num_layers=num_layers)
    layer = theirs(model.steps.width, hidden, num_layers, batch_first=True)
    state = {
        f"{part.removesuffix('_l0')}_l{number}": value
        for number, cell in enumerate(model.cells)
        for part, value in cell.weights.state_dict().items()
    }
    layer.load_state_dict(state)
    return model, layer


@each_in_torch
@pytest.mark.parametrize("fused", [True, False])
def test_outputs_and_gradients_are_those_of_torch(name, fused, specs, random_batch):
    spec = specs["regression"]
    model, layer = both(name, spec)
    model.fused = fused
    x_BTF = random_batch(spec)["sequence"].requires_grad_()
    ours = model.features(x_BTF)
    theirs, _ = layer(x_BTF)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    weight = torch.randn_like(ours)
    (dx,) = torch.autograd.grad((ours * weight).sum(), x_BTF, retain_graph=True)
    (expected_dx,) = torch.autograd.grad((theirs * weight).sum(), x_BTF, retain_graph=True)
    torch.testing.assert_close(dx, expected_dx, atol=1e-6, rtol=1e-5)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    for number, cell in enumerate(model.cells):
        for part, parameter in cell.weights.named_parameters():
            expected = getattr(layer, f"{part.removesuffix('_l0')}_l{number}").grad
            torch.testing.assert_close(parameter.grad, expected, atol=1e-5, rtol=1e-5)


@each_in_torch
def test_fused_is_the_cell_step_by_step(name, specs, random_batch):
    model = MODELS[name](spec=specs["streams"], hidden=6, num_layers=2)
    assert model.fused
    tokens = random_batch(specs["streams"])["tokens"]
    found = []
    for fused in (True, False):
        model.fused = fused
        output = model(tokens)
        model.zero_grad()
        output.square().sum().backward()
        found.append([output, *(parameter.grad for parameter in model.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_the_papers_gru_by_hand():
    cell = GRUCell(1, 2)
    x, h = torch.tensor([[0.7]]), torch.tensor([[0.3, -0.5]])
    W, U, b, c = cell.parts
    r = torch.sigmoid(W[0:2] @ x[0] + b[0:2] + U[0:2] @ h[0] + c[0:2])
    z = torch.sigmoid(W[2:4] @ x[0] + b[2:4] + U[2:4] @ h[0] + c[2:4])
    n = torch.tanh(W[4:6] @ x[0] + b[4:6] + U[4:6] @ (r * h[0]) + c[4:6])
    output, _ = cell(x.unsqueeze(1), {"h": h})
    torch.testing.assert_close(output[0, 0], (1 - z) * h[0] + z * n)


def test_the_two_forms_of_the_gru_differ_unless_the_reset_gate_is_open():
    """With r = 1, and z read the other way round, they are one."""
    paper, torchs = GRUCell(2, 3), GRUCell(2, 3, reset_after=True)
    torchs.load_state_dict(paper.state_dict())
    x_BLD = torch.randn(4, 5, 2)

    def outputs():
        with torch.no_grad():
            return [cell(x_BLD, cell.start(x_BLD))[0] for cell in (paper, torchs)]

    with torch.no_grad():  # z to 1 - z
        for part in torchs.parts:
            part[3:6] = -paper.parts[[p is part for p in torchs.parts].index(True)][3:6]
    assert (outputs()[0] - outputs()[1]).abs().max() > 1e-3
    with torch.no_grad():
        for cell in (paper, torchs):
            for part in cell.parts[:2]:
                part[:3] = 0
            cell.parts[2][:3], cell.parts[3][:3] = 50.0, 0.0
    torch.testing.assert_close(*outputs(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "inputs", "hidden", "count"),
    [
        (RNN, 28, 128, 20_224), (LSTM, 28, 128, 80_896), (GRU, 28, 128, 60_672),
        (RNN, 10, 20, 640), (LSTM, 10, 20, 2_560), (GRU, 10, 20, 1_920),
    ],
)  # fmt: skip
def test_counts_of_parameters(make, inputs, hidden, count):
    spec = RegressionSequences(sequence=RealSequence(length=5, size=inputs), target=Reals())
    with torch.device("meta"):
        model = make(spec=spec, hidden=hidden)
    assert sum(parameter.numel() for parameter in model.cells.parameters()) == count


@each
def test_it_serves_whatever_the_data_hold(name, spec, random_batch):
    model = MODELS[name](spec=spec, hidden=6, num_layers=2)
    batch = random_batch(spec)
    (objective,) = model.objectives()
    loss, _ = model.training_loss(batch, objective)
    loss.backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    model.eval()
    with torch.no_grad():
        metrics = model.metrics(model.evaluate(batch))
        model.showcase(batch)
        answers = model.answer(batch, model.predict(batch)) if "tokens" not in batch or len(batch) > 2 else []
    assert set(metrics) == set(model.metric_names)
    assert all(answer.line for answer in answers)


@each
def test_a_step_changes_nothing_before_it(name, specs, random_batch):
    model = MODELS[name](spec=specs["streams"], hidden=6, num_layers=2).eval()
    tokens = random_batch(specs["streams"])["tokens"]
    changed = tokens.clone()
    changed[:, 6] = (tokens[:, 6] + 1) % 7
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :6], after[:, :6])
    assert (before[:, 6:] - after[:, 6:]).abs().amax((1, 2)).min() > 1e-4


@each
def test_padding_changes_no_answer(name, specs, random_batch):
    """Neither a class, nor a loss: each text of a padded batch gives what it gives alone."""
    lengths = (10, 3, 7, 1)
    for kind in ("labeled", "texts"):
        spec = specs[kind]
        model = MODELS[name](spec=spec, hidden=6, num_layers=2).eval()
        batch = random_batch(spec)
        for row, length in enumerate(lengths):
            batch["tokens"][row, length:] = 0
        with torch.no_grad():
            output = model(batch["tokens"])
            for row, length in enumerate(lengths):
                alone = model(batch["tokens"][row : row + 1, :length])
                together = output[row : row + 1] if kind == "labeled" else output[row : row + 1, :length]
                torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)


@each_in_torch
def test_the_last_state_is_that_of_a_packed_batch(name, specs, random_batch):
    model, layer = both(name, specs["labeled"])
    tokens = random_batch(specs["labeled"])["tokens"]
    lengths = torch.tensor([10, 3, 7, 1])
    tokens[torch.arange(10) >= lengths.unsqueeze(1)] = 0
    packed = pack_padded_sequence(model.steps(tokens), lengths, batch_first=True, enforce_sorted=False)
    _, state = layer(packed)
    h_BH = (state[0] if isinstance(state, tuple) else state)[-1]
    torch.testing.assert_close(model.last(model.features(tokens), tokens), h_BH, atol=1e-6, rtol=1e-6)


@each
def test_a_cache_goes_on_where_it_stopped(name, specs, random_batch):
    model = MODELS[name](spec=specs["streams"], hidden=6, num_layers=2).eval()
    tokens = random_batch(specs["streams"])["tokens"]
    cache = {}
    with torch.no_grad():
        parts = [model.features(part, cache) for part in tokens.split([4, 1, 1, 4], 1)]
        torch.testing.assert_close(torch.cat(parts, 1), model.features(tokens), atol=1e-6, rtol=1e-6)
        made = [list(model.sample(3, length=12, temperature=0, use_cache=use))[-1]["tokens"] for use in (True, False)]
    assert all(len(value) == 4 for value in cache.values())
    assert len(made[0]) == 3


@each
def test_the_same_text_with_a_cache_and_without(name, specs):
    model = MODELS[name](spec=specs["streams"], hidden=6, num_layers=2).eval()
    prompt = torch.tensor([[1, 2, 3]])
    made = []
    with torch.no_grad():
        for use_cache in (True, False):
            torch.manual_seed(5)
            *_, last = model.sample(2, prompt=prompt, length=20, use_cache=use_cache)
            made.append(last["tokens"])
    assert torch.equal(*made)
    assert made[0].shape == (2, 23)


def test_how_it_begins(specs):
    spec = specs["streams"]
    (_, U, _, _) = RNN(spec=spec, hidden=8).cells[0].parts
    torch.testing.assert_close(U @ U.T, torch.eye(8), atol=1e-5, rtol=1e-5)
    (_, _, b, c) = LSTM(spec=spec, hidden=8, forget_bias=1.5).cells[0].parts
    assert torch.equal((b + c)[8:16], torch.full((8,), 1.5))


def test_images_are_read_by_rows():
    image = Image(channels=2, height=3, width=4, mean=(0.0,) * 2, std=(1.0,) * 2)
    model = RNN(spec=LabeledImages(image=image, label=Label(classes=("a", "b"))))
    x_BCHW = torch.randn(5, 2, 3, 4)
    rows = model.steps(x_BCHW)
    assert rows.shape == (5, 3, 8)
    assert torch.equal(rows[:, 1, :4], x_BCHW[:, 0, 1])
    assert torch.equal(rows[:, 1, 4:], x_BCHW[:, 1, 1])


def test_dropout_lies_between_layers_and_is_off_in_evaluation(specs, random_batch):
    tokens = random_batch(specs["streams"])["tokens"]
    model = LSTM(spec=specs["streams"], hidden=6, num_layers=2, dropout=0.5)
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


def test_half_precision_and_exchanged_weights(specs, random_batch):
    tokens = random_batch(specs["streams"])["tokens"]
    for name in MODELS:
        model = MODELS[name](spec=specs["streams"], hidden=6)
        with torch.autocast("cpu", torch.bfloat16):
            assert (model(tokens) - model(tokens).float()).abs().max() < 0.05
        zeros = {key: torch.zeros_like(value) for key, value in model.named_parameters()}
        assert not torch.func.functional_call(model, zeros, (tokens,)).any()


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (RNN, {"activation": "gelu"}, "activation must be one of|activation must be tanh"),
        (RNN, {"activation": "sigmoid", "fused": True}, "fused must be false or null"),
        (GRU, {"fused": True}, "fused must be false or null"),
        (LSTM, {"hidden": 0}, "hidden must be at least 1, got 0"),
        (LSTM, {"num_layers": 0}, "num_layers must be at least 1, got 0"),
        (LSTM, {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        (LSTM, {"embedding": 0}, "embedding must be at least 1, got 0"),
        (GRU, {"loss": "mse"}, "loss must be cross_entropy for tokens, got 'mse'"),
    ],
)
def test_wrong_arguments_are_said(make, arguments, message, specs):
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(ValueError, match="^" + re.sub(r"\|", "|^", message)):
            make(spec=specs["streams"], **arguments)
