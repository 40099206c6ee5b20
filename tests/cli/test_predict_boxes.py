"""dlx predict by detectors: regions that are proposed for a person's own images, results in COCO's form."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from dlx.runs.folder import RunFolder
from dlx.tasks.detection import unpadded
from dlx.training.trained import open_all

WORDS = (
    "data=shapes", "data.samples=20", "data.side=64", "data.batch_size=4", "model.units=8",
    "data.proposals={name: windows, sizes: [0.25, 0.35], ratios: [1.0], most: 40}", "trainer.max_steps=2",
    "optim.lr=1e-2",
)  # fmt: skip


def test_images_of_files_have_the_proposals_that_a_dataset_gives_them(dlx_call, only_run):
    assert dlx_call("train", "model=fast_rcnn", *WORDS).code == 0
    opened = open_all(RunFolder(only_run()))
    batch = next(opened.loader("test").eval_batches())
    expected = [unpadded(boxes) for boxes in opened.system.detect(batch)]
    assert sum(map(len, expected))
    Path("photos").mkdir()
    for number, pixels in enumerate(opened.system.spec.image.draw(batch["image"])):
        Image.fromarray(pixels.numpy()).save(f"photos/{number}.png")
    told = json.loads(dlx_call("predict", "@last", "photos", "--no-pictures", "--json").out)["predictions"]
    for one, wanted in zip(told, expected, strict=True):
        x, y, width, height = torch.tensor([found["bbox"] for found in one["detections"]]).view(-1, 4).T
        torch.testing.assert_close(torch.stack([x, y, x + width, y + height], 1), wanted[:, :4])


def truth_of(names, boxes, sizes, classes):
    """What COCO's own evaluation reads, ids from 1. names: of the images' files."""
    numbered = list(enumerate(zip(names, boxes, sizes, strict=True), 1))
    objects = [
        {
            "id": 100 * image + row, "image_id": image, "category_id": int(kind) + 1, "iscrowd": 0,
            "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1),
        }
        for image, (_, of_image, _) in numbered
        for row, (x1, y1, x2, y2, kind) in enumerate(of_image, 1)
        if kind >= 0
    ]  # fmt: skip
    images = [
        {"id": image, "file_name": name, "height": height, "width": width}
        for image, (name, _, (height, width)) in numbered
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    return {"images": images, "annotations": objects, "categories": categories}


def coco_evaluation(truth, results):
    """map and map50 by pycocotools of a file of results."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    Path("truth.json").write_text(json.dumps(truth))
    reference = COCO("truth.json")
    evaluation = COCOeval(reference, reference.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[:2].tolist()


@pytest.mark.parametrize("model", ["rcnn", "sppnet"])
def test_results_give_in_pycocotools_what_eval_says(model, dlx_call, only_run):
    pytest.importorskip("pycocotools")
    assert dlx_call("train", f"model={model}", *WORDS).code == 0
    opened = open_all(RunFolder(only_run()))
    batch = next(opened.loader("test").eval_batches())
    names = [f"photo-{number}.png" for number in range(len(batch["image"]))]
    for name, pixels in zip(names, opened.system.spec.image.draw(batch["image"]), strict=True):
        Image.fromarray(pixels.numpy()).save(name)
    call = dlx_call("predict", "@last", *names, "--output", "found", "--json")
    assert call.code == 0, call.err
    told = json.loads(call.out)
    assert told["results"] == str(Path("found/coco-results.json"))
    assert [Path(one["picture"]) for one in told["predictions"]] == [Path(f"found/predict-{name}") for name in names]
    classes = opened.system.classes
    first = json.loads(Path(told["results"]).read_text())[0]
    assert first.keys() == {"image_id", "category_id", "bbox", "score", "file_name"}
    assert (first["image_id"], first["file_name"]) == (1, "photo-0.png")
    metrics = json.loads(dlx_call("eval", "@last", "--json").out)["metrics"]
    truth = truth_of(names, batch["boxes"].tolist(), [(64, 64)] * len(names), classes)
    found = coco_evaluation(truth, told["results"])
    assert found == pytest.approx([metrics["test/map"], metrics["test/map50"]])
    assert found[1] > 0


def test_a_proposer_of_ones_own_must_be_trusted(dlx_call, write_files):
    write_files(
        {
            "corners.py": "import numpy as np\n"
            "from dlx.data.proposals import Proposer\n"
            "class Corner(Proposer):\n"
            "    def __init__(self, *, most: int = 2) -> None:\n"
            "        self.most = most\n"
            "    def __call__(self, image_HWC):\n"
            "        return np.array([[0, 0, 20, 20]], np.float32)\n",
            "own/proposals/corner.yaml": "proposals:\n  _target_: corners.Corner\n",
        }
    )
    words = ("model=fast_rcnn", *WORDS[:5], "data.proposals=corner", "trainer.max_steps=1", "--conf-dir", "own")
    call = dlx_call("train", *words, "--trust", "corners")
    assert call.code == 0, call.err
    Image.new("RGB", (64, 64), "red").save("red.png")
    assert "corners" in dlx_call("predict", "@last", "red.png").err
    call = dlx_call("predict", "@last", "red.png", "--trust", "corners", "--json")
    assert call.code == 0, call.err
