"""Proposals as an entry of any data with images: made where they are read, once, and kept by content."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from dlx.config.errors import UserError
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


class Slow(SlidingWindows):
    slow = True


class Stopping(Slow):
    """Fails at one image."""

    def __call__(self, image_HWC):
        if image_HWC[0, 0, 0] == 200:
            raise RuntimeError("no such luck")
        return super().__call__(image_HWC)


def flat_images(count):
    """Each of another gray."""
    return TensorSource(image=torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous())


def test_several_processes_make_what_one_makes(monkeypatch):
    source, every = flat_images(50), torch.arange(50)
    alone = Proposed(source, SlidingWindows(most=9)).take(every)["proposals"]
    monkeypatch.setattr("dlx.data.proposals._cores", lambda: 2)
    together = Proposed(source, Slow(most=9))
    assert torch.equal(together.take(every)["proposals"], alone)
    boxes = Path(together.kept.folder, "boxes")
    assert boxes.stat().st_size == 50 * 9 * 16
    assert torch.equal(Proposed(source, Slow(most=9)).take(every.flip(0))["proposals"], alone.flip(0))
    assert boxes.stat().st_size == 50 * 9 * 16


def test_a_killed_process_goes_on_where_it_was():
    """What is half written is cut off, and what is whole is not made again."""
    source, every = flat_images(50), torch.arange(50)
    first = Proposed(source, Counting(most=9))
    wanted = first.take(every)["proposals"]
    keys, boxes = (Path(first.kept.folder, name) for name in ("keys", "boxes"))
    for of_keys, of_boxes, whole in ((20 * 16 + 5, 32 * 144, 20), (32 * 16, 20 * 144 + 7, 20), (0, 16 * 144, 0)):
        keys.write_bytes(keys.read_bytes()[:of_keys])
        boxes.write_bytes(boxes.read_bytes()[:of_boxes])
        Counting.calls = 0
        assert torch.equal(Proposed(source, Counting(most=9)).take(every)["proposals"], wanted)
        assert Counting.calls == 50 - whole
        assert len(keys.read_bytes()) == 50 * 16


class Sleepy(Slow):
    def __call__(self, image_HWC):
        time.sleep(0.02)
        return super().__call__(image_HWC)


def fork(work):
    """The pid of a process that does the work."""
    if pid := os.fork():
        return pid
    try:
        work()
    finally:
        os._exit(0)


def test_killed_in_the_middle_it_goes_on(monkeypatch):
    monkeypatch.setattr("dlx.data.proposals._cores", lambda: 2)
    source, every = flat_images(120), torch.arange(120)
    proposed = Proposed(source, Sleepy(most=9))
    pid = fork(lambda: proposed.take(every))
    while not proposed.kept.rows():
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    kept = proposed.kept.rows()
    assert 0 < len(kept) < 120
    again = Proposed(source, Sleepy(most=9))
    assert torch.equal(
        again.take(every)["proposals"], Proposed(source, SlidingWindows(most=9)).take(every)["proposals"]
    )
    assert again.kept.rows().items() > kept.items()


def test_of_two_at_once_one_makes_them_and_the_other_waits():
    source, every = flat_images(40), torch.arange(40)
    pids = [fork(lambda: Proposed(source, Sleepy(most=9)).take(every)) for _ in range(2)]
    for pid in pids:
        os.waitpid(pid, 0)
    kept = Proposed(source, Sleepy(most=9)).kept
    assert len(kept.rows()) == 40
    assert Path(kept.folder, "keys").stat().st_size == 40 * 16


def test_where_there_is_no_terminal_lines_tell_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr("dlx.config.screen.LINE_EVERY", 0.0)
    Proposed(flat_images(64), SlidingWindows(most=9)).take(torch.arange(64))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(", about")[0] for line in lines] == [
        f"proposing regions of 64 images: {share} %" for share in (25, 50, 75)
    ]


def test_an_image_that_cannot_be_searched_is_named():
    image = flat_images(40).tensors["image"]
    image[33] = 200
    proposed = Proposed(TensorSource(image=image), Stopping(most=9))
    with pytest.raises(UserError, match="sample 33: RuntimeError: no such luck"):
        proposed.take(torch.arange(40))
    assert len(proposed.kept.rows()) == 32  # whole batches before it are kept


def test_equal_images_are_searched_once_and_subsets_share_what_is_kept():
    Counting.calls = 0
    image = flat_images(6).tensors["image"][[0, 1, 0, 2, 1, 0]]
    source = TensorSource(image=image)
    boxes = Proposed(source, Counting(most=9)).take(torch.tensor([0, 1, 2]))["proposals"]
    assert Counting.calls == 2
    assert torch.equal(boxes[0], boxes[2])
    Proposed(source, Counting(most=9)).take(torch.tensor([2, 3, 4, 5]))
    assert Counting.calls == 3
    Proposed(source, Counting(most=8)).take(torch.tensor([0]))  # other settings
    assert Counting.calls == 4


def test_a_proposer_sees_pictures_of_their_own_size_in_255_levels():
    seen = []

    class Looking(SlidingWindows):
        def __call__(self, image_HWC):
            seen.append((image_HWC.shape, image_HWC.dtype, image_HWC.max()))
            return super().__call__(image_HWC)

    image = torch.full((2, 1, 8, 8), 16, dtype=torch.uint8)
    source = TensorSource(image=image, size=torch.tensor([[8, 5], [6, 8]]))
    boxes = Proposed(source, Looking(most=9), scale=16.0).take(torch.arange(2))["proposals"]
    assert seen == [((8, 5, 1), np.uint8, 255), ((6, 8, 1), np.uint8, 255)]
    assert boxes[0, :, 2].max() <= 5
    assert boxes[1, :, 3].max() <= 6


def test_names_of_samples_and_what_is_not_in_memory():
    class OnDemand:
        keys = tuple("abcdef")

        def __len__(self):
            return 6

        def take(self, index, draw=0):
            return flat_images(6).take(index)

    Counting.calls = 0
    proposed = Proposed(OnDemand(), Counting(most=9))
    assert proposed.keys == OnDemand.keys
    assert proposed.only({"image"}) is proposed.source
    reads = proposed.only({"image", "proposals"}, torch.tensor([1, 4]))
    assert Counting.calls == 2
    assert reads.take(torch.tensor([4, 1]))["proposals"].shape == (2, 9, 4)
    assert Counting.calls == 2


def test_selective_search_on_the_command_line(toys, dlx_call):
    pytest.importorskip("skimage")
    shapes = ("data=shapes", "data.samples=30", "data.side=32", "data.extent=[0.3,0.5]", "data.batch_size=8")
    words = ("train", *toys, "--trust", "zoo", "model=toy_rcnn", *shapes, "trainer.max_steps=2", "--json")
    done = dlx_call(*words, "data.proposals=selective_search")
    assert done.code == 0, done.err
    kept = list(Path(os.environ["DLX_DATA"], "proposals").glob("*/keys"))
    assert [path.stat().st_size for path in kept] == [30 * 16]
    config = (Path(json.loads(done.out)["run"]) / "config.yaml").read_text()
    assert "colour+texture+size+fill" in config
    again = dlx_call(*words, "data.proposals={name: selective_search, spaces: [lab], similarities: [size+fill]}")
    assert again.code == 0, again.err
    for wrong, text in (
        ("data.proposals={name: selective_search, spaces: [cmyk]}", "dataset.proposals.spaces: must be one of"),
        ("data.proposals={name: selective_search, scale: 3}", "did you mean scales?"),
        ("data.proposals=selective_serch", "did you mean selective_search?"),
    ):
        refused = dlx_call(*words, wrong)
        assert refused.code == 2
        assert text in refused.err
        assert len(refused.err.strip().splitlines()) == 1
