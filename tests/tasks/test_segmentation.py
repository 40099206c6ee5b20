"""What the kind `segmentation` counts, by hand."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from dlx.runs.media import encode
from dlx.tasks.segmentation import Segmentation, at_border, confusion, iou
from dlx.tasks.spec import Image as ImageEntry
from dlx.tasks.spec import Mask, MaskedImages


class Told(Segmentation):
    """Answers with the logits that it is told."""

    def __init__(self, logits):
        image = ImageEntry(channels=1, height=2, width=3, mean=(0.5,), std=(0.2,))
        super().__init__(spec=MaskedImages(image=image, mask=Mask(classes=("background", "a", "b"), height=2, width=3)))
        self.told = logits

    def forward(self, x):
        return self.told


TRUE = torch.tensor([[[0, 1, 1], [2, 255, 0]]])
PREDICTED = torch.tensor([[[0, 1, 2], [2, 1, 1]]])


def logits():
    return torch.nn.functional.one_hot(PREDICTED, 3).permute(0, 3, 1, 2).float() * 5


def test_void_pixels_count_nowhere():
    found = confusion(PREDICTED, TRUE, 3, 255)
    assert found.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert iou(found.double()).tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 2])


def test_a_class_that_is_nowhere_has_no_iou():
    assert math.isnan(float(iou(torch.tensor([[2.0, 0], [0, 0]]))[1]))


def test_metrics_are_of_the_whole_split():
    system = Told(logits())
    batch = {"image": torch.zeros(1, 1, 2, 3), "mask": TRUE}
    found = system.metrics(system.evaluate(batch))
    assert found["miou"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 3)
    assert found["pixel_accuracy"] == pytest.approx(3 / 5)
    assert found["mean_accuracy"] == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    loss, _ = system.training_loss(batch, None)
    assert found["loss"] == pytest.approx(float(loss))


def test_what_a_person_gets():
    system = Told(logits())
    batch = {"image": torch.zeros(1, 1, 2, 3), "mask": TRUE, "report": True}
    report = system.report(system.evaluate(batch))
    assert [row["pixels"] for row in report.tables["per_class"]] == [2, 2, 1]
    height, width, _ = report.media["worst"].shape  # 2 x 9 pixels, enlarged, below a legend
    assert width == 252
    assert height > 2 * width // 9
    (answer,) = system.answer(batch, system.predict(batch))
    assert answer.json["shares"] == {"a": 0.5, "b": 0.3333, "background": 0.1667}
    height, width, _ = answer.picture("title").shape  # 2 x 3 pixels, enlarged, below a title and the names
    assert width == 255
    assert height > 2 * width // 3


def test_a_label_image_has_the_size_and_the_numbers_of_a_file():
    system = Told(logits())
    batch = {"image": torch.zeros(1, 1, 2, 3), "size": torch.tensor([[2, 2]]), "file_size": torch.tensor([[4, 4]])}
    (answer,) = system.answer(batch, system.predict(batch))
    assert answer.json["shares"] == {"a": 0.5, "background": 0.25, "b": 0.25}
    suffix, content = encode(answer.labels())
    with Image.open(io.BytesIO(content)) as image:
        assert (suffix, image.mode) == (".png", "P")
        assert np.asarray(image).tolist() == np.kron([[0, 1], [2, 1]], np.ones((2, 2))).tolist()
        colors = np.asarray(image.convert("RGB"))
    assert (colors[::2, ::2] == system.spec.mask.draw(PREDICTED[0, :, :2]).numpy()).all()


def test_pixels_at_a_border_are_those_near_another_class():
    torch.manual_seed(0)
    mask = torch.zeros(2, 9, 12, dtype=torch.long)
    mask[0, 3:, 5:] = 2
    mask[1, 0, 0], mask[1, 8, 9:] = 1, 255  # a single pixel; void, which is no class
    for distance in (1, 2):
        found = at_border(mask, 255, distance)
        for image, row, column in torch.cartesian_prod(torch.arange(2), torch.arange(9), torch.arange(12)).tolist():
            near = mask[
                image,
                max(0, row - distance) : row + distance + 1,
                max(0, column - distance) : column + distance + 1,
            ]
            own = mask[image, row, column]
            expected = own != 255 and bool(((near != own) & (near != 255)).any())
            assert bool(found[image, row, column]) == bool(expected)


def test_accuracy_at_borders_is_that_of_their_pixels():
    system = Told(logits())
    found = system.metrics(system.evaluate({"image": torch.zeros(1, 1, 2, 3), "mask": TRUE}))
    assert found["boundary_accuracy"] == pytest.approx(3 / 5)  # each of so few pixels lies at one
    one = Told(torch.ones(1, 3, 2, 3))
    alike = one.metrics(
        one.evaluate({"image": torch.zeros(1, 1, 2, 3), "mask": torch.zeros(1, 2, 3, dtype=torch.long)})
    )
    assert math.isnan(alike["boundary_accuracy"])
