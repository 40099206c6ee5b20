"""The recipes of the papers on VOC: full size by its published counts, their values, and a step on a small folder."""

import json

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from dlx.config import build, compose
from dlx.tasks.spec import BoxedImages, Boxes, Image, Mask, MaskedImages, Proposals, ProposedBoxes

CLASSES = tuple("abcdefghijklmnopqrst")
# Of the published networks. Fast R-CNN's has a box for the background too, which is left out here; Faster R-CNN's has
# an RPN more, and another trunk of VGG-16 in alternating training.
FAST = 134_690_729 - 4 * 4097
COUNTS = {
    "fcn_voc": 134_489_759,
    "fast_rcnn_voc": FAST,
    "faster_rcnn_voc": FAST + 2_387_510 + 14_714_688,
    "yolo_voc": 271_703_550,
}
PROPOSED = ("rcnn_voc", "sppnet_voc", "fast_rcnn_voc")
SMALL = {
    "fcn_voc": ["model.trunk.width=0.05"],
    "rcnn_voc": ["model.trunk.width=0.05", "model.side=67"],
    "sppnet_voc": ["model.trunk.width=0.05"],
    "fast_rcnn_voc": ["model.trunk.width=0.05"],
    "faster_rcnn_voc": ["model.trunk.width=0.05", "model.channels=8", "model.sizes=[16,32]"],
    "yolo_voc": ["model.network=small", "model.cells=3", "model.size=96"],
}


def spec_of(name, side):
    image = Image(channels=3, height=side, width=side, mean=(0.5,) * 3, std=(0.2,) * 3)
    if name == "fcn_voc":
        return MaskedImages(image=image, mask=Mask(classes=("background", *CLASSES), height=side, width=side, void=255))
    boxes = Boxes(classes=CLASSES, most=8)
    if name in PROPOSED:
        return ProposedBoxes(image=image, boxes=boxes, proposals=Proposals(most=2000))
    return BoxedImages(image=image, boxes=boxes)


@pytest.mark.parametrize("name", SMALL)
def test_it_is_built_at_full_size(name):
    config = compose([f"experiment={name}", "data.path=x"])
    with torch.device("meta"):
        system = build(config, "model", spec=spec_of(name, 448))
    count = sum(p.numel() for p in system.parameters())
    assert count == COUNTS.get(name, count)
    assert count > 50_000_000


@pytest.mark.parametrize(
    ("name", "lr", "batch_size", "length", "falls"),
    [
        ("fcn_voc", 1e-4, 20, {"epochs": 175}, []),
        ("rcnn_voc", 1e-3, 2, {"max_steps": 100_000}, [20_000, 40_000, 60_000, 80_000]),
        ("sppnet_voc", 1e-4, 2, {"max_steps": 300_000}, [250_000]),
        ("fast_rcnn_voc", 1e-3, 2, {"max_steps": 40_000}, [30_000]),
        ("faster_rcnn_voc", 1e-3, 2, {"max_steps": 320_000}, [240_000]),
        ("yolo_voc", 1e-2, 64, {"epochs": 135}, [75_000, 105_000]),
    ],
)
def test_the_papers_values(name, lr, batch_size, length, falls):
    config = compose([f"experiment={name}", "data.path=x"])
    optimizer, schedule = config["optimizer"], build(config, "scheduler")
    assert (optimizer["_target_"], optimizer["momentum"]) == ("torch.optim.SGD", 0.9)
    assert (optimizer["lr"], optimizer["weight_decay"]) == (lr, 5e-4)
    assert config["dataset"]["batch_size"] == batch_size
    assert length.items() <= config["trainer"].items()
    total = length.get("max_steps", 135_000)
    for number, step in enumerate(falls):
        around = [schedule.factor(step + aside, total) for aside in (-2, 2)]
        assert around == pytest.approx([0.1**number, 0.1 ** (number + 1)])


@pytest.fixture
def voc(tmp_path):
    """20 photos of two shapes with a box, and a label image, in the layout of VOC."""
    folder, rng = tmp_path / "VOC", np.random.default_rng(0)
    for inner in ("JPEGImages", "Annotations", "SegmentationClass"):
        (folder / inner).mkdir(parents=True)
    for number in range(20):
        shape = (72, 96)
        photo, classes = rng.integers(0, 60, (*shape, 3), dtype=np.uint8), np.zeros(shape, np.uint8)
        photo[10:50, 20:60] += 120
        classes[10:50, 20:60], classes[10] = 7, 255
        Picture.fromarray(photo).save(folder / "JPEGImages" / f"{number}.jpg")
        Picture.fromarray(classes).save(folder / "SegmentationClass" / f"{number}.png")
        corners = "<xmin>21</xmin><ymin>11</ymin><xmax>60</xmax><ymax>50</ymax>"
        (folder / "Annotations" / f"{number}.xml").write_text(
            f"<annotation><object><name>{'cat' if number % 3 else 'dog'}</name><bndbox>{corners}</bndbox></object>"
            "</annotation>"
        )
    return folder


@pytest.mark.parametrize("name", SMALL)
def test_it_takes_a_step(name, voc, dlx_call, no_pictures):
    words = [f"data.path={voc}", f"data.root={voc.parent / 'kept'}", "data.size=96", "data.batch_size=2"]
    words += ["model.units=16", "trainer.max_steps=4", "trainer.log_every=1", *SMALL[name]]
    if name in PROPOSED:
        words += ["data.proposals.width=null", "data.proposals.most=10"]
    call = dlx_call("train", f"experiment={name}", *words, "--json")
    assert call.code == 0, call.err
    found = json.loads(call.out)
    assert found["status"] == "finished"
    assert set(found["metrics"]) >= ({"test/miou"} if name == "fcn_voc" else {"test/map50"})
