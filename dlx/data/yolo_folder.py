"""YOLOFolder: images with boxes in text files of YOLO's form, a line `class cx cy width height` for each object."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml

from dlx.data.annotated import AnnotatedImages, Layout, Object, Sample
from dlx.data.annotations import Faults, counted
from dlx.data.archive import suffix_of
from dlx.data.layouts import CLASSES, check_names, class_names, partners
from dlx.tasks.spec import SizedBoxedImages

SETTINGS = (".yaml", ".yml")


class YOLOFolder(AnnotatedImages):
    """Images in `images` and a text file of the same name in `labels`, directly or with train, val and test around or
    in these folders. A line is an object: its class's number from 0, and the middle, width and height of its box in
    shares of the image's width and height. An image without a text file has no objects.

    path: a directory or archive (.tar, also compressed, or .zip). images, labels: names of the two folders. names: of
    the classes; None is `names` in a .yaml file, or the lines of classes.txt, or else the numbers that are found. size:
    a side or [height, width] that whole photos are scaled to fit into; None is their own. Photos that differ in size
    are padded to the largest. The others are as AnnotatedImages has them; skip leaves out the faulty object alone.
    """

    texts = (".txt", *SETTINGS)

    def __init__(
        self,
        *,
        path: Path,
        images: str = "images",
        labels: str = "labels",
        names: Sequence[str] | None = None,
        size: int | tuple[int, int] | None = None,
        channels: Literal[1, 3] = 3,
        background: Literal["white", "black"] = "white",
        on_error: Literal["raise", "skip"] = "raise",
        decode: Literal["once", "on_demand"] = "once",
        root: Path | None = None,
    ) -> None:
        super().__init__(
            path=path, size=size, channels=channels, background=background, on_error=on_error, decode=decode, root=root
        )
        self.images, self.labels, self.names = images, labels, check_names(names)

    def settings(self) -> dict[str, Any]:
        return {"images": self.images, "labels": self.labels, "names": self.names}

    @cached_property
    def spec(self) -> SizedBoxedImages:  # type: ignore[override]
        return SizedBoxedImages(image=self.image_entry, size=self.size_entry, boxes=self.boxes_entry)

    def layout(self, faults: Faults) -> Layout:
        texts = self.files.texts
        labels = [name for name in texts if suffix_of(name) == ".txt" and PurePosixPath(name).name != CLASSES]
        pairs = partners(self.files, labels, self.images, self.labels, faults)
        names = self.names or yaml_names(texts) or class_names(texts)
        splits: dict[str, list[Sample]] = {}
        for split, image, file in pairs:
            objects: list[Object] = []
            if file is not None:
                try:
                    objects = read_labels(file, texts[file], None if names is None else len(names), faults)
                except ValueError as error:
                    faults.add(file, "text", str(error), of="image")
                    continue
            splits.setdefault(split, []).append(Sample(image, file or image, objects))
        if names is None:
            known = [thing.label for part in splits.values() for one in part for thing in one.objects]
            names = tuple(str(number) for number in range(max(known, default=-1) + 1))
        bare = sum(file is None for _, _, file in pairs)
        return Layout(names, splits, [f"{counted(bare, 'image')} without a file in {self.labels}"] if bare else [])


MOST_CLASSES = 10_000  # numbers that are not named


def read_labels(name: str, content: bytes, classes: int | None, faults: Faults) -> list[Object]:
    """The objects of a text file; what is none is a fault. Raises ValueError for what is no text."""
    objects = []
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"cannot be read ({error})") from None
    for number, line in enumerate(lines, 1):
        values = line.split()
        field = f"line {number}"
        if not values:
            continue
        if len(values) != 5:
            faults.add(name, field, f"must be a class and four numbers, got {len(values)} values", of="object")
            continue
        if not values[0].isdecimal() or int(values[0]) >= (classes or MOST_CLASSES):
            among = f", there are {classes} classes" if classes else ""
            faults.add(name, f"{field}, class", f"unknown class {values[0]!r}{among}", of="object")
            continue
        try:
            cx, cy, width, height = map(float, values[1:])
        except ValueError:
            faults.add(name, f"{field}, box", f"{' '.join(values[1:])!r} are no four numbers", of="object")
            continue
        box = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
        objects.append(Object(f"{field}, box", box, int(values[0]), is_share=True))
    return objects


def yaml_names(texts: dict[str, bytes]) -> tuple[str, ...] | None:
    """`names` of the outermost .yaml file that has them: a list, or a mapping from 0 on. Raises ValueError."""
    files = sorted((name for name in texts if suffix_of(name) in SETTINGS), key=lambda name: (name.count("/"), name))
    for file in files:
        try:
            content = yaml.load(texts[file], Loader=yaml.BaseLoader)  # a safe one, which makes texts of all values
        except (yaml.YAMLError, RecursionError) as error:
            raise ValueError(f"{file}: no YAML that can be read ({' '.join(str(error).split())})") from None
        names = content.get("names") if isinstance(content, dict) else None
        if names is None:
            continue
        if isinstance(names, dict):
            numbers = [str(number) for number in range(len(names))]
            names = [names.get(number) for number in numbers]
        if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
            raise ValueError(f"{file}: names must be texts, a list or numbered from 0")
        try:
            return check_names(names)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
    return None
