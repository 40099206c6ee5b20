import math

import pytest
import torch

from dlx.data.digits import Digits
from dlx.models.mlp import MLP
from dlx.models.vision.resnet import ResNet
from dlx.tasks.classification import Classification, soft_labels
from dlx.tasks.regression import Regression
from dlx.tasks.spec import Image, Label, LabeledImages, Reals, RegressionReals
from dlx.tasks.summary import summarize

THREE = LabeledImages(
    image=Image(channels=1, height=1, width=1, mean=(0.0,), std=(1.0,)), label=Label(classes=("a", "b", "c"))
)


def test_cross_entropy_by_hand():
    logits = torch.tensor([[math.log(2), 0.0, 0.0], [0.0, 0.0, 0.0]])
    loss = Classification(THREE, "image", "label", "cross_entropy").loss(logits, {"label": torch.tensor([0, 1])})
    assert loss.item() == pytest.approx((math.log(2) + math.log(3)) / 2)


def test_squared_error_is_of_the_one_hot_label():
    target = Classification(THREE, "image", "label", "mse")
    loss = target.loss(torch.tensor([[1.0, 1.0, 0.0]]), {"label": torch.tensor([0])})
    assert loss.item() == pytest.approx(1 / 3)


def test_soft_labels_and_hard_ones_agree():
    logits, label = torch.randn(8, 3), torch.arange(8) % 3
    for name in Classification.losses:
        target = Classification(THREE, "image", "label", name)
        torch.testing.assert_close(
            target.loss(logits, {"label": label}), target.loss(logits, {"label": soft_labels(label, 3)})
        )


@pytest.mark.parametrize("name", Classification.losses)
def test_weights_multiply_the_samples(name):
    target, logits, label = Classification(THREE, "image", "label", name), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    parts = torch.stack([target.loss(logits[i : i + 1], {"label": label[i : i + 1]}) for i in range(4)])
    weight = torch.tensor([2.0, 0.0, 1.0, 1.0])
    torch.testing.assert_close(target.loss(logits, {"label": label, "weight": weight}), (parts * weight).mean())


def joined(target, output, batch):
    total: dict = {}
    for rows in torch.arange(len(output)).split(7):
        part = target.statistics(output[rows], {name: value[rows] for name, value in batch.items()})
        total = {name: total[name] + value if total else value for name, value in part.items()}
    return target.metrics(total)


def test_figures_from_parts_are_those_of_the_whole():
    logits, label = torch.randn(30, 3), torch.arange(30) % 3
    target = Classification(THREE, "image", "label", "cross_entropy")
    figures = joined(target, logits, {"label": label})
    assert figures["accuracy"] == pytest.approx((logits.argmax(1) == label).float().mean().item())
    assert figures["loss"] == pytest.approx(figures["nll"])
    assert figures["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, label).item())


def test_regression_figures():
    target = Regression(RegressionReals(features=Reals(), target=Reals()), "features", "target", "l1")
    y = torch.randn(30, 1)
    figures = joined(target, y + 0.5, {"target": y})
    assert figures["loss"] == pytest.approx(0.5)
    assert figures["mse"] == pytest.approx(0.25)
    assert figures["r2"] == pytest.approx(1 - 0.25 / y.var(correction=0).item(), rel=1e-5)
    assert joined(target, y.mean().expand(30, 1), {"target": y})["r2"] == pytest.approx(0, abs=1e-6)


def test_summary_counts_a_multiply_add_as_two():
    with torch.device("meta"):
        linear = MLP(spec=Digits().spec, hidden=())
        photo = LabeledImages(
            image=Image(channels=3, height=224, width=224, mean=(0.0,) * 3, std=(1.0,) * 3),
            label=Label(classes=tuple(map(str, range(1000)))),
        )
        resnet = ResNet(spec=photo, depth=18)
    summary = summarize(linear)
    assert (summary.parameters, summary.flops) == (650, 2 * 64 * 10)
    assert summary.rows[0].shape == (10,)
    assert summarize(resnet).flops == pytest.approx(3.63e9, rel=0.01)  # 1.8 G multiply-adds, as published
