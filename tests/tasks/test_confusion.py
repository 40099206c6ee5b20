"""Figures of each class against scikit-learn's; the worst mistakes over batches."""

import math

import pytest
import torch

from dlx.tasks.confusion import draw_confusion, draw_mistakes, find_mistakes, per_class, worst
from dlx.tasks.spec import Image

IMAGE = Image(channels=1, height=2, width=2, mean=(0.5,), std=(0.5,))
CLASSES = ("cat", "dog", "fox")


def test_figures_of_each_class_are_scikit_learns():
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    rng = torch.Generator().manual_seed(0)
    label, predicted = (torch.randint(4, (60,), generator=rng).numpy() for _ in range(2))
    rows = per_class(torch.from_numpy(confusion_matrix(label, predicted)), ("a", "b", "c", "d"))
    expected = precision_recall_fscore_support(label, predicted)
    for name, column in zip(("precision", "recall", "f1", "count"), expected, strict=True):
        assert [row[name] for row in rows] == pytest.approx(column.tolist())
    assert [row["class"] for row in rows] == ["a", "b", "c", "d"]


def test_classes_that_are_not_there_or_never_predicted():
    never, absent, nowhere = per_class(torch.tensor([[0, 2, 0], [0, 0, 0], [0, 0, 0]]), CLASSES)
    assert math.isnan(never["precision"])
    assert (never["recall"], never["f1"], never["count"]) == (0, 0, 2)
    assert math.isnan(absent["recall"])
    assert (absent["precision"], absent["f1"], absent["count"]) == (0, 0, 0)
    assert math.isnan(nowhere["f1"])


def test_the_worst_mistakes_do_not_depend_on_the_batches(monkeypatch):
    monkeypatch.setattr("dlx.tasks.confusion.MISTAKES", 5)
    rng = torch.Generator().manual_seed(0)
    logits, label = torch.randn(40, 3, generator=rng), torch.randint(3, (40,), generator=rng)
    image, index = torch.randn(40, 1, 2, 2, generator=rng), torch.arange(40) + 100
    whole = worst(find_mistakes(logits, label, index, image))
    found = []
    for cut in (slice(0, 3), slice(3, 30), slice(30, 40)):
        found += find_mistakes(logits[cut], label[cut], index[cut], image[cut])
    assert [one.index for one in worst(found)] == [one.index for one in whole]

    nll = -logits.log_softmax(1).gather(1, label.unsqueeze(1)).squeeze(1)
    nll[logits.argmax(1) == label] = -1  # what is right is no mistake
    assert [one.index - 100 for one in whole] == nll.argsort(descending=True)[:5].tolist()
    first = whole[0]
    assert first.label == label[first.index - 100] != first.predicted
    assert first.probability == pytest.approx(logits[first.index - 100].softmax(0).max().item())
    assert torch.equal(first.image, image[first.index - 100])

    axes = draw_mistakes(whole, IMAGE, CLASSES).axes
    true, predicted = CLASSES[first.label], CLASSES[first.predicted]
    assert axes[0].get_title() == f"true {true}\npred. {predicted} ({first.probability:.0%})"
    assert "no mistakes" in draw_mistakes([], IMAGE, CLASSES).get_suptitle()


@pytest.mark.parametrize(("count", "numbers", "names"), [(3, 3, 3), (30, 0, 30), (150, 0, 0)])
def test_the_heat_map_names_what_can_be_read(count, numbers, names):
    classes = tuple(f"class {number}" for number in range(count))
    axes = draw_confusion(torch.eye(count, dtype=torch.int64) * 7, classes).axes[0]
    assert [text.get_text() for text in axes.texts] == ["7"] * numbers
    shown = [text.get_text() for text in axes.get_yticklabels() if text.get_text() in classes]
    assert len(shown) == names
    assert axes.images[0].get_array().max() == 1  # the share of the row
