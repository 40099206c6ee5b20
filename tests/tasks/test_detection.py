"""What the kind `detection` tells of boxes: kinds of errors, worst images, words in pixels of the file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dlx.tasks.detection import Detector, error_kinds, padded, unpadded, wrongs
from dlx.tasks.spec import BoxedImages, Boxes, Image


def spec():
    image = Image(channels=3, height=40, width=40, mean=(0.5,) * 3, std=(0.2,) * 3)
    return BoxedImages(image=image, boxes=Boxes(classes=("cat", "dog"), most=3))


class Fixed(Detector):
    """Detects what it is told to."""

    def __init__(self, boxes):
        super().__init__(spec=spec())
        self.boxes = boxes
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def detect(self, batch):
        return self.boxes


TRUTH = torch.tensor([[0.0, 0, 10, 10, 0], [20, 20, 30, 30, 1]])


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ([0.0, 0, 10, 10, 1, 0.9], "class"), ([5.0, 0, 15, 10, 0, 0.9], "place"),
        ([5.0, 0, 15, 10, 1, 0.9], "class and place"), ([30.0, 0, 38, 8, 0, 0.9], "background"),
    ],
)  # fmt: skip
def test_kinds_of_errors(box, kind):
    right = torch.tensor([[20.0, 20, 30, 30, 1, 0.8]])
    found = error_kinds([(torch.cat([torch.tensor([box]), right]), TRUTH)])
    assert {name for name, count in found.items() if count} == {kind, "missed"}
    assert found[kind] == found["missed"] == 1


def test_a_second_detection_of_an_object_is_a_duplicate():
    twice = torch.tensor([[0.0, 0, 10, 10, 0, 0.9], [0, 0, 10, 9, 0, 0.8], [20, 20, 30, 30, 1, 0.3]])
    assert error_kinds([(twice, TRUTH)]) == {
        "class": 0, "place": 0, "class and place": 0, "duplicate": 1, "background": 0, "missed": 1,
    }  # fmt: skip
    assert wrongs((twice, TRUTH), 0.5) == 2
    assert wrongs((twice, TRUTH), 0.2) == 1
    assert wrongs((torch.zeros(0, 6), TRUTH), 0.5) == 2


def test_padding_and_back():
    parts = [torch.rand(2, 6), torch.rand(0, 6)]
    rows = padded(parts)
    assert rows.shape == (2, 2, 6)
    assert [len(unpadded(row)) for row in rows] == [2, 0]
    assert padded([torch.rand(0, 6)]).shape == (1, 1, 6)


def test_answers_are_in_pixels_of_the_file():
    system = Fixed(torch.tensor([[[2.0, 4, 12, 24, 1, 0.9], [0, 0, 4, 4, 0, 0.1], [-1, -1, -1, -1, -1, -1]]]))
    batch = {"image": torch.zeros(1, 3, 40, 40), "scale": torch.tensor([0.5])}
    (answer,) = system.answer(batch, system.predict(batch))
    assert answer.line == "dog 90% at 4 8 20 40"
    assert [one["bbox"] for one in answer.json["detections"]] == [[4, 8, 20, 40], [0, 0, 8, 8]]
    overlay = answer.picture("title")
    assert overlay.texts == ["dog 0.90"]


@pytest.mark.parametrize(
    ("files", "images"), [(("000397133.jpg", "a/12.png"), [397133, 12]), (("b.png", "7.png"), [1, 2])]
)
def test_results_have_the_ids_of_the_files_and_categories(files, images):
    found = {"detections": [{"class": "dog", "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}]}
    system = Fixed(None)
    system.spec = replace(system.spec, boxes=replace(system.spec.boxes, ids=(17, 18)))
    name, text = system.results_file([{"file": file, **found} for file in files])
    assert name == "coco-results.json"
    assert [row["image_id"] for row in json.loads(text)] == images
    assert json.loads(text)[0] == {
        "image_id": images[0], "category_id": 18, "bbox": [1, 2, 3, 4], "score": 0.5, "file_name": Path(files[0]).name,
    }  # fmt: skip


def test_metrics_of_a_perfect_detector():
    boxes = torch.cat([TRUTH, torch.tensor([[0.9], [0.8]])], 1).unsqueeze(0)
    system = Fixed(boxes)
    statistics = system.evaluate({"image": torch.zeros(1, 3, 40, 40), "boxes": TRUTH.unsqueeze(0), "report": True})
    assert system.metrics(statistics) == {"map50": pytest.approx(1), "map": pytest.approx(1)}
    report = system.report(statistics)
    assert [row["ap50"] for row in report.tables["per_class"]] == [pytest.approx(1)] * 2
    assert set(report.media) == {"precision-recall", "errors", "worst"}
