"""Every option in conf/ is found and tried: a dry run, some steps, a kill, a resume to the same bits.

A new option needs no line here. Models are in test_every_model.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_ends import assert_same_end

from dlx.config import compose
from dlx.config.build import find_class
from dlx.config.groups import options
from dlx.config.signature import read
from dlx.data.dataset import Dataset, TensorSource

STEPS = ("trainer.max_steps=4", "trainer.log_every=1", "trainer.validate_every=2", "data.batch_size=8")
SMALLER = {
    "densenet": ["model.depth=16"], "alexnet": ["model.width=0.125"], "vgg": ["model.width=0.25"],
    "googlenet": ["model.width=0.25"], "vit": ["model.depth=2"], "torchvision": ["model.arch=shufflenet_v2_x0_5"],
    "timm": ["model.arch=test_resnet"],
    "stdlib_text": ["data.size=20000"], "markov_source": ["data.size=4000"], "dates": ["data.samples=100"],
    "reverse": ["data.samples=100"], "copy": ["data.samples=100", "data.delay=5"], "parity": ["data.samples=100"],
    "adding": ["data.samples=100"], "ar_process": ["data.size=1000", "data.length=16"],
    "stdlib_modules": ["data.lines=30"], "sentence_pairs": ["data.length=32"],
    "rnn": ["model.hidden=8"], "lstm": ["model.hidden=8"], "gru": ["model.hidden=8"],
    "latent_autoregressive": ["model.state=8"],
    "gpt": ["model.dim=16", "model.depth=1", "data.size=40000"],
    "bert": ["model.dim=16", "model.depth=1", "data.size=40000"], "bert_classifier": ["data.lines=40"],
    "seq2seq": ["model.hidden=8", "model.embed_dim=8"],
    "transformer": ["model.dim=16", "model.depth=1", "data.samples=200"],
    "nade": ["model.hidden=8"], "rnade": ["model.hidden=8", "data.samples=200"], "toy_density": ["data.samples=200"],
    "pixel_cnn": ["model.hidden=8", "model.depth=1"], "pixel_rnn": ["model.hidden=8", "model.depth=1"],
    "progressive_gan": ["model.width=16", "model.latent_dim=4"], "dvae": ["model.width=8", "model.codes=8"],
    "dalle": [
        "model.dim=16", "model.depth=1", "model.heads=2", "model.codes=8", "model.code_width=8", "data.samples=60",
    ],
    "vae": ["model.hidden=[8]", "model.draws=4"], "aae": ["model.hidden=[8]", "model.discriminator=[8]"],
    "infogan": ["model.hidden=[8]"],
    "masked_folder": ["model.units=16", "model.trunk.width=0.125"],
    "camvid": ["model.units=16", "model.trunk.width=0.125"],
    "voc_segmentation": ["model.units=16", "model.trunk.width=0.125"],
    "voc": ["model.by=gradient", "data.size=8", "data.channels=1"],
    "coco": ["model.by=gradient", "data.size=8", "data.channels=1"],
    "yolo_folder": ["model.by=gradient", "data.size=8", "data.channels=1"],
    "digit_scenes": ["data.samples=60"], "shapes": ["data.samples=60", "data.side=32"],
    "fcn": ["model.units=16", "model.trunk.width=0.125", "data.samples=60", "data.side=32"],
    "yolo": ["data.samples=60", "data.side=48"],
    "fast_rcnn": ["model.units=16", "model.trunk.width=0.125", "data.samples=60", "data.side=64"],
    "sppnet": ["model.units=16", "model.trunk.width=0.125", "data.samples=60", "data.side=64"],
    "rcnn": ["model.units=16", "data.samples=60", "data.side=48"],
    "recipe/proposed_shapes": ["data.samples=60", "data.side=48"],
    "cyclegan": ["model.width=4", "model.discriminator_width=4", "model.blocks=1", "data.samples=60", "data.side=16"],
    "stargan": ["model.width=4", "model.discriminator_width=4", "data.samples=60"],
    "two_domains": ["model.width=4", "model.discriminator_width=4", "data.samples=60"],
    "two_folders": ["model.width=4", "model.discriminator_width=4", "data.size=16"],
    "many_domains": ["data.samples=60"],
    "celeba": ["model.width=4", "model.discriminator_width=4", "data.size=16"],
    "faster_rcnn": ["model.units=16", "model.trunk.width=0.125", "data.samples=60", "data.side=64"],
    "text2image": ["model.generator_width=4", "model.discriminator_width=4", "data.samples=60"],
    "captioned_folder": ["model.generator_width=4", "model.discriminator_width=4", "data.size=16"],
    "captioned_shapes": ["data.samples=60"],
    "puzzle_gan": ["model.width=4", "data.samples=60"],
    "recipe/puzzle_gan": ["data.samples=60"],
    "simclr": ["data.samples=60", "data.side=16"],
}  # fmt: skip
LINES = [f"line {n} of a text, to be read: {n * n}" for n in range(100)]
PAIRS = [(line, line[::-1]) for line in LINES]
PUBLISHED = {
    "TinyShakespeare": ("texts", {"text": "\n".join(LINES)}),
    "WikiText": ("texts", dict.fromkeys(("train", "val", "test"), "\n".join(LINES))),
    "Multi30k": ("read", {"train": PAIRS[:80], "val": PAIRS[80:90], "test": PAIRS[90:]}),
}
"""What stands in for texts that are downloaded: the method that reads them, and its output."""
GROUPS = ("dataset", "optimizer", "scheduler", "regularization")
OPTIONS = [(group, name) for group in GROUPS for name in options(group) if "/" not in name]


def write_scene(folder: Path, number: int, photo: Image.Image, classes: Image.Image) -> None:
    """A photo with a label image and a box, in all layouts of annotations that there are."""
    photo, classes = (image.resize((48, 40), Image.Resampling.NEAREST) for image in (photo, classes))
    for name, image in (("images", photo), ("labels", classes), ("JPEGImages", photo), ("SegmentationClass", classes)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        image.save(folder / name / f"{number}.png")
    corners = "<xmin>3</xmin><ymin>4</ymin><xmax>30</xmax><ymax>40</ymax>"
    (folder / "Annotations").mkdir(exist_ok=True)
    (folder / "Annotations" / f"{number}.xml").write_text(
        f"<annotation><object><name>cat</name><bndbox>{corners}</bndbox></object></annotation>"
    )
    (folder / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.25 0.75")
    images = [{"id": number, "file_name": f"images/{number}.png"} for number in range(number + 1)]
    boxes = [{"image_id": number, "category_id": 1, "bbox": [3, 4, 30, 30]} for number in range(number + 1)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "instances.json").write_text(json.dumps(content))


def write_face(here: Path, number: int, photo: Image.Image) -> None:
    """A photo of one of two sides, and one with attributes."""
    for path in (here / "sides" / "AB"[number % 2], here / "faces"):
        path.mkdir(parents=True, exist_ok=True)
        photo.save(path / f"{number}.png")
    names = ["Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young"]
    signs = " ".join("1" if number >> bit & 1 else "-1" for bit in range(len(names)))
    with (here / "faces" / "list_attr_celeba.txt").open("a") as table:
        table.write(f"{'' if number else ' '.join(names) + chr(10)}{number}.png {signs}\n")


@pytest.fixture
def data(here, monkeypatch):
    """What a dataset reads: files of two classes, and, in place of what is downloaded, examples of its spec."""
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (80, 10, 12, 3), dtype=np.uint8)):
        path = here / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        write_face(here, number, Image.fromarray(pixels))
        write_scene(here / "scenes", number, Image.fromarray(pixels), Image.fromarray(pixels[..., 0] % 11))
        captioned = here / "captioned" / f"{number}.png"
        captioned.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(captioned)
        captioned.with_suffix(".txt").write_text(LINES[number])
    (here / "words.txt").write_text("\n".join(LINES))
    (here / "pairs.tsv").write_text("\n".join("\t".join(pair) for pair in PAIRS))
    rows = [f'"{line}",{"even" if number % 2 else "odd"}' for number, line in enumerate(LINES)]
    (here / "texts.csv").write_text("\n".join(["text,label", *rows]))

    def stand_in(target: str) -> None:
        cls = find_class(target, base=Dataset)
        if cls.__name__ in PUBLISHED:
            method, output = PUBLISHED[cls.__name__]
            monkeypatch.setattr(cls, method, lambda self: output)
        elif "download" in read(target).params:
            source = TensorSource(**{name: entry.example(80) for name, entry in cls.spec.entries.items()})
            monkeypatch.setattr(cls, "splits", lambda self: {"train": source})

    return stand_in


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_it_trains_and_is_resumed_to_the_same_bits(group, name, data, alone, dlx_call, sigterm_at, request):
    if group != "dataset":  # others have no pictures of their own
        request.getfixturevalue("no_pictures")
    words = [*alone(group, name), *SMALLER.get(name, ()), *STEPS]
    if "model=mlp" in words:
        words.append("model.hidden=[8]")
    data(compose(words)["dataset"]["_target_"])

    def run(*command: str, code: int = 0) -> Path:
        call = dlx_call(*command)
        assert call.code == code, call.err
        return Path(json.loads(call.out.splitlines()[-1])["run"])

    if group == "dataset":
        planned = dlx_call("train", *words, "--dry-run")
        assert planned.code == 0, planned.err
        assert not Path("outputs").exists()
    whole = run("train", *words, "--json")
    with sigterm_at(3):
        cut = run("train", *words, "--json", code=143)
    assert_same_end(run("resume", str(cut), "--json"), whole)


def test_each_exception_is_an_option():
    assert set(SMALLER) <= {*options("model"), *options("dataset")}


def test_every_method_has_a_file_of_tests():
    files = {path.stem for path in (Path(__file__).parent / "methods").glob("test_*.py")}
    assert {f"test_{name}" for name in options("method")} <= files
