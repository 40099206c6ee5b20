"""Detectors on a person's own photos: of several sizes, with proposals, answered in COCO's form."""

import json
from pathlib import Path

import numpy as np
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


SIZES = ((40, 64), (64, 40), (48, 48))


@pytest.fixture
def photos(here):
    """A VOC folder of photos of several sizes, each with a bright box."""
    rng = np.random.default_rng(0)
    lists = {"train": range(12), "val": range(12, 15), "test": range(15, 21)}
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        Path("photos", name).mkdir(parents=True)
    for number in range(21):
        height, width = SIZES[number % 3]
        x, y = (int(rng.integers(1, side - 22)) for side in (width, height))
        pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        pixels[y : y + 20, x : x + 20, number % 2] = 250
        Image.fromarray(pixels).save(f"photos/JPEGImages/photo-{number}.png")
        corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + 20, "ymax": y + 20}
        box = "".join(f"<{key}>{value}</{key}>" for key, value in corners.items())
        kind = ("red", "green")[number % 2]
        xml = f"<annotation><object><name>{kind}</name><bndbox>{box}</bndbox></object></annotation>"
        Path(f"photos/Annotations/photo-{number}.xml").write_text(xml)
    for split, numbers in lists.items():
        names = "".join(f"photo-{number}\n" for number in numbers)
        Path(f"photos/ImageSets/Main/{split}.txt").write_text(names)
    return Path("photos")


WINDOWS = "data.proposals={name: windows, sizes: [0.25, 0.4], ratios: [1.0], most: 30}"
SMALL = {
    "yolo": ("model.size=48",),
    "faster_rcnn": ("model.units=16", "model.channels=8"),
    "fast_rcnn": ("model.units=16", WINDOWS),
    "rcnn": ("model.units=8", "model.machines=false", WINDOWS),
    "sppnet": ("model.units=8", WINDOWS),
}


@pytest.mark.parametrize("model", SMALL)
def test_photos_of_several_sizes(model, dlx_call, only_run, photos):
    """Trained on, evaluated and predicted in their own pixels: the results give in pycocotools what dlx eval says."""
    pytest.importorskip("pycocotools")
    words = (f"model={model}", "data=voc", f"data.path={photos}", "data.batch_size=4", "data.eval_batch_size=1")
    words = ("train", *words, *SMALL[model], "trainer.max_steps=2", "optim.lr=3e-3")
    dry = dlx_call(*words, "--dry-run")
    assert dry.code == 0, dry.err
    call = dlx_call(*words)
    assert call.code == 0, call.err
    opened = open_all(RunFolder(only_run()))
    batches = list(opened.loader("test").eval_batches())
    names = Path(photos, "ImageSets/Main/test.txt").read_text().split()
    files = [f"{photos}/JPEGImages/{name}.png" for name in names]
    call = dlx_call("predict", "@last", *files, "--output", "found", "--json")
    assert call.code == 0, call.err
    told = json.loads(call.out)
    assert told["results"] == str(Path("found/coco-results.json"))
    assert [Path(one["picture"]) for one in told["predictions"]] == [
        Path(f"found/predict-{name}.png") for name in names
    ]
    rows = json.loads(Path(told["results"]).read_text())
    assert rows[0].keys() == {"image_id", "category_id", "bbox", "score", "file_name"}
    assert {(row["image_id"], row["file_name"]) for row in rows} <= {*enumerate((Path(file).name for file in files), 1)}
    boxes, sizes = ([batch[name][0].tolist() for batch in batches] for name in ("boxes", "size"))
    truth = truth_of(names, boxes, sizes, opened.system.classes)
    metrics = json.loads(dlx_call("eval", "@last", "--json").out)["metrics"]
    assert coco_evaluation(truth, told["results"]) == pytest.approx([metrics["test/map"], metrics["test/map50"]])
    for row in rows:
        x, y, width, height = row["bbox"]
        rows_of, columns_of = sizes[row["image_id"] - 1]
        assert min(x, y) >= 0
        assert x + width <= columns_of + 1e-3
        assert y + height <= rows_of + 1e-3


@pytest.mark.parametrize("experiment", ["faster_rcnn_bccd", "yolo_bccd"])
def test_the_recipes_of_blood_cells_take_a_step(experiment, dlx_call, photos):
    words = ("data.size=48", "trainer.max_steps=1", "model.units=8")
    if experiment == "yolo_bccd":
        words = (*words, "model.size=32")
    call = dlx_call("train", f"experiment={experiment}", f"data.path={photos}", *words, "--json")
    assert call.code == 0, call.err
    assert "test/map50" in json.loads(call.out)["metrics"]


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
