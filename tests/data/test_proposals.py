"""Proposals as an entry of any data with images: made where they are read, once, and kept by content."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dlx.data.dataset import TensorSource
from dlx.data.digits import Digits
from dlx.data.loader import DeviceLoader, make_loader
from dlx.data.proposals import Proposed, SlidingWindows
from dlx.data.splits import SplitSettings
from dlx.tasks.spec import Proposals


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DLX_DATA", str(tmp_path / "data"))


def test_windows_cover_the_image_and_stay_in_it():
    boxes = SlidingWindows(sizes=(0.5,), ratios=(0.5, 1.0, 2.0), most=1000)(np.zeros((20, 31, 3), np.uint8))
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= (31, 20)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    covered = np.zeros((20, 31), bool)
    for x1, y1, x2, y2 in boxes.astype(int):
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    shapes = {(y2 - y1) / (x2 - x1) for x1, y1, x2, y2 in boxes}
    assert min(shapes) < 0.6
    assert max(shapes) > 1.6


def test_values_out_of_range_are_refused():
    for given in ({"sizes": (0.0,)}, {"ratios": ()}, {"stride": -1.0}, {"most": 0}):
        with pytest.raises(ValueError, match=next(iter(given))):
            SlidingWindows(**given)


class Counting(SlidingWindows):
    calls = 0

    def __call__(self, image_HWC):
        type(self).calls += 1
        return super().__call__(image_HWC)


def test_they_are_made_where_they_are_read_and_kept():
    Counting.calls = 0
    view = SplitSettings(batch_size=8, proposals=Counting(sizes=(0.5,), most=6))
    spec = view.spec(Digits())
    assert spec.entries["proposals"] == Proposals(most=6)
    split = view.split(Digits())["train"]
    cpu = torch.device("cpu")
    plain = make_loader(split, Digits.spec.entries, view, device=cpu)
    assert set(next(plain.epoch(0))) == {"image", "label", "index"}
    assert Counting.calls == 0
    loader = make_loader(split, spec.entries, view, device=cpu)
    assert isinstance(loader, DeviceLoader)
    batch = next(loader.epoch(0))
    assert batch["proposals"].shape == (8, 6, 4)
    assert Counting.calls == len(split)  # not those of the other splits
    again = view.split(Digits())["train"]
    other = next(make_loader(again, spec.entries, view, device=cpu).epoch(0))
    assert torch.equal(other["proposals"], batch["proposals"])
    assert Counting.calls == len(split)


def test_other_pictures_have_other_proposals():
    class Bright(SlidingWindows):
        def __call__(self, image_HWC):
            rows, columns = image_HWC[..., 0].nonzero()
            return np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)

    for place in (1, 4):
        image = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
        image[:, :, place : place + 3, 2:5] = 9
        found = Proposed(TensorSource(image=image), Bright(most=2)).take(torch.tensor([1]))["proposals"]
        assert found.tolist() == [[[2, place, 5, place + 3], [-1, -1, -1, -1]]]


def test_on_the_command_line(dlx_call):
    done = dlx_call("train", "model=mlp", "data.proposals={name: windows}", "trainer.max_steps=2", "--json")
    assert done.code == 0, done.err
    assert not Path("data/proposals").exists()  # nobody read them
    assert "SlidingWindows" in (Path(json.loads(done.out)["run"]) / "config.yaml").read_text()
    refused = dlx_call("train", "model=mlp", "data=function1d", "data.proposals={name: windows}")
    assert refused.code == 2
    assert "dataset.proposals: are of images" in refused.err
    assert "did you mean windows?" in dlx_call("train", "model=mlp", "data.proposals={name: windos}").err
    assert "sizes must be above 0" in dlx_call("train", "data.proposals={name: windows, sizes: [0]}").err.replace(
        "dataset.proposals.sizes: must", "sizes must"
    )
