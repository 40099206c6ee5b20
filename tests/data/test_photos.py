"""Images that are decoded for each batch are the same as those that are kept as arrays."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from annotated_files import picture, png, write_archive, write_folder
from run_ends import assert_same_end

from dlx.config.errors import UserError
from dlx.data.loader import WorkerLoader, make_loader
from dlx.data.splits import SplitSettings
from dlx.data.voc import VOC, VOCSegmentation
from dlx.data.yolo_folder import YOLOFolder

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    files = {}
    for number in range(14):
        height, width = 6 + number % 3, 9 - number % 4
        stem = f"{number:02}"
        files[f"JPEGImages/{stem}.png"] = png(picture(number, height, width))
        corners = f"<xmin>1</xmin><ymin>1</ymin><xmax>{width}</xmax><ymax>3</ymax>"
        files[f"Annotations/{stem}.xml"] = f"<a><object><name>cat</name><bndbox>{corners}</bndbox></object></a>"
        files[f"SegmentationClass/{stem}.png"] = png(np.full((height, width), number % 3, np.uint8))
    return write_folder(tmp_path / "photos", files)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("size", [None, 5])
@pytest.mark.parametrize("kind", [VOC, VOCSegmentation])
def test_batches_are_the_same_to_the_bit(folder, tmp_path, kind, size, workers):
    loaders = []
    for decode in ("once", "on_demand"):
        dataset = kind(path=folder, root=tmp_path / "cache", size=size, decode=decode)
        settings = SplitSettings(batch_size=3, workers=0 if decode == "once" else workers, drop_last=False)
        split = settings.split(dataset)["train"]
        loaders.append((make_loader(split, dataset.spec.entries, settings, device=CPU), dataset))
    (once, first), (on_demand, second) = loaders
    assert isinstance(on_demand, WorkerLoader)
    assert first.spec == second.spec
    assert first.fingerprint() == second.fingerprint()
    for ours, theirs in ((once.epoch(0), on_demand.epoch(0)), (once.eval_batches(), on_demand.eval_batches())):
        for a, b in zip(ours, theirs, strict=True):
            assert a.keys() == b.keys()
            assert all(torch.equal(a[name], b[name]) for name in a)


def test_no_array_of_images_is_kept(folder, tmp_path):
    assert len(VOC(path=folder, root=tmp_path / "cache", decode="on_demand").splits()["train"]) == 14
    assert {path.name for path in (tmp_path / "cache").rglob("*.npy")} == {"train_size.npy", "train_boxes.npy"}


def test_what_is_not_read_is_not_decoded(folder, tmp_path, monkeypatch):
    source = VOC(path=folder, root=tmp_path / "cache", decode="on_demand").splits()["train"]
    monkeypatch.setattr("dlx.data.photos.decode_whole", None)
    assert source.only(("boxes",)).take(torch.tensor([3, 1])).keys() == {"boxes"}


def test_an_archive_must_be_unpacked_first(tmp_path):
    path = write_archive(tmp_path / "x.tar.gz", {"images/1.png": png(picture(0)), "labels/1.txt": "0 .5 .5 1 1"})
    with pytest.raises(UserError, match=r"^dataset\.decode: on_demand reads a directory; unpack .*x\.tar\.gz first"):
        YOLOFolder(path=path, root=tmp_path / "cache", decode="on_demand").splits()


def test_a_photo_that_is_gone_is_named(folder, tmp_path):
    source = VOC(path=folder, root=tmp_path / "cache", decode="on_demand").splits()["train"]
    (folder / "JPEGImages" / "03.png").unlink()
    with pytest.raises(UserError, match=r"03\.png: cannot be decoded"):
        source.take(torch.tensor([2, 3]))


def test_a_detector_trains_and_is_resumed_to_the_same_bits(tmp_path, toys, dlx_call, here, sigterm_at):
    files = {}
    for number in range(30):
        files[f"images/{number}.png"] = png(picture(number, 12 - number % 3, 12 - number % 4))
        files[f"labels/{number}.txt"] = "0 .5 .5 .4 .4"
    write_folder(here / "photos", files)
    words = ["model=toy_detector", "data=yolo_folder", "data.path=photos", "data.batch_size=4", f"data.root={tmp_path}"]
    words += ["data.decode=on_demand", "trainer.max_steps=4", "trainer.log_every=1", "--json"]
    whole = run_of(dlx_call("train", *toys, *words), 0)
    with sigterm_at(3):
        cut = run_of(dlx_call("train", *toys, *words), 143)
    assert_same_end(run_of(dlx_call("resume", str(cut), "--json"), 0), whole)


def run_of(call, code):
    assert call.code == code, call.err
    return Path(json.loads(call.out.splitlines()[-1])["run"])
