"""The judge: the Frechet distance against its closed form, entropy and purity by hand, what it refuses."""

import json
import math

import pytest
import torch

from dlx.models.generative.infogan import InfoGAN
from dlx.tasks.judge import NONE, agreement, entropy, first_named, frechet, halved, purity, sampled
from dlx.tasks.spec import Points, Reals


def test_of_gaussians_it_is_the_formula():
    """Two large draws of Gaussians of known means and covariances."""
    torch.manual_seed(0)
    scale = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    a = torch.randn(200_000, 3, dtype=torch.float64)
    b = torch.randn(200_000, 3, dtype=torch.float64) * scale + torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    assert frechet(a, b) == pytest.approx(5 + (scale - 1).square().sum().item(), rel=0.02)


def test_it_is_that_of_a_matrix_root():
    torch.manual_seed(0)
    a, b = torch.randn(50, 4, dtype=torch.float64), torch.randn(40, 4, dtype=torch.float64) @ torch.randn(4, 4).double()
    cov = [x.T.cov() for x in (a, b)]
    values, vectors = torch.linalg.eigh(cov[0])
    root = vectors @ values.sqrt().diag() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov[1] @ root).clamp_min(0).sqrt().sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + cov[0].trace() + cov[1].trace() - 2 * cross
    assert frechet(a, b) == pytest.approx(expected.item(), rel=1e-9)
    assert frechet(b, a) == pytest.approx(expected.item(), rel=1e-9)


def test_of_a_set_and_itself_it_is_0_also_with_fewer_samples_than_features():
    x = torch.randn(5, 20)
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet(x, x + 2) == pytest.approx(80, rel=1e-5)  # a shift by 2 in 20 features


def test_samples_of_the_same_distribution_are_as_far_as_the_real_halves():
    torch.manual_seed(0)
    found, floor = halved(torch.randn(400, 8), torch.randn(1000, 8))
    assert floor > 0
    assert found == pytest.approx(floor, rel=0.25)
    assert halved(torch.randn(400, 8), torch.randn(1000, 8) + 1)[0] > 10 * floor


def test_entropy_and_purity_by_hand():
    assert entropy(torch.tensor([5, 5, 0])) == pytest.approx(math.log(2))
    assert entropy(torch.tensor([0, 9])) == 0
    code, read = torch.tensor([0, 0, 0, 1, 1, 3]), torch.tensor([2, 2, 0, 1, 0, 1])
    found, count_CK = purity(code, read)
    assert found == pytest.approx((2 + 1 + 1) / 6)
    assert count_CK.tolist() == [[1, 0, 2], [1, 1, 0], [0, 0, 0], [0, 1, 0]]


def test_a_text_asks_for_the_class_that_it_names_first():
    text = "a small red circle left of a blue square"
    assert first_named(text, ("blue", "green", "red")) == 2
    assert first_named(text, ("square", "circle")) == 1
    assert first_named(text, ("red", "red circle", "blue square")) == 1
    assert first_named(text, ("circ", "yellow")) == NONE
    assert agreement(torch.tensor([1, 2, 0, 1]), torch.tensor([1, 0, NONE, NONE])) == 0.5


def test_of_an_iterator_the_last_batch_is_judged():
    class Steps:
        def sample(self, count):
            yield {"image": 0}
            yield {"image": count}

    assert sampled(Steps(), 3) == {"image": 3}


def test_makers_of_points_have_no_judge():
    system = InfoGAN(spec=Points(features=Reals(size=2)), network="mlp", hidden=(4,))
    assert set(system.analyses) == {"probe"}


STEPS = ("trainer.max_steps=4", "--json")


@pytest.fixture
def runs(dlx_call, no_pictures):
    for words in (
        ("model=cnn", "name=reads"),
        ("model=infogan", "model.hidden=[8]", "name=makes"),
        ("model=independent_pixels", "data=digits", "name=counts"),
        ("model=cnn", "data=binary_digits", "name=binary"),
        ("model=linear", "name=linear"),
    ):
        call = dlx_call("train", *words, *STEPS)
        assert call.code == 0, call.err


def test_through_the_command_line(runs, dlx_call):
    call = dlx_call("eval", "makes", "--analysis", "judge", "run=reads", "samples=40", "--json")
    assert call.code == 0, call.err
    found = json.loads(call.out)
    assert set(found["metrics"]) == {
        f"judge/{name}" for name in ("frechet", "frechet_of_real", "entropy", "entropy_of_real", "purity")
    }
    assert found["samples"] == 40
    assert "reads" not in found["run"]
    again = dlx_call("eval", "makes", "--analysis", "judge", "run=reads", "samples=40", "--json")
    assert json.loads(again.out)["metrics"] == found["metrics"]
    assert dlx_call("eval", "counts", "--analysis", "judge", "run=reads", "samples=40").code == 0
    for words, text in (
        (["makes", "--analysis", "judge"], "--analysis judge: needs another run, run=NAME"),
        (["makes", "--analysis", "judge", "run=nothing"], "nothing"),
        (["makes", "--analysis", "judge", "run=counts"], "is no classifier of images: IndependentPixels"),
        (["makes", "--analysis", "judge", "run=binary"], "0 to 1, and this run makes 8 x 8 pixels"),
        (["makes", "--analysis", "judge", "run=linear"], "Linear has no features"),
        (["makes", "--analysis", "judge", "run=reads", "samples=1"], "samples: must be at least 2, got 1"),
        (["makes", "--analysis", "probe", "run=reads"], "--analysis probe: takes no other run, got run="),
        (["reads", "--analysis", "judge", "run=reads"], "CNN has probe"),
    ):
        call = dlx_call("eval", *words)
        assert call.code == 2, (words, call.out)
        assert text in call.err


SHAPES = ("data=captioned_shapes", "data.samples=60", "data.side=16")
MAKERS = {
    "text2image": (*SHAPES, "model.generator_width=4", "model.discriminator_width=4", "model.text_dim=8"),
    "dalle": (*SHAPES, "model.dim=16", "model.heads=2", "model.depth=1", "model.code_width=8", "model.codes=8"),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_what_texts_ask_for_is_compared_with_what_is_read(maker, dlx_call, no_pictures):
    for words in ((f"model={maker}", *MAKERS[maker], "name=makes"), ("model=cnn", *SHAPES, "name=reads")):
        call = dlx_call("train", *words, *STEPS)
        assert call.code == 0, call.err
    call = dlx_call("eval", "makes", "--analysis", "judge", "run=reads", "samples=30", "--json")
    assert call.code == 0, call.err
    found = json.loads(call.out)
    assert {"judge/accuracy", "judge/accuracy_of_real"} <= set(found["metrics"])
    assert "judge/kept" not in found["metrics"]
    again = dlx_call("eval", "makes", "--analysis", "judge", "run=reads", "samples=30", "--json")
    assert json.loads(again.out)["metrics"] == found["metrics"]


def test_of_translated_images_either_the_class_is_asked_for_or_it_is_kept(dlx_call, no_pictures):
    data = ("data=many_domains", "data.samples=20", "data.side=16")
    small = ("model.width=4", "model.blocks=1", "model.discriminator_width=4")
    for words in (
        ("model=stargan", *data, *small, "name=makes"),
        ("model=cnn", *data, "name=light"),
        ("model=cnn", *data, "data.label=kind", "name=kind"),
    ):
        call = dlx_call("train", *words, *STEPS)
        assert call.code == 0, call.err
    for name, metric, other in (("light", "accuracy", "kept"), ("kind", "kept", "accuracy")):
        call = dlx_call("eval", "makes", "--analysis", "judge", f"run={name}", "samples=20", "--json")
        assert call.code == 0, call.err
        metrics = json.loads(call.out)["metrics"]
        assert 0 <= metrics[f"judge/{metric}"] <= 1
        assert f"judge/{other}" not in metrics
    call = dlx_call("eval", "makes", "--analysis", "truth", "--json")
    assert call.code == 0, call.err
    assert set(json.loads(call.out)["metrics"]) == {"truth/error", "truth/identity", "truth/unchanged"}
