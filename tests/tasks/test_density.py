"""What the kind `density` gives every explicit model, on a table of independent pixels."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from dlx.config.errors import UserError
from dlx.models.generative.independent_pixels import IndependentPixels
from dlx.tasks.analyses import area, roc
from dlx.tasks.density import draw_level, log_probs
from dlx.tasks.spec import Image, Images


def images(scale=1.0, channels=1, height=2, width=3):
    return Images(
        image=Image(channels=channels, height=height, width=width, mean=(0.4,) * channels, std=(0.2,) * channels,
                    scale=scale)
    )  # fmt: skip


def model(**sizes):
    system = IndependentPixels(spec=images(**sizes), by="gradient")
    with torch.no_grad():
        system.table.normal_(generator=torch.Generator().manual_seed(0))
    return system


def batch_of(system, levels):
    return {"image": system.image_of(torch.as_tensor(levels)), "index": torch.arange(len(levels))}


@pytest.mark.parametrize(("scale", "channels"), [(1.0, 1), (3.0, 1), (3.0, 3)])
def test_levels_in_raster_order_and_back(scale, channels):
    system = model(scale=scale, channels=channels)
    levels = torch.randint(0, int(scale) + 1, (4, 6 * channels))
    image = system.image_of(levels)
    assert image.shape == (4, channels, 2, 3)
    assert image.min() >= 0
    assert image.max() <= 1
    assert torch.equal(system.flat_levels(image), levels)
    assert torch.equal(image[:, :, 0, 1], levels[:, channels : 2 * channels] / scale)  # the channels of a pixel


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_log_prob_is_the_sum_over_the_tables(scale):
    system = model(scale=scale)
    levels = torch.randint(0, int(scale) + 1, (5, 6))
    table = system.table.log_softmax(-1)
    expected = sum(table[pixel, levels[:, pixel]] for pixel in range(6))
    batch = batch_of(system, levels)
    assert torch.allclose(system.log_prob(batch), expected, atol=1e-5)
    loss, _ = system.training_loss({**batch, "weight": torch.tensor([5.0, 0, 0, 0, 0])}, system.objectives()[0])
    assert torch.allclose(loss, -expected[0], atol=1e-5)


@torch.no_grad()
def test_metrics_are_nats_a_sample_and_bits_a_dimension():
    system = model()
    batch = batch_of(system, torch.randint(0, 2, (7, 6)))
    whole = system.metrics(system.evaluate(batch))
    assert whole["nll"] == pytest.approx(-float(system.log_prob(batch).mean()), rel=1e-6)
    assert whole["bpd"] == pytest.approx(whole["nll"] / (6 * math.log(2)))
    parts = [system.evaluate({name: value[rows] for name, value in batch.items()}) for rows in (slice(2), slice(2, 7))]
    joined = system.metrics({name: parts[0][name] + parts[1][name] for name in parts[0]})
    assert joined == pytest.approx(whole)


@pytest.mark.parametrize("outputs", [1, 4])
def test_levels_are_drawn_by_their_probabilities(outputs):
    torch.manual_seed(0)
    logits = torch.randn(1, outputs)
    p = log_probs(logits.expand(1, max(2, outputs), -1), torch.arange(max(2, outputs)).unsqueeze(0)).exp()[0]
    assert p.sum() == pytest.approx(1, abs=1e-6)
    drawn = draw_level(logits.expand(20_000, -1))
    assert torch.allclose(torch.bincount(drawn, minlength=len(p)) / 20_000, p, atol=0.015)
    assert draw_level(logits, temperature=0).item() == p.argmax()


def test_the_upper_half_is_kept(tmp_path):
    system = model(height=4)
    given = torch.tensor([[1, 0, 1, 0, 0, 1] + [1] * 6])
    Picture.fromarray((given.view(4, 3).numpy() * 255).astype(np.uint8)).save(tmp_path / "half.png")
    *rows, made = system.sample(5, half=tmp_path / "half.png")
    assert len(rows) == 2  # the half as it is given, then a row at a time
    assert torch.equal(system.flat_levels(made["image"])[:, :6], given[:, :6].expand(5, -1))


def test_an_order_in_which_the_lower_half_does_not_come_last_completes_nothing(tmp_path):
    system = model(height=4)
    system.order = torch.arange(11, -1, -1)
    Picture.fromarray(np.zeros((4, 3), np.uint8)).save(tmp_path / "half.png")
    with pytest.raises(UserError, match="--given half: IndependentPixels draws in an order"):
        system.sample(5, half=tmp_path / "half.png")


def test_area_and_roc():
    usual, unusual = torch.tensor([1.0, 2, 3, 4]), torch.tensor([0.0, 1, 5])
    pairs = [(u > o) + 0.5 * (u == o) for u in usual.tolist() for o in unusual.tolist()]
    assert area(usual, unusual) == pytest.approx(sum(pairs) / len(pairs))
    x, y = roc(usual, unusual)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(y, x) == pytest.approx(area(usual, unusual))


@pytest.fixture
def trained(dlx_call):
    call = dlx_call("train", "model=independent_pixels", "data.classes=[3,8]", "name=threes", "-q")
    assert call.code == 0, call.err


def test_what_a_person_does_with_it(dlx_call, trained, tmp_path):
    """Samples, a completed half, log p of a file, and what is odd: the classes that it was not trained on."""
    Picture.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "half.png")
    call = dlx_call("sample", "threes", "-n", "4", "--given", f"half={tmp_path / 'half.png'}", "--json")
    assert len(json.loads(call.out)["pictures"]) == 2  # and the film of how it is drawn
    call = dlx_call("predict", "threes", str(tmp_path / "half.png"))
    assert call.code == 0, call.err
    assert "nats" in call.out
    found = json.loads(dlx_call("eval", "threes", "--analysis", "anomaly", "--json").out)["metrics"]
    assert found["anomaly/auroc"] > 0.8
    other = json.loads(dlx_call("eval", "threes", "--analysis", "anomaly", "data=binary_digits", "--json").out)
    assert other["metrics"]["anomaly/others"] > found["anomaly/others"]  # its own classes are among them


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sample", "threes", "--given", "half=PICTURE"), "9 x 8 pixels, not 8 x 8"),
        (("sample", "threes", "--given", "temperature=-1"), "--given temperature: must be at least 0"),
        (("eval", "threes", "data=digits"), "with --analysis only"),
        (("eval", "threes", "--analysis", "anomaly", "data=digits"), "0 to 16, and the run was trained on"),
        (("eval", "threes", "--analysis", "anomaly", "data=binary_digit"), "did you mean binary_digits"),
        (("eval", "threes", "data.binarization=dynamic"), "the run's data have threshold, got dynamic"),
    ],
)
def test_bad_input_is_refused_in_a_line(words, message, dlx_call, trained, tmp_path):
    Picture.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "large.png")
    call = dlx_call(*(word.replace("PICTURE", str(tmp_path / "large.png")) for word in words))
    assert call.code == 2, call.err + call.out
    assert message in call.err
    assert len(call.err.splitlines()) <= 2


def test_anomaly_needs_others(dlx_call):
    assert dlx_call("train", "model=independent_pixels", "name=all", "-q").code == 0
    call = dlx_call("eval", "all", "--analysis", "anomaly")
    assert call.code == 2
    assert "--analysis anomaly: needs other data, data=NAME" in call.err
