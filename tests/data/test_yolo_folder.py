import pytest
import torch
from annotated_files import picture, png, write_archive, write_folder

from dlx.config.errors import UserError
from dlx.data.yolo_folder import YOLOFolder


def contents(count=3, images="images/", labels="labels/"):
    files = {}
    for number in range(count):
        files[f"{images}{number}.png"] = png(picture(number))
        files[f"{labels}{number}.txt"] = "1 0.5 0.5 1 1\n\n0 0.25 0.5 0.5 0.5\n"
    return files


@pytest.fixture
def load(tmp_path):
    def make(files, **given):
        return YOLOFolder(path=write_folder(tmp_path / "photos", files), root=tmp_path / "cache", **given)

    return make


def test_shares_become_pixels(load):
    dataset = load(contents())
    assert dataset.spec.boxes.classes == ("0", "1")
    tensors = dataset.splits()["train"].tensors
    assert tensors["boxes"].tolist() == [[[0, 0, 8, 6, 1], [0, 1.5, 4, 4.5, 0]]] * 3
    assert (tensors["image"][2].numpy() == picture(2).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("name", ["photos.tar.gz", "photos.zip"])
def test_an_archive_is_the_same_data_as_its_folder(tmp_path, load, name):
    folder = load(contents())
    path = write_archive(tmp_path / name, {f"./own/{key}": content for key, content in contents().items()})
    archive = YOLOFolder(path=path, root=tmp_path / "cache")
    assert archive.spec == folder.spec
    ours, theirs = archive.splits()["train"].tensors, folder.splits()["train"].tensors
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("layout", ["{split}/{kind}/", "{kind}/{split}/"])
def test_split_folders_are_splits(load, layout):
    files = {}
    for split, count in (("train", 3), ("valid", 2), ("test", 1)):
        paths = [layout.format(split=split, kind=kind) for kind in ("images", "labels")]
        files |= contents(count, *paths)
    assert {name: len(source) for name, source in load(files).splits().items()} == {"train": 3, "val": 2, "test": 1}


@pytest.mark.parametrize(
    "given",
    [
        {"data.yaml": "train: ../train\nnc: 2\nnames: [cat, no]\n"},
        {"data.yaml": "names:\n  0: cat\n  1: no\n"},
        {"other.yaml": "a: 1", "z/data.yml": "names:\n- cat\n- no\n"},
        {"classes.txt": "cat\nno\n"},
        {"labels/classes.txt": "cat\nno\n"},
    ],
)
def test_names_come_from_a_file(load, given):
    assert load(contents() | given).spec.boxes.classes == ("cat", "no")
    assert load(contents() | given, names=["a", "b"]).spec.boxes.classes == ("a", "b")


def test_an_image_without_a_file_has_no_objects(load):
    dataset = load(contents() | {"images/9.png": png(picture(9)), "labels/0.txt": ""})
    counts = (dataset.splits()["train"].tensors["boxes"][..., 4] >= 0).sum(1)
    assert counts.tolist() == [0, 2, 2, 0]
    assert "1 image without a file in labels" in dataset.notes()


FAULTY = {
    "images/10.png": png(picture(0)),
    "labels/10.txt": "5 .5 .5 .1 .1\ncat .5 .5 .1 .1\n-1 .5 .5 .1 .1\n0 .5 .5 .1\n0 .5 .5 .1 x\n0 1 .5 .9 .5\n"
    "0 .5 .5 -.2 .2\n0 .5 .5 0 .2\n0 .5 .5 nan .2\n1 .5 .5 .5 .5\n0 5 5 .1 .1",
    "labels/11.txt": "0 .5 .5 .1 .1",
    "images/12.png": b"no image", "labels/12.txt": "",
    "images/13.png": png(picture(0)), "labels/13.txt": b"\xff\xfe",
}  # fmt: skip
REPORTED = [
    "labels/10.txt: line 1, class: unknown class '5', there are 2 classes",
    "labels/10.txt: line 2, class: unknown class 'cat', there are 2 classes",
    "labels/10.txt: line 3, class: unknown class '-1', there are 2 classes",
    "labels/10.txt: line 4: must be a class and four numbers, got 4 values",
    "labels/10.txt: line 5, box: '.5 .5 .1 x' are no four numbers",
    "labels/10.txt: line 6, box: (4.4 1.5 11.6 4.5) is outside the image of 8 x 6",
    "labels/10.txt: line 7, box: (4.8 2.4 3.2 3.6) is inverted",
    "labels/10.txt: line 8, box: (4 2.4 4 3.6) is empty",
    "labels/10.txt: line 9, box: (nan 2.4 nan 3.6) is not finite",
    "labels/10.txt: line 11, box: (39.6 29.7 40.4 30.3) is outside the image of 8 x 6",
    "labels/11.txt: images: there is no image of this name",
    "images/12.png: image: cannot be decoded (no image of a known format)",
    "labels/13.txt: text: cannot be read",
]


def test_all_faults_are_reported_at_once_or_left_out(load, monkeypatch):
    monkeypatch.setattr("dlx.data.annotations.LISTED", 20)
    files, names = contents() | FAULTY, ["cat", "dog"]
    with pytest.raises(UserError) as caught:
        load(files, names=names).splits()
    message = str(caught.value)
    assert "\n" not in message
    assert [reason for reason in REPORTED if reason not in message] == []
    dataset = load(files, names=names, on_error="skip")
    (source,) = dataset.splits().values()
    assert source.keys == ["images/0.png", "images/1.png", "images/10.png", "images/2.png"]
    assert source.tensors["boxes"][2].tolist() == [[2, 1.5, 6, 4.5, 1], [0, 0, 0, 0, -1]]
    assert any(note.startswith("3 images and 10 objects with faulty annotations are") for note in dataset.notes())


def test_a_box_whose_shares_are_rounded_is_cut(load):
    dataset = load(contents() | {"labels/0.txt": "0 0.500001 0.5 1.000003 1.0001"})
    assert dataset.splits()["train"].tensors["boxes"][0, 0].tolist() == [0, 0, 8, 6, 0]


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"photos/1.png": b""}, "holds no images in a folder images"),
        ({"images/1.png": b""}, "holds nothing that can be read in a folder labels"),
        (contents() | {"data.yaml": "names: [a"}, r"data\.yaml: no YAML that can be read"),
        (contents() | {"data.yaml": "[" * 5000}, r"data\.yaml: no YAML that can be read"),
        (contents() | {"data.yaml": "names: {1: a}"}, r"data\.yaml: names must be texts, a list or numbered from 0"),
        (contents() | {"data.yaml": "names: [a, a]"}, r"data\.yaml: names must be distinct"),
        (dict.fromkeys(("labels/0.txt",), "") | {"images/0.png": png(picture(0))}, "holds no classes"),
    ],
)
def test_what_is_no_such_layout_is_refused(load, files, match):
    with pytest.raises(UserError, match=rf"^dataset\.path: .*{match}") as caught:
        load(files).splits()
    assert "\n" not in str(caught.value)
