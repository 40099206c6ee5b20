"""How passes are counted and detectors timed, and what the verdict needs."""

import pytest
import torch
from torch import nn

from dlx.claims.detector_ladder import NAMES, DetectorLadder, detection_time, passes, singles
from dlx.config import compose
from dlx.config.errors import UserError

SECONDS = {"rcnn": 0.1, "sppnet": 0.02, "fast_rcnn": 0.02, "faster_rcnn": 0.015, "yolo": 0.005}
MEASURED = {
    "proposals": 0.06,
    "detectors": {
        name: {"seconds": SECONDS[name], "passes": 100 if name == "rcnn" else 1, "map50": 0.95, "map": 0.6}
        for name in NAMES
    },
}


class Crops(nn.Module):
    """Looks at as many crops of an image as it is given."""

    def __init__(self, count):
        super().__init__()
        self.count, self.conv = count, nn.Conv2d(3, 2, 3)
        self.second = nn.Conv2d(2, 2, 1)

    def detect(self, batch):
        return self.second(self.conv(batch["image"].expand(self.count, -1, -1, -1))).flatten(1)


@pytest.mark.parametrize("count", [1, 7])
def test_passes_are_the_pictures_that_the_first_convolution_sees(count):
    system, image = Crops(count), {"image": torch.zeros(1, 3, 8, 8)}
    assert passes(system, image) == count
    assert passes(system, image) == count  # nothing is left behind
    assert detection_time(system, [image]) > 0


def test_batches_of_one_image():
    batch = {"image": torch.arange(6.0).view(3, 2), "index": torch.arange(3), "step": torch.tensor(1)}
    found = singles(batch)
    assert len(found) == 3
    assert found[1]["image"].tolist() == [[2, 3]]
    assert set(found[1]) == {"image", "index"}


def change(name, **values):
    detectors = MEASURED["detectors"]
    return {**MEASURED, "detectors": {**detectors, name: {**detectors[name], **values}}}


def test_the_verdict_names_each():
    verdict = DetectorLadder().verdict(MEASURED)
    assert verdict.held
    assert "R-CNN 100 ms in 100 passes + 60 ms of proposals, AP50 0.950, mAP 0.600; SPPNet" in verdict.line
    assert "YOLO 5 ms in 1 pass, AP50" in verdict.line


@pytest.mark.parametrize(
    "changed",
    [
        change("rcnn", passes=1), change("rcnn", seconds=0.03), change("sppnet", passes=2),
        change("yolo", seconds=0.02), change("faster_rcnn", seconds=0.09), {**MEASURED, "proposals": 0.001},
    ],
)  # fmt: skip
def test_it_does_not_hold_otherwise(changed):
    assert not DetectorLadder().verdict(changed).held


def test_it_needs_proposals():
    base = compose(["experiment=detector_ladder", "data=shapes"])
    with pytest.raises(UserError, match="detector_ladder times them"):
        DetectorLadder().variants(base)


def test_values_out_of_range_are_named():
    with pytest.raises(ValueError, match="side must be at least 32"):
        DetectorLadder(side=16)
