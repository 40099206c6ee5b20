import json

import pytest
import torch
from annotated_files import picture, png, write_archive, write_folder

from dlx.config.errors import UserError
from dlx.data.coco import COCO

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def instances(images, annotations, categories=CATEGORIES):
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def entry(number, folder=""):
    return {"id": number, "file_name": f"{folder}{number}.png", "height": 6, "width": 8}


def box(image, category=3, bbox=(1, 0, 4, 4), **given):
    return {"id": 1, "image_id": image, "category_id": category, "bbox": list(bbox), **given}


def contents(numbers=(0, 1, 2), folder="photos/", name="labels.json", **given):
    files = {f"{folder}{number}.png": png(picture(number)) for number in numbers}
    annotations = [box(number) for number in numbers] + [box(numbers[1], 7, (0, 0, 8, 6))]
    return files | {name: instances([entry(number) for number in numbers], annotations, **given)}


@pytest.fixture
def load(tmp_path):
    def make(files, **given):
        return COCO(path=write_folder(tmp_path / "photos", files), root=tmp_path / "cache", **given)

    return make


def test_boxes_are_corners_and_classes_in_the_order_of_their_ids(load):
    dataset = load(contents())
    assert dataset.spec.boxes.classes == ("cat", "dog")
    assert dataset.spec.boxes.ids == (3, 7)
    tensors = dataset.splits()["train"].tensors
    assert tensors["boxes"][:2].tolist() == [
        [[1, 0, 5, 4, 0], [0, 0, 0, 0, -1]],
        [[1, 0, 5, 4, 0], [0, 0, 8, 6, 1]],
    ]
    assert tensors["size"].tolist() == [[6, 8]] * 3
    assert (tensors["image"][2].numpy() == picture(2).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("name", ["photos.tar.gz", "photos.zip"])
def test_an_archive_is_the_same_data_as_its_folder(tmp_path, load, name):
    folder = load(contents())
    files = {f"./{key}": content for key, content in contents().items()}
    archive = COCO(path=write_archive(tmp_path / name, files), root=tmp_path / "cache")
    assert archive.spec == folder.spec
    ours, theirs = archive.splits()["train"].tensors, folder.splits()["train"].tensors
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_layout_of_coco_itself(load):
    files = contents((0, 1, 2), "coco/train2017/", "coco/annotations/instances_train2017.json")
    files |= contents((3, 4), "coco/val2017/", "coco/annotations/instances_val2017.json")
    files |= {"coco/annotations/person_keypoints_train2017.json": "not read", "coco/test2017/5.png": png(picture(5))}
    splits = load(files).splits()
    assert {name: source.keys for name, source in splits.items()} == {
        "train": [f"coco/train2017/{number}.png" for number in range(3)],
        "val": ["coco/val2017/3.png", "coco/val2017/4.png"],
    }


def test_a_file_in_each_folder_and_images_of_the_same_names(load):
    files = contents(folder="train/", name="train/_annotations.coco.json")
    files |= contents(folder="valid/", name="valid/_annotations.coco.json")
    splits = load(files).splits()
    assert splits["train"].keys == [f"train/{number}.png" for number in range(3)]
    assert splits["val"].keys == [f"valid/{number}.png" for number in range(3)]


def test_images_of_the_same_names_are_told_apart_by_their_split(load):
    files = contents(folder="images/train/", name="labels/train.json")
    files |= contents(folder="images/val/", name="labels/val.json")
    splits = load(files).splits()
    assert splits["val"].keys == [f"images/val/{number}.png" for number in range(3)]


def test_crowds_are_left_out_and_counted(load):
    annotations = [box(0), box(0, iscrowd=1, bbox=(0, 0, 99, 99))]
    dataset = load(contents() | {"labels.json": instances([entry(0), entry(1)], annotations)})
    assert dataset.splits()["train"].tensors["boxes"][..., 4].tolist() == [[0], [-1]]
    assert "1 region of crowds left out" in dataset.notes()


FAULTY = instances(
    [entry(0), entry(1), entry(9), {"id": 4}, entry(0), {"id": 5, "file_name": "bad.png"}],
    [
        box(0), box(0, bbox=(1, 1, 40, 2)), box(0, bbox=(4, 4, -2, 1)), box(0, bbox=(4, 4, 0, 1)), box(1, 5), box(77),
        box(1, bbox=(1, 2, 3)), box(1, bbox=("1", 2, 3, 4)), "none", box(9), box(1, bbox=(float("nan"), 1, 2, 2)),
    ],
)  # fmt: skip
REPORTED = [
    "labels.json: images[2].file_name: there is no image 9.png, or several",
    "labels.json: images[3]: has no id or no file_name",
    "labels.json: images[4].id: 0 is there twice",
    "photos/bad.png: image: cannot be decoded",
    "labels.json: annotations[1].bbox: (1 1 41 3) is outside the image of 8 x 6",
    "labels.json: annotations[2].bbox: (4 4 2 5) is inverted",
    "labels.json: annotations[3].bbox: (4 4 4 5) is empty",
    "labels.json: annotations[4].category_id: unknown class 5",
    "labels.json: annotations[5].image_id: there is no image 77",
    "labels.json: annotations[6].bbox: must be four numbers, got [1, 2, 3]",
    "labels.json: annotations[7].bbox: must be four numbers, got ['1', 2, 3, 4]",
    "labels.json: annotations[8]: is no object of names and values",
    "labels.json: annotations[10].bbox: (nan 1 nan 3) is not finite",
]


def test_all_faults_are_reported_at_once_or_left_out(load, monkeypatch):
    monkeypatch.setattr("dlx.data.annotations.LISTED", 20)
    files = contents() | {"labels.json": FAULTY, "photos/bad.png": b"no image"}
    with pytest.raises(UserError) as caught:
        load(files).splits()
    message = str(caught.value)
    assert "\n" not in message
    assert [reason for reason in REPORTED if reason not in message] == []
    assert message.count("labels.json") + message.count("bad.png") == len(REPORTED)
    dataset = load(files, on_error="skip")
    (source,) = dataset.splits().values()
    assert source.keys == ["photos/0.png", "photos/1.png"]
    assert source.tensors["boxes"][..., 4].tolist() == [[0], [-1]]
    assert any(note.startswith("4 images and 9 objects with faulty annotations are") for note in dataset.notes())


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"1.png": b""}, "holds no .json with lists of images, annotations, categories"),
        (contents() | {"labels.json": "{"}, r"labels\.json: no JSON that can be read"),
        (contents() | {"labels.json": "[" * 100_000}, r"labels\.json: no JSON that can be read"),
        (contents() | {"labels.json": "[]"}, "holds no .json with lists"),
        (contents(name="train.json") | contents(name="training.json"), "several files are for one split: train"),
        (contents(name="train.json") | contents(name="new.json"), "new.json is of no split, but others are of train"),
        (contents(categories=[{"id": 3}]), r"labels\.json: categories\[0\]: must have a number `id` and a text `name`"),
        (contents(categories=[*CATEGORIES, {"id": 9, "name": "cat"}]), r"labels\.json: categories: names must be dist"),
        (
            contents(name="train.json") | contents(name="val.json", categories=[{"id": 3, "name": "cow"}]),
            r"val\.json: categories\[0\]: 'cow' is 'cat' in another file",
        ),
    ],
)
def test_what_is_no_such_layout_is_refused(load, files, match):
    with pytest.raises(UserError, match=rf"^dataset\.path: .*{match}"):
        load(files).splits()
