import json

import numpy as np
import pytest
import torch
from annotated_files import picture, png, write_archive, write_folder

from dlx.config.errors import UserError
from dlx.data.captioned_folder import CaptionedFolder
from dlx.data.splits import SplitSettings

TEXTS = ["A red bird.", "a small blue bird sings", "a tree", "two trees", "a bird in a tree", "nothing"]


def images(count=6, folder="", height=8, width=8):
    return {f"{folder}{number}.png": png(picture(number, height, width)) for number in range(count)}


def texts(count=6, folder=""):
    return {f"{folder}{number}.txt": TEXTS[number] for number in range(count)}


def coco(names, captions, first=0):
    listed = [{"id": first + number, "file_name": name} for number, name in enumerate(names)]
    own = [{"image_id": first + number, "caption": text} for number, text in captions]
    return json.dumps({"images": listed, "annotations": own})


@pytest.fixture
def load(tmp_path):
    def make(files, **given):
        return CaptionedFolder(path=write_folder(tmp_path / "birds", files), root=tmp_path / "cache", **given)

    return make


def check(dataset, split="train", number=0, text="a red bird."):
    batch = dataset.splits()[split].take(torch.tensor([number]))
    assert dataset.spec.caption.draw(batch["caption"].long()) == [text]
    return batch["image"][0].permute(1, 2, 0).numpy()


LAYOUTS = {
    "beside": images() | texts(),
    "in a folder of their own": images(folder="images/") | texts(folder="texts/"),
    "in folders of classes, as CUB's": images(3, "images/a/") | images(3, "images/b/")
    | texts(3, "text/a/") | {f"text/b/{number}.txt": TEXTS[number + 3] for number in range(3)},
    "csv": images(folder="photos/")
    | {"list.csv": "file_name,caption\n" + "\n".join(f'{n}.png,"{text}"' for n, text in enumerate(TEXTS))},
    "coco": images(folder="photos/") | {"c.json": coco([f"{n}.png" for n in range(6)], enumerate(TEXTS))},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_image_has_its_caption(layout, load):
    dataset = load(LAYOUTS[layout], tokens="characters")
    assert (check(dataset) == picture(0, 8, 8)).all()
    check(dataset, number=5, text="nothing")
    assert len(dataset.splits()["train"]) == 6
    assert dataset.spec.image.shape == (3, 8, 8)
    assert dataset.notes() == []


@pytest.mark.parametrize("name", ["birds.zip", "birds.tar.gz"])
def test_an_archive_is_the_same_data_as_its_folder(name, load, tmp_path):
    folder = load(LAYOUTS["beside"])
    archive = CaptionedFolder(path=write_archive(tmp_path / name, LAYOUTS["beside"]), root=tmp_path / "cache")
    assert archive.spec == folder.spec
    every = torch.arange(6)
    ours, theirs = (dataset.splits()["train"].take(every) for dataset in (archive, folder))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert archive.fingerprint()["samples"] == folder.fingerprint()["samples"]


def test_folders_and_names_of_files_are_splits(load):
    files = {}
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        files |= images(count, f"{split}/") | texts(count, f"{split}/")
    assert {name: len(source) for name, source in load(files).splits().items()} == {"train": 3, "val": 2, "test": 1}


def test_cocos_own_files(load):
    told = [(0, "a"), (0, "b"), (1, "c"), (3, "d")]
    files = images(4, "train2017/") | {
        "val2017/9.png": png(picture(9)),
        "annotations/captions_train2017.json": coco([f"{n}.png" for n in range(4)], told),
        "annotations/captions_val2017.json": coco(["9.png"], [(0, "e")], first=9),
        "annotations/instances_train2017.json": json.dumps({"images": [], "annotations": [{"bbox": []}]}),
    }  # fmt: skip
    dataset = load(files, size=8)
    assert dataset.captions == {"train": [["a", "b"], ["c"], ["d"]], "val": [["e"]]}
    assert "1 image without a caption left out" in dataset.notes()


def test_one_of_several_captions_is_drawn_in_each_epoch(load):
    dataset = load(images() | texts() | {"0.txt": "one\ntwo\n\nthree\n"}, tokens="bytes")
    source = dataset.splits()["train"].only(("caption",))
    drawn = {draw: source.take(torch.tensor([0, 5]), draw)["caption"].long() for draw in range(30)}
    seen = [dataset.spec.caption.draw(caption) for caption in drawn.values()]
    assert {first for first, _ in seen} == {"one", "two", "three"}
    assert {second for _, second in seen} == {"nothing"}
    assert torch.equal(source.take(torch.tensor([5, 0]), 7)["caption"].flip(0).long(), drawn[7])  # whatever the batch


def test_words_are_learned_from_images_that_are_not_tested_on(load):
    with_test = load(images(5, "train/") | texts(5, "train/") | {"test/9.png": png(picture(9)), "test/9.txt": "unseen"})
    assert "red" in with_test.tokenizer.words
    assert "unseen" not in with_test.tokenizer.words


def test_without_a_test_folder_words_of_tested_images_are_unknown(load):
    dataset = load(images(30) | {f"{number}.txt": f"word{number}" for number in range(30)})
    held = SplitSettings(batch_size=4).split(dataset)["test"].index
    words = {dataset.captions["train"][number][0] for number in held.tolist()}
    assert words
    assert words.isdisjoint(dataset.tokenizer.words)
    assert len(dataset.tokenizer.words) == 30 - len(words)


def test_long_captions_are_cut_and_it_is_said(load):
    dataset = load(images() | texts(), length=8, tokens="characters")
    assert dataset.spec.caption.length == 8
    check(dataset, number=1, text="a smal")
    assert dataset.notes() == ["5 of 6 captions are longer than 8 tokens and are cut"]


def test_all_faults_are_reported_at_once_or_left_out(load):
    files = images(6) | texts(4) | {"4.txt": " \n"}
    with pytest.raises(UserError) as caught:
        load(files).splits()
    message = str(caught.value)
    assert "\n" not in message
    assert "4.txt: caption: the text is empty; 5.png: caption: there is no text of this name" in message
    dataset = load(files, on_error="skip")
    assert len(dataset.splits()["train"]) == 4
    assert any("2 images with faulty annotations are left out" in note for note in dataset.notes())


@pytest.mark.parametrize(
    ("files", "match"),
    [
        (images(), "holds no captions"),
        ({"1.txt": "a"}, "holds no image with a caption"),
        (images() | {"c.json": "{"}, r"c\.json: no JSON that can be read"),
        (images() | {"c.json": coco(["7.png"], [(0, "a")])}, r"c\.json: annotations\[0\]: there is no image 7\.png"),
        (images() | {"c.json": coco(["0.png"], [(3, "a")])}, r"annotations\[0\]\.image_id: there is no image 3"),
        (images() | {"c.json": coco(["0.png"], [(0, 5)])}, r"annotations\[0\]\.caption: must be a text, got 5"),
        (images() | {"c.csv": "a,b\n1,2"}, r"c\.csv: its first line must name the columns image and caption, has a, b"),
        (images() | {"c.csv": "image,caption\n0.png,a,b"}, r"c\.csv: line 2: has 3 columns, the first line has 2"),
        (images() | {"c.csv": "image,caption\n0.png, "}, r"c\.csv: line 2: the caption is empty"),
        (images() | {"c.csv": 'image,caption\n0.png,"a'}, r"c\.csv: line 2 is no CSV"),
        (images() | {"0.txt": b"\xff\xfe"}, r"0\.txt: no text that can be read"),
        (images(2, "test/") | texts(2, "test/"), "holds test but no train"),
    ],
)
def test_what_cannot_be_read_is_one_line(load, files, match):
    with pytest.raises(UserError, match=rf"^dataset\.path: .*{match}") as caught:
        load(files).splits()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "name"), [({"length": 2}, "length"), ({"tokens": "x"}, "tokens"), ({"size": 0}, "size")]
)
def test_values_out_of_range_name_their_argument(given, name):
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        CaptionedFolder(path="x", **given)


def test_a_changed_caption_changes_the_fingerprint(tmp_path):
    found = []
    for number, text in enumerate(("one", "two")):
        path = write_folder(tmp_path / str(number), images() | texts() | {"0.txt": text})
        found.append(CaptionedFolder(path=path, root=tmp_path / "cache").fingerprint()["samples"])
    assert [name for name in found[0] if found[0][name] != found[1][name]] == ["train: 0.png"]


def test_faulty_files_end_a_command_with_one_line_and_no_run(tmp_path, dlx_call, here):
    write_folder(here / "birds", images())
    words = ("model=text2image", "data=captioned_folder", "data.path=birds", f"data.root={tmp_path}")
    call = dlx_call("train", *words)
    assert call.code == 2
    assert call.err.startswith(f"error: dataset.path: {here / 'birds'}: holds no captions")
    assert call.err.count("\n") == 1
    assert not (here / "outputs").exists()


def test_a_text_to_image_run_of_a_folder(tmp_path, dlx_call, here):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    files = {f"{n}.png": png(one) for n, one in enumerate(pixels)}
    write_folder(here / "birds", files | {f"{n}.txt": TEXTS[n % 6] for n in range(40)})
    small = ("model.generator_width=4", "model.discriminator_width=4", "model.text_dim=8", "data.batch_size=8")
    words = ("model=text2image", "data=captioned_folder", "data.path=birds", f"data.root={tmp_path}", *small)
    call = dlx_call("train", *words, "trainer.max_steps=3", "name=b", "--json")
    assert call.code == 0, call.err
    call = dlx_call("sample", "b", "--prompt", "a bird", "-n", "2", "--json")
    assert call.code == 0, call.err
