import os
from pathlib import Path

import numpy as np
import pytest
import torch
from annotated_files import picture, png, write_archive, write_folder

from dlx.config.errors import UserError
from dlx.data.loader import make_loader
from dlx.data.splits import SplitSettings
from dlx.data.voc import VOC, VOCSegmentation


def thing(name="cat", box=(2, 1, 5, 4), difficult=0):
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"


def xml(*things):
    return f"<annotation><filename>x.jpg</filename>{''.join(things)}</annotation>"


def contents(count=4, height=6, width=8):
    files = {}
    for number in range(count):
        files[f"JPEGImages/{number}.png"] = png(picture(number, height, width))
        files[f"Annotations/{number}.xml"] = xml(thing("cat"), *[thing("dog", (1, 1, 8, 6))] * (number % 2))
    return files


@pytest.fixture
def load(tmp_path):
    def make(files, kind=VOC, **given):
        return kind(path=write_folder(tmp_path / "photos", files), root=tmp_path / "cache", **given)

    return make


def test_boxes_count_from_0_and_end_behind_their_last_pixel(load):
    dataset = load(contents(2))
    assert dataset.spec.boxes.classes == ("cat", "dog")
    assert dataset.spec.boxes.most == 2
    tensors = dataset.splits()["train"].tensors
    assert tensors["boxes"].tolist() == [
        [[1, 0, 5, 4, 0], [0, 0, 0, 0, -1]],
        [[1, 0, 5, 4, 0], [0, 0, 8, 6, 1]],
    ]
    assert tensors["size"].tolist() == [[6, 8]] * 2
    assert (tensors["image"][1].numpy() == picture(1).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("prefix", ["", "./", "VOCdevkit/VOC2007/"])
@pytest.mark.parametrize("name", ["photos.tar.gz", "photos.zip"])
def test_an_archive_is_the_same_data_as_its_folder(tmp_path, load, prefix, name):
    files = contents() | {"ImageSets/Main/train.txt": "1\n2\n0\n", "ImageSets/Main/test.txt": "3\n"}
    folder = load(files)
    path = write_archive(tmp_path / name, {prefix + key: content for key, content in reversed(files.items())})
    archive = VOC(path=path, root=tmp_path / "cache")
    assert archive.spec == folder.spec
    for split in ("train", "test"):
        ours, theirs = archive.splits()[split].tensors, folder.splits()[split].tensors
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


LISTS = {
    "ImageSets/Main/train.txt": "0\n1\n", "ImageSets/Main/val.txt": "2", "ImageSets/Main/trainval.txt": "0\n1\n2\n",
    "ImageSets/Main/test.txt": "3\n", "ImageSets/Main/cat_train.txt": "0  1\n1 -1\n",
}  # fmt: skip


@pytest.mark.parametrize(
    ("train", "expected"),
    [("train", {"train": "01", "val": "2", "test": "3"}), ("trainval", {"train": "012", "test": "3"})],
)
def test_lists_are_splits(load, train, expected):
    splits = load(contents() | LISTS, train=train).splits()
    assert {name: "".join(Path(key).stem for key in source.keys) for name, source in splits.items()} == expected


def test_difficult_objects_are_left_out_or_kept(load):
    files = contents(1) | {"Annotations/0.xml": xml(thing("cat"), thing("cow", difficult=1))}
    dataset = load(files)
    assert dataset.spec.boxes.classes == ("cat",)
    assert any(note.startswith("1 difficult object left out") for note in dataset.notes())
    assert load(files, difficult="keep").spec.boxes.classes == ("cat", "cow")


def test_an_image_without_objects_is_kept(load):
    dataset = load(contents(2) | {"Annotations/0.xml": xml()})
    assert dataset.splits()["train"].tensors["boxes"][0, :, 4].tolist() == [-1, -1]


def several_sizes(count=12, most=(8, 9)):
    files = {}
    for number in range(count):
        height, width = most[0] - 2 + number % 3, most[1] - number % 4
        files[f"JPEGImages/{number:02}.png"] = png(picture(number, height, width))
        files[f"Annotations/{number:02}.xml"] = xml(thing("cat", (1, 1, width, height)))
    return files


@pytest.mark.parametrize("workers", [0, 2])
def test_photos_of_several_sizes_are_padded_and_batches_cut_to_their_largest(load, workers):
    dataset = load(several_sizes())
    assert dataset.spec.image.shape == (3, 8, 9)
    settings = SplitSettings(batch_size=4, workers=workers, drop_last=False)
    split = settings.split(dataset)["train"]
    loader = make_loader(split, dataset.spec.entries, settings, device=torch.device("cpu"))
    batches = list(loader.epoch(0))
    assert sum(len(batch["index"]) for batch in batches) == len(split)
    for batch in batches:
        assert batch["image"].shape[2:] == tuple(batch["size"].amax(0).tolist())
        assert torch.equal(batch["boxes"][:, 0, 2:4], batch["size"].flip(1).float())
        for image, (height, width) in zip(batch["image"], batch["size"].tolist(), strict=True):
            assert (image[:, height:] == 0).all()
            assert (image[..., width:] == 0).all()
            assert (image[:, :height, :width] != 0).any()


def test_the_mean_is_that_of_the_photos_not_of_their_padding(load):
    pixels = [picture(number, 6 + number % 3, 9 - number % 4).reshape(-1, 3) for number in range(12)]
    spec = load(several_sizes()).spec
    assert spec.image.mean == pytest.approx(np.concatenate(pixels).mean(0) / 255)
    assert spec.image.std == pytest.approx(np.concatenate(pixels).std(0) / 255)


def test_size_scales_whole_photos_with_their_boxes(load):
    dataset = load(contents(2), size=4)
    tensors = dataset.splits()["train"].tensors
    assert dataset.spec.image.shape == (3, 3, 4)
    assert tensors["size"].tolist() == [[3, 4]] * 2
    assert tensors["boxes"][1].tolist() == [[0.5, 0, 2.5, 2, 0], [0, 0, 4, 3, 1]]


def test_images_of_several_splits_are_said(load):
    lists = {"ImageSets/Main/train.txt": "0\n1\n2\n", "ImageSets/Main/test.txt": "2\n3\n"}
    notes = load(contents() | lists).notes()
    assert "1 image in more than one split, such as JPEGImages/2.png" in notes


FAULTY = {
    "Annotations/10.xml": xml(thing(box=(1, 1, 99, 4)), thing()), "JPEGImages/10.png": png(picture(0)),
    "Annotations/11.xml": xml(thing(box=(5, 1, 2, 4)), thing(box=(5, 3, 4, 4))), "JPEGImages/11.png": png(picture(0)),
    "Annotations/12.xml": xml(thing("horse")), "JPEGImages/12.png": png(picture(0)),
    "Annotations/13.xml": xml(thing()),
    "Annotations/14.xml": "<annotation><object>", "JPEGImages/14.png": png(picture(0)),
    "Annotations/15.xml": xml(thing(box=("a", 1, 2, 4)), thing(box=("", 1, 2, 4)), "<object/>"),
    "JPEGImages/15.png": png(picture(0)),
    "Annotations/16.xml": xml(thing()), "JPEGImages/16.png": b"no image",
    "JPEGImages/17.png": png(picture(0)),
    "JPEGImages/1.jpg": png(picture(0)),
}  # fmt: skip
REPORTED = [
    "Annotations/10.xml: object 1, bndbox: (0 0 99 4) is outside the image of 8 x 6",
    "Annotations/11.xml: object 1, bndbox: (4 0 2 4) is inverted",
    "Annotations/11.xml: object 2, bndbox: (4 2 4 4) is empty",
    "Annotations/12.xml: object 1, name: unknown class 'horse'",
    "Annotations/13.xml: image: JPEGImages has no 13",
    "Annotations/14.xml: XML: cannot be read (no element found",
    "Annotations/15.xml: object 1, xmin: 'a' is no number",
    "Annotations/15.xml: object 2, xmin: is missing",
    "Annotations/15.xml: object 3, name: is missing",
    "JPEGImages/16.png: image: cannot be decoded (no image of a known format)",
    "ImageSets/Main: 17: Annotations has no 17",
    "JPEGImages/1.png: name: JPEGImages/1.jpg has the same but for the ending",
]


def test_all_faults_are_reported_at_once_or_left_out(load, monkeypatch):
    monkeypatch.setattr("dlx.data.annotations.LISTED", 20)
    files, names = contents(2) | FAULTY, ["cat", "dog"]
    with pytest.raises(UserError) as caught:
        load(files, names=names).splits()
    message = str(caught.value)
    assert "\n" not in message
    assert [reason for reason in REPORTED if reason not in message] == []
    dataset = load(files, names=names, on_error="skip")
    source = dataset.splits()["train"]
    counts = (source.tensors["boxes"][..., 4] >= 0).sum(1).tolist()
    assert dict(zip(source.keys, counts, strict=True)) == {
        "JPEGImages/0.png": 1, "JPEGImages/1.jpg": 2, "JPEGImages/10.png": 1, "JPEGImages/11.png": 0,
        "JPEGImages/12.png": 0, "JPEGImages/15.png": 0,
    }  # fmt: skip
    assert any(
        note.startswith("5 images and 7 objects with faulty annotations are left out") for note in dataset.notes()
    )


def test_a_box_that_sticks_out_by_less_than_a_pixel_is_cut(load):
    dataset = load(contents(1) | {"Annotations/0.xml": xml(thing(box=(0.5, 1, 8.9, 6)))})
    assert dataset.splits()["train"].tensors["boxes"][0, 0].tolist() == [0, 0, 8, 6, 0]


def test_entities_are_refused(load):
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb">]><annotation>&b;</annotation>'
    with pytest.raises(UserError, match=r"0\.xml: XML: declares a document type"):
        load(contents(1) | {"Annotations/0.xml": bomb}).splits()


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"photos/1.png": b""}, "holds no images in a folder JPEGImages"),
        ({"a/JPEGImages/1.png": b"", "b/JPEGImages/1.png": b""}, "several sets of images, give one of them: a, b"),
        (contents() | {"ImageSets/Main/test.txt": "1"}, r"ImageSets/Main has no train\.txt"),
        (contents() | {"ImageSets/Main/train.txt": b"\xff\xfe\xff"}, r"train\.txt: no text that can be read"),
        ({"JPEGImages/1.png": png(picture(0)), "Annotations/1.xml": xml()}, "holds no classes"),
        (contents() | {"ImageSets/Main/train.txt": "1\n9\n"}, r"train\.txt: image: JPEGImages has no 9"),
    ],
)
def test_what_is_no_such_layout_is_refused(load, files, match):
    with pytest.raises(UserError, match=rf"^dataset\.path: .*{match}"):
        load(files).splits()


@pytest.mark.parametrize(
    ("given", "name"), [({"train": "all"}, "train"), ({"difficult": 1}, "difficult"), ({"names": []}, "names")]
)
def test_values_out_of_range_name_their_argument(given, name):
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        VOC(path="x", **given)


def test_label_images_beside_the_photos(load):
    files = several_sizes(4)
    for number in range(3):
        mask = np.full((6 + number % 3, 9 - number % 4), number, np.uint8)
        mask[0] = 255
        files[f"SegmentationClass/{number:02}.png"] = png(mask, "P")
    files |= {"ImageSets/Segmentation/train.txt": "00\n01\n", "ImageSets/Segmentation/val.txt": "02\n"}
    dataset = load(files, VOCSegmentation, names=["background", "cat", "dog"])
    assert dataset.spec.mask.classes == ("background", "cat", "dog")
    train, val = (dataset.splits()[name].tensors for name in ("train", "val"))
    assert train["mask"].shape == (2, *dataset.spec.image.shape[1:])
    assert train["mask"][0, 1:6, :9].unique().tolist() == [0]
    assert train["mask"][1, 1:7, :8].unique().tolist() == [1]
    assert (train["mask"][1, 7:] == 255).all()  # padding
    assert (train["mask"][1, :, 8:] == 255).all()
    assert val["size"].tolist() == [[8, 7]]
    assert dataset.splits()["train"].lengths.keys() == {"image", "mask"}
    files["SegmentationClass/02.png"] = png(np.zeros((5, 5), np.uint8))
    with pytest.raises(UserError, match=r"SegmentationClass/02\.png: size: 5 x 5 pixels, but its image has 7 x 8"):
        load(files, VOCSegmentation).splits()


def test_a_detector_trains_on_them_and_an_evaluation_says_what_changed(tmp_path, toys, dlx_call, here):
    write_folder(here / "photos", several_sizes(30, most=(12, 12)))
    words = ["model=toy_detector", "data=voc", "data.path=photos", "data.batch_size=4", f"data.root={tmp_path}"]
    call = dlx_call("train", *toys, *words, "trainer.max_steps=3", "name=cats", "--json")
    assert call.code == 0, call.err
    write_folder(here / "photos", {"Annotations/05.xml": xml(thing("cat", (1, 1, 3, 3)))})
    call = dlx_call("eval", "cats")
    assert call.code == 0, call.err
    assert "1 changed (train: JPEGImages/05.png)" in call.err


def test_faulty_annotations_end_a_command_with_one_line_and_no_run(tmp_path, toys, dlx_call, here):
    write_folder(here / "photos", contents(8) | FAULTY)
    words = ["model=toy_detector", "data=voc", "data.path=photos", "data.batch_size=4", f"data.root={tmp_path}"]
    call = dlx_call("train", *toys, *words)
    assert call.code == 2
    assert call.err.startswith(f"error: dataset.path: {here / 'photos'}: ")
    assert call.err.count("\n") == 1
    assert not (here / "outputs").exists()


def test_blood_cells(tmp_path):
    archive = Path(os.environ.get("DLX_TEST_DATA", "nowhere"), "bccd_voc.tar.gz")
    if not archive.is_file():
        pytest.skip("DLX_TEST_DATA has no bccd_voc.tar.gz")
    dataset = VOC(path=archive, size=160, root=tmp_path)
    splits = dataset.splits()
    assert {name: len(source) for name, source in splits.items()} == {"train": 205, "val": 87, "test": 72}
    assert dataset.spec.boxes.classes == ("Platelets", "RBC", "WBC")
    assert dataset.spec.image.shape == (3, 120, 160)
    boxes = torch.cat([source.tensors["boxes"][source.tensors["boxes"][..., 4] >= 0] for source in splits.values()])
    assert len(boxes) == 4888
    assert (boxes[:, 2:4] > boxes[:, :2]).all()
    assert (boxes[:, :4] >= 0).all()
    assert (boxes[:, 2:4] <= torch.tensor([160.0, 120])).all()
