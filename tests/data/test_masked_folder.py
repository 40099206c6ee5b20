import os
from pathlib import Path

import numpy as np
import pytest
import torch
from annotated_files import picture, png, write_archive, write_folder

from dlx.config import compose
from dlx.config.build import build
from dlx.config.errors import UserError
from dlx.data.masked_folder import MaskedFolder


def mask(seed, classes=3, height=6, width=8, void=None):
    pixels = np.random.default_rng(seed).integers(0, classes, (height, width), dtype=np.uint8)
    if void is not None:
        pixels[0] = void
    return pixels


def contents(count=4, folder="", mode=None, **given):
    files = {}
    for number in range(count):
        files[f"{folder}images/{number}.png"] = png(picture(number))
        files[f"{folder}labels/{number}.png"] = png(mask(number, **given), mode)
    return files


@pytest.fixture
def load(tmp_path):
    def make(files, **given):
        return MaskedFolder(path=write_folder(tmp_path / "scenes", files), root=tmp_path / "cache", **given)

    return make


@pytest.mark.parametrize("mode", ["P", "L"])
def test_each_image_has_the_numbers_of_its_label_image(load, mode):
    dataset = load(contents(mode=mode, void=255))
    assert dataset.spec.mask.classes == ("0", "1", "2")
    assert (dataset.spec.mask.shape, dataset.spec.mask.void) == ((6, 8), 255)
    (source,) = dataset.splits().values()
    assert source.keys == [f"images/{number}.png" for number in range(4)]
    for number in range(4):
        assert (source.tensors["image"][number].numpy() == picture(number).transpose(2, 0, 1)).all()
        assert (source.tensors["mask"][number].numpy() == mask(number, void=255)).all()
    everything = np.stack([picture(number) for number in range(4)]) / 255
    assert dataset.spec.image.mean == pytest.approx(everything.mean((0, 1, 2)))
    assert source.lengths is None


@pytest.mark.parametrize("name", ["scenes.tar.gz", "scenes.zip"])
@pytest.mark.parametrize("prefix", ["", "./", "data/road/"])
def test_an_archive_is_the_same_data_as_its_folder(tmp_path, load, name, prefix):
    folder = load(contents())
    path = write_archive(tmp_path / name, {prefix + key: content for key, content in reversed(contents().items())})
    archive = MaskedFolder(path=path, root=tmp_path / "cache")
    assert archive.spec == folder.spec
    ours, theirs = archive.splits()["train"].tensors, folder.splits()["train"].tensors
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("layout", ["{split}/{kind}/", "{kind}/{split}/"])
def test_split_folders_are_splits(load, layout):
    files = {}
    for split, count in (("train", 3), ("valid", 2), ("test", 1)):
        for name, content in contents(count).items():
            kind, _, file = name.partition("/")
            files[layout.format(split=split, kind=kind) + file] = content
    splits = load(files).splits()
    assert {name: len(source) for name, source in splits.items()} == {"train": 3, "val": 2, "test": 1}


def test_the_folders_may_have_other_names(load):
    files = {name.replace("images", "img").replace("labels", "masks"): c for name, c in contents().items()}
    assert len(load(files, images="img", labels="masks").splits()["train"]) == 4
    with pytest.raises(UserError, match=r"^dataset\.path: .*scenes: holds no images in a folder images"):
        load(files).splits()


def test_names_come_from_the_option_or_a_file(load):
    files = contents() | {"classes.txt": "sky\nroad\ncar\n"}
    assert load(files).spec.mask.classes == ("sky", "road", "car")
    assert load(files, names=["a", "b", "c"]).spec.mask.classes == ("a", "b", "c")


def test_numbers_without_names_are_classes_of_their_own(load):
    found = np.array([[0, 128, 9, 255]], np.uint8).repeat(6, 0).repeat(2, 1)
    dataset = load({"images/1.png": png(picture(1)), "labels/1.png": png(found)})
    assert dataset.spec.mask.classes == ("0", "9", "128")
    assert dataset.splits()["train"].tensors["mask"][0, 0].tolist() == [0, 0, 2, 2, 1, 1, 255, 255]


@pytest.mark.parametrize(("void", "expected", "stored"), [(0, [255, 0, 1, 2], 255), (3, [0, 1, 2, 3], 3)])
def test_void_may_be_any_number(load, void, expected, stored):
    row = np.array([[0, 1, 2, 3]], np.uint8).repeat(6, 0).repeat(2, 1)
    dataset = load({"images/1.png": png(picture(1)), "labels/1.png": png(row)}, names=["a", "b", "c"], void=void)
    assert dataset.spec.mask.void == stored
    assert dataset.splits()["train"].tensors["mask"][0, 0, ::2].tolist() == expected


def test_size_scales_whole_pictures_and_keeps_the_numbers(load):
    left = np.zeros((6, 8), np.uint8)
    left[:, :4] = 2
    dataset = load({"images/1.png": png(np.stack([left * 100] * 3, -1)), "labels/1.png": png(left)}, size=[3, 16])
    tensors = dataset.splits()["train"].tensors
    assert tensors["image"].shape == (1, 3, 3, 16)
    assert (tensors["image"][0, :, :, :7] == 200).all()
    assert (tensors["image"][0, :, :, 9:] == 0).all()
    assert tensors["mask"][0].tolist() == [[1] * 8 + [0] * 8] * 3  # classes 0 and 2, the second of which is 1


def test_pictures_of_several_sizes_are_scaled_to_the_median_and_it_is_said(load):
    files = contents(3, height=16, width=24) | {f"images/{n}.png": png(picture(n, 16, 24)) for n in range(3)}
    files |= {"images/9.png": png(picture(9, 40, 80)), "labels/9.png": png(mask(9, height=40, width=80))}
    dataset = load(files)
    assert dataset.spec.image.shape == (3, 16, 24)
    assert any("photos of 2 sizes are scaled to 16x24" in note for note in dataset.notes())


FAULTY = {
    "images/10.png": b"no image", "labels/10.png": png(mask(0)),
    "images/11.png": png(picture(0)),
    "labels/12.png": png(mask(0)),
    "images/13.png": png(picture(0)), "labels/13.png": png(mask(0, height=5)),
    "images/14.png": png(picture(0)), "labels/14.png": png(mask(0, classes=9)),
    "images/15.png": png(picture(0)), "labels/15.png": png(picture(0)),
    "images/0.tif": png(picture(0)), "labels/1.tif": png(mask(0)),
}  # fmt: skip
REPORTED = [
    "images/10.png: image: cannot be decoded (no image of a known format)",
    "images/11.png: labels: there is no label image of this name",
    "labels/12.png: images: there is no image of this name",
    "labels/13.png: size: 8 x 5 pixels, but its image has 8 x 6",
    "labels/14.png: label 3, 4, 5, 6, 7, ...: out of range, there are 3 classes and void 255",
    "images/0.tif: name: images/0.png has the same but for the ending",
    "labels/1.tif: name: labels/1.png has the same but for the ending",
    "labels/15.png: label image: cannot be decoded (its pixels are of mode RGB, not class numbers",
]


def test_all_faults_are_reported_at_once_or_left_out(load):
    files, names = contents() | FAULTY, ["a", "b", "c"]
    with pytest.raises(UserError) as caught:
        load(files, names=names).splits()
    message = str(caught.value)
    assert "\n" not in message
    assert [reason for reason in REPORTED if reason not in message] == []
    dataset = load(files, names=names, on_error="skip")
    assert dataset.splits()["train"].keys == [f"images/{number}.png" for number in range(4)]
    assert any(note.startswith("8 images with faulty annotations are left out, such as") for note in dataset.notes())


def test_ten_faults_are_listed_and_the_others_counted(tmp_path, load):
    files = contents() | {f"images/{number}.png": b"" for number in range(50, 63)}
    with pytest.raises(UserError, match=r" and 3 more; dataset\.on_error=skip leaves them out$"):
        load(files).splits()
    assert not list((tmp_path / "cache" / "annotated").iterdir())


@pytest.mark.parametrize(
    ("files", "match"),
    [
        (
            {"train/images/1.png": b"", "images/1.png": b"", "labels/1.png": b""},
            "is of no split, but others are",
        ),
        ({"test/images/1.png": b"", "test/labels/1.png": b""}, "holds test but no train"),
        ({"images/1.png": b""}, "nothing that can be read in a folder labels"),
        (contents() | {"classes.txt": "a\na\n"}, r"classes\.txt: names must be distinct"),
        (contents() | {"classes.txt": b"\xff\xfe"}, r"classes\.txt: no text that can be read"),
    ],
)
def test_what_is_no_such_layout_is_refused(load, files, match):
    with pytest.raises(UserError, match=rf"^dataset\.path: .*{match}"):
        load(files).splits()


@pytest.mark.parametrize(
    ("given", "name"), [({"void": 256}, "void"), ({"names": ["a", "a"]}, "names"), ({"labels": "images"}, "labels")]
)
def test_values_out_of_range_name_their_argument(given, name):
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        MaskedFolder(path="x", **given)


def test_the_fingerprint_changes_with_a_label_image(tmp_path):
    found = []
    for number, seed in enumerate((0, 99)):
        path = write_folder(tmp_path / str(number), contents() | {"labels/0.png": png(mask(seed))})
        found.append(MaskedFolder(path=path, root=tmp_path / "cache").fingerprint()["samples"])
    assert [name for name in found[0] if found[0][name] != found[1][name]] == ["train: images/0.png"]


def test_faulty_files_end_a_command_with_one_line_and_no_run(tmp_path, dlx_call, here):
    write_folder(here / "scenes", contents() | FAULTY)
    call = dlx_call("train", "model=fcn", "data=masked_folder", "data.path=scenes", f"data.root={tmp_path}")
    assert call.code == 2
    assert call.err.startswith(f"error: dataset.path: {here / 'scenes'}: ")
    assert call.err.count("\n") == 1
    assert not (here / "outputs").exists()


def test_camvid(tmp_path):
    archive = Path(os.environ.get("DLX_TEST_DATA", "nowhere"), "camvid_240x180.tar.gz")
    if not archive.is_file():
        pytest.skip("DLX_TEST_DATA has no camvid_240x180.tar.gz")
    config = compose(["model=fcn", "data=camvid", f"data.path={archive}", f"data.root={tmp_path}"])
    dataset = build(config, "dataset")
    splits = dataset.splits()
    assert {name: len(source) for name, source in splits.items()} == {"train": 367, "val": 101, "test": 233}
    masks = splits["train"].tensors["mask"]
    assert masks.shape == (367, 180, 240)
    assert masks.unique().tolist() == [*range(12)]  # 11 is void
    rows = torch.arange(180.0).view(1, 180, 1).expand_as(masks)
    height = {name: rows[masks == number].mean() for number, name in enumerate(dataset.spec.mask.classes)}
    assert height["sky"] < height["building"] < height["car"] < height["road"]
