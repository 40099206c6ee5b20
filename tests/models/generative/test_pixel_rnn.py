"""PixelRNN: what its layers see, the skew, loops over pixels written apart; what it reaches on digits.

What holds for all masked networks is in test_masked.py."""

import json
import statistics

import pytest
import torch
from test_masked import build, jacobian, noise

from dlx.config import build as build_config
from dlx.config import compose
from dlx.models.generative.pixel_rnn import DiagonalBiLSTM, PixelRNN, RowLSTM, skew, unskew


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 3), (2, 5), (5, 2)])
def test_unskew_is_the_inverse_of_skew(height, width):
    x = torch.randn(2, height, width, 3)
    skewed = skew(x)
    assert skewed.shape == (2, height, height + width - 1, 3)
    for row in range(height):
        assert torch.equal(skewed[:, row, row : row + width], x[:, row])
    assert skewed.count_nonzero() == x.count_nonzero()
    assert torch.equal(unskew(skewed), x)


def seen(layer, depth):
    system = build(layer, "binary", 8, 8, depth=depth, first_kernel=3)
    return jacobian(system, noise(system)) > 0


@pytest.mark.parametrize("depth", [1, 2])
def test_a_diagonal_bilstm_sees_all_of_the_past(depth):
    assert torch.equal(seen("diagonal", depth), torch.ones(64, 64, dtype=torch.bool).tril(-1))


def test_a_row_lstm_sees_its_triangle_and_no_more():
    """d rows above, a pixel at column c sees c - d - 2 to c + d: the state grows by one to each side a row, the
    convolution along the row adds one to the left, and the first layer one to each side in the rows above its own."""
    expected = torch.zeros(64, 64, dtype=torch.bool)
    for i in range(64):
        for j in range(i):
            d, shift = i // 8 - j // 8, j % 8 - i % 8
            expected[i, j] = -d - 2 <= shift <= (d if d else -1)
    assert torch.equal(seen("row", 1), expected)


def lstm(gates_BG, cell_BF):
    h = cell_BF.shape[1]
    o, f, i = (gates_BG[:, k * h : (k + 1) * h].sigmoid() for k in range(3))
    cell_BF = f * cell_BF + i * gates_BG[:, 3 * h :].tanh()
    return o * cell_BF.tanh(), cell_BF


def test_a_row_lstm_is_its_loop_over_pixels():
    layer = RowLSTM(3, 3, colours=1)
    x_BCHW = torch.randn(2, 6, 4, 5)
    inputs = layer.input(x_BCHW)
    states, cells = {}, {}
    zero = torch.zeros(2, 3)
    for row in range(4):
        for column in range(5):
            gates = inputs[..., row, column]
            for tap in range(3):
                above = states.get((row - 1, column + tap - 1), zero)
                gates = gates + above @ layer.state.weight[:, :, tap].T
            state, cell = lstm(gates, cells.get((row - 1, column), zero))
            states[row, column], cells[row, column] = state, cell
    expected = torch.stack([torch.stack([states[r, c] for c in range(5)], -1) for r in range(4)], 2)
    torch.testing.assert_close(layer(x_BCHW), expected)


def test_a_diagonal_bilstm_is_its_loops_over_pixels():
    layer = DiagonalBiLSTM(3, colours=1)
    x_BCHW = torch.randn(2, 6, 4, 5)
    zero, maps = torch.zeros(2, 3), []
    for direction, inputs in enumerate((layer.from_left(x_BCHW), layer.from_right(x_BCHW))):
        states, cells = {}, {}
        step = 1 - 2 * direction
        for row in range(4):
            for column in range(5)[::step]:
                beside, above = (row, column - step), (row - 1, column)
                both = torch.cat([states.get(beside, zero), states.get(above, zero)], 1)
                gates = inputs[..., row, column] + both @ layer.state[direction]
                states[row, column], cells[row, column] = lstm(gates, cells.get(beside, zero))
        maps.append(states)
    left, right = maps
    found = layer(x_BCHW)
    for row in range(4):
        for column in range(5):
            expected = left[row, column] + right.get((row - 1, column), zero)
            torch.testing.assert_close(found[..., row, column], expected)


def test_the_recipe_for_binarized_mnist_takes_one_step():
    """Diagonal BiLSTM, 7 layers of 16, 32 features before the logits: 79.20 nats."""
    config = compose(["experiment=pixel_rnn_mnist"])
    spec = build_config(config, "dataset").spec
    assert (config["optimizer"]["_target_"], config["dataset"]["batch_size"]) == ("torch.optim.RMSprop", 16)
    assert config["dataset"]["binarization"] == "fixed"
    system = build_config(config, "model", spec=spec)
    h = 16
    block = 2 * (2 * h * 4 * h + 4 * h) + 2 * 2 * h * 4 * h + h * 2 * h + 2 * h
    head = 2 * h * 32 + 32 + 32 + 1
    assert sum(p.numel() for p in system.parameters()) == 49 * 2 * h + 2 * h + 7 * block + head
    optimizer = build_config(config, "optimizer", params=system.parameters())
    loss, _ = system.training_loss({"image": torch.rand(1, 1, 28, 28).round()}, system.objectives()[0])
    loss.backward()
    optimizer.step()
    assert system.bits(loss.item()) == pytest.approx(1, abs=0.05)


def test_an_unknown_layer_is_said(images):
    with pytest.raises(ValueError, match=r"^layer must be row or diagonal, got 'column'"):
        PixelRNN(spec=images(1, 8), layer="column")


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["row", "diagonal"])
def test_what_it_reaches_on_binary_digits(layer, dlx_call):
    found = []
    for seed in range(3):
        call = dlx_call("train", "model=pixel_rnn", f"model.layer={layer}", f"seed={seed}", "--json")
        assert call.code == 0, call.err
        found.append(json.loads(call.out)["metrics"]["test/nll"])
    assert statistics.mean(found) <= 18.0, found
