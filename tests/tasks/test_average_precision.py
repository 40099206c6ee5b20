"""Average precision against hand examples, and against pycocotools where it is installed."""

import math

import pytest
import torch

from dlx.tasks.average_precision import COCO, box_iou, curves, mean_ap

OBJECTS = torch.tensor([[0.0, 0, 10, 10, 0], [20, 20, 30, 30, 0]])
FOUND = torch.tensor([[0.0, 0, 10, 10, 0, 0.9], [50, 50, 60, 60, 0, 0.8], [20, 20, 30, 30, 0, 0.7]])


@pytest.mark.parametrize(("reading", "expected"), [("area", 0.8333), ("11", 0.8485)])
def test_two_objects_and_three_detections(reading, expected):
    """Right, wrong, right: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1."""
    ((curve,),) = curves([(FOUND, OBJECTS)], 1, (0.5,))
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert curve.recall.tolist() == [0.5, 0.5, 1]
    assert curve.ap(reading) == pytest.approx(expected, abs=5e-5)


def test_iou():
    a = torch.tensor([[0.0, 0, 10, 10]])
    assert box_iou(a, torch.tensor([[5.0, 5, 15, 15], [0, 0, 10, 9], [20, 20, 30, 30]]))[0].tolist() == pytest.approx(
        [1 / 7, 0.9, 0]
    )


def test_an_object_is_found_once():
    twice = FOUND[:1].repeat(2, 1)
    ((curve,),) = curves([(twice, OBJECTS[:1])], 1, (0.5,))
    assert curve.precision.tolist() == [1, 0.5]
    assert curve.ap("area") == 1


def test_classes_and_images_are_apart():
    other = OBJECTS.clone()
    other[:, 4] = 1
    of_classes = curves([(FOUND, OBJECTS), (torch.zeros(0, 6), other)], 3, (0.5,))[0]
    assert of_classes[1].ap() == 0
    assert math.isnan(of_classes[2].ap())
    assert mean_ap(of_classes, "area") == pytest.approx(0.8333 / 2, abs=5e-5)


def scenes(seed, images=12, classes=3):
    rng = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(images):
        low = torch.rand(4, 2, generator=rng) * 60
        kind = torch.randint(classes, (4, 1), generator=rng).float()
        truth = torch.cat([low, low + 8 + 30 * torch.rand(4, 2, generator=rng), kind], 1)
        truth = truth[: int(torch.randint(5, (), generator=rng))]
        moved = truth.repeat(3, 1)
        moved[:, :4] += 4 * torch.randn(len(moved), 4, generator=rng)
        moved[:, 2:4] = torch.maximum(moved[:, 2:4], moved[:, :2] + 1)
        moved[len(moved) // 2 :, 4] = torch.randint(classes, (len(moved) - len(moved) // 2,), generator=rng).float()
        scores = torch.rand(len(moved), 1, generator=rng)
        pairs.append((torch.cat([moved, scores], 1), truth))
    return pairs


@pytest.mark.parametrize("seed", range(3))
def test_the_same_as_pycocotools(seed, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    pairs = scenes(seed)

    def rows(boxes, image):
        for x1, y1, x2, y2, kind, *score in boxes.tolist():
            yield {
                "image_id": image, "category_id": int(kind), "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0,
                "area": (x2 - x1) * (y2 - y1), **({"score": score[0]} if score else {}),
            }  # fmt: skip

    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": n} for n in range(len(pairs))], "categories": [{"id": k} for k in range(3)],
        "annotations": [
            {"id": n + 1, **row} for n, row in enumerate(r for i, pair in enumerate(pairs) for r in rows(pair[1], i))
        ],
    }  # fmt: skip
    truth.createIndex()
    found = truth.loadRes([row for image, pair in enumerate(pairs) for row in rows(pair[0], image)])
    judged = evaluation.COCOeval(truth, found, "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    of_thresholds = curves(pairs, 3)
    ours = [mean_ap(of_classes) for of_classes in of_thresholds]
    assert sum(ours) / len(COCO) == pytest.approx(judged.stats[0], abs=1e-6)
    assert ours[0] == pytest.approx(judged.stats[1], abs=1e-6)
    assert ours[5] == pytest.approx(judged.stats[2], abs=1e-6)
