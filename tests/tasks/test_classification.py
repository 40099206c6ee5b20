"""Losses by hand, weights, soft labels; figures from joined sums are those of one big batch."""

import math

import pytest
import torch
from torch import nn

from dlx.tasks.classification import Classification, soft_labels
from dlx.tasks.spec import Image, Label, LabeledImages
from dlx.tasks.supervised import Supervised


def images(classes, side=2):
    return LabeledImages(
        image=Image(channels=1, height=side, width=side, mean=(0.5,), std=(0.5,)), label=Label(classes=tuple(classes))
    )


SPEC = images(("cat", "dog", "fox"))
# Softmax of logits that are logarithms: the numbers over their sum.
LOGITS = torch.tensor([[1.0, 2.0, 1.0], [3.0, 1.0, 4.0]]).log()
LABEL = torch.tensor([1, 0])


class Flat(Supervised):
    """Three of the four pixels are the logits."""

    def __init__(self, *, spec, loss=None):
        super().__init__(spec=spec, loss=loss)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * x.flatten(1)[:, :3]


def joined(parts):
    return {name: sum(part[name] for part in parts) for name in parts[0]}


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("cross_entropy", (math.log(4 / 2) + math.log(8 / 3)) / 2),
        ("mse", ((math.log(2) - 1) ** 2 / 3 + ((math.log(3) - 1) ** 2 + math.log(4) ** 2) / 3) / 2),
        ("l1", ((1 - math.log(2)) / 3 + (math.log(3) - 1 + math.log(4)) / 3) / 2),
    ],
)
def test_losses_by_hand(loss, expected):
    target = Classification(SPEC, "image", "label", loss)
    for label in (LABEL, soft_labels(LABEL, 3)):
        assert target.loss(LOGITS, {"label": label}).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", Classification.losses)
def test_weights_multiply_the_losses_of_samples(loss):
    target = Classification(SPEC, "image", "label", loss)
    first, second = (target.loss(LOGITS[i : i + 1], {"label": LABEL[i : i + 1]}) for i in (0, 1))
    weighted = target.loss(LOGITS, {"label": LABEL, "weight": torch.tensor([0.5, 3.0])})
    # Not divided by the batch's weights: they have mean 1 over the whole data set.
    torch.testing.assert_close(weighted, (0.5 * first + 3.0 * second) / 2)
    torch.testing.assert_close(
        target.loss(LOGITS, {"label": LABEL, "weight": torch.ones(2)}), target.loss(LOGITS, {"label": LABEL})
    )


def test_soft_labels_mix_the_losses():
    target = Classification(SPEC, "image", "label", "cross_entropy")
    one, other = torch.tensor([1, 0]), torch.tensor([2, 2])
    mixed = soft_labels(one, 3).lerp(soft_labels(other, 3), 0.3)
    expected = 0.7 * target.loss(LOGITS, {"label": one}) + 0.3 * target.loss(LOGITS, {"label": other})
    torch.testing.assert_close(target.loss(LOGITS, {"label": mixed}), expected)
    assert soft_labels(mixed, 3) is mixed


@pytest.mark.parametrize("loss", Classification.losses)
def test_figures_of_joined_sums_are_those_of_one_batch(loss):
    generator = torch.Generator().manual_seed(0)
    system = Flat(spec=SPEC, loss=loss).eval()
    batch = {
        "image": torch.randn(50, 1, 2, 2, generator=generator),
        "label": torch.randint(3, (50,), generator=generator),
    }
    whole = system.metrics(system.evaluate(batch))
    cuts = [slice(0, 7), slice(7, 8), slice(8, 40), slice(40, 50)]
    parts = [system.evaluate({name: tensor[cut] for name, tensor in batch.items()}) for cut in cuts]
    assert system.metrics(joined(parts)) == pytest.approx(whole, rel=1e-6)  # nll is a float32 sum within a batch

    logits = system(batch["image"])
    assert whole["accuracy"] == pytest.approx((logits.argmax(1) == batch["label"]).double().mean().item())
    assert whole["loss"] == pytest.approx(system.target.loss(logits, batch).item(), rel=1e-6)
    nll = -logits.log_softmax(1)[torch.arange(50), batch["label"]].mean().item()
    assert whole["nll"] == pytest.approx(nll, rel=1e-6)


def test_rows_of_the_confusion_matrix_are_true_classes():
    statistics = Classification(SPEC, "image", "label", "cross_entropy").statistics(LOGITS, {"label": LABEL})
    assert statistics["confusion"].tolist() == [[0, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_training_loss_and_predict():
    system = Flat(spec=SPEC)
    batch = {"image": torch.zeros(2, 1, 2, 2).flatten(1).index_fill(1, torch.tensor([1]), 2.0).view(2, 1, 2, 2)}
    (objective,) = system.objectives()
    assert [p is system.scale for p in objective.params] == [True]
    loss, logs = system.training_loss({**batch, "label": LABEL}, objective)
    assert loss.item() == pytest.approx(math.log(2 + math.exp(2)) - 1)
    assert logs["accuracy"].item() == (torch.ones(len(LABEL), dtype=torch.int64) == LABEL).float().mean().item()
    answer = system.predict(batch)
    assert answer["label"].tolist() == [1, 1]
    torch.testing.assert_close(answer["probability"].sum(1), torch.ones(2))
    assert system.monitor == ("val/accuracy", "max")


def test_showcase_puts_wrong_ones_first():
    image = torch.zeros(3, 1, 2, 2)
    image[:, 0, 0, 1] = 2.0
    figure = Flat(spec=SPEC).showcase({"image": image, "label": torch.tensor([1, 0, 1])})["predictions"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["dog (cat)", "dog", "dog"]


def test_an_unknown_loss_is_said():
    with pytest.raises(ValueError, match=r"^loss must be one of cross_entropy, mse, l1 for class labels, got 'huber'"):
        Flat(spec=SPEC, loss="huber")


@pytest.mark.parametrize(("count", "names"), [(99, set()), (100, {"top5_error"}), (1000, {"top5_error", "human"})])
def test_many_classes_have_a_top5_error(count, names):
    target = Classification(images(map(str, range(count)), side=1), "image", "label", "cross_entropy")
    logits = torch.arange(count).float().expand(4, count)  # the top 5 are the last 5
    parts = [
        target.statistics(logits[:3], {"label": torch.tensor([count - 1, count - 5, count - 6])}),
        target.statistics(logits[3:], {"label": torch.tensor([0])}),
    ]
    figures = target.metrics(joined(parts))
    found = {name.replace("top5_error_human", "human") for name in figures} - {"loss", "accuracy", "nll"}
    assert found == names
    assert figures["accuracy"] == 0.25
    if names:
        assert figures["top5_error"] == 0.5
    if "human" in names:
        assert figures["top5_error_human"] == 0.051  # Russakovsky et al. 2015, section 6.4


@pytest.mark.parametrize("classes", [3, 100, 1000])
def test_the_names_of_its_metrics_are_known_before(classes):
    target = Classification(images(map(str, range(classes))), "image", "label", "cross_entropy")
    found = target.metrics(target.statistics(torch.zeros(2, classes), {"label": LABEL}))
    assert tuple(found) == target.metric_names


def test_a_system_with_metrics_of_its_own_does_not_say_the_targets():
    class Own(Flat):
        def metrics(self, statistics):
            return {"cost": 1.0}

    assert Flat(spec=SPEC).metric_names == ("loss", "accuracy", "nll")
    assert Own(spec=SPEC).metric_names == ()
