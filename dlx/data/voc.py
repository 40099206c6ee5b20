"""VOC: images in the layout of PASCAL VOC (Everingham et al. 2010), with boxes, or with a class for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from xml.etree import ElementTree

from dlx.config import checks
from dlx.data.annotated import AnnotatedImages, Layout, Object, Sample
from dlx.data.annotations import Box, Faults, counted
from dlx.data.archive import SUFFIXES, suffix_of
from dlx.data.layouts import by_key, check_names, text_lines
from dlx.tasks.spec import SizedBoxedImages, SizedMaskedImages

ANNOTATIONS, IMAGES, MASKS, SETS = "Annotations", "JPEGImages", "SegmentationClass", "ImageSets"
CORNERS = ("xmin", "ymin", "xmax", "ymax")


class _VOC(AnnotatedImages):
    texts = (".xml", ".txt")
    sets: str  # the folder of ImageSets that lists the images
    all_annotated: bool  # whether an image that no list names must be annotated
    train: str

    @cached_property
    def _folder(self) -> PurePosixPath:
        """The folder that holds JPEGImages. Raises ValueError where there is none, or several."""
        inner = {PurePosixPath(name).parent for name in self.files.images}
        folders = sorted({str(folder.parent) for folder in inner if folder.name == IMAGES})
        if not folders:
            raise ValueError(f"holds no images in a folder {IMAGES}")
        if len(folders) > 1:
            raise ValueError(f"holds several sets of images, give one of them: {', '.join(folders)}")
        return PurePosixPath(folders[0])

    def _below(self, folder: str, suffixes: set[str], faults: Faults) -> dict[str, str]:
        """The files of a folder by their stems."""
        paths = [(PurePosixPath(name), name) for name in self.files.names if suffix_of(name) in suffixes]
        inside = self._folder / folder
        return by_key(((path.stem, name) for path, name in paths if path.parent == inside), faults)

    def _listed(self, every: Sequence[str], faults: Faults) -> dict[str, list[tuple[str, str]]]:
        """The images of each split, with the file that lists them; without lists all are for training."""
        lists = self._below(f"{SETS}/{self.sets}", {".txt"}, faults)
        if not lists:
            return {"train": [(stem, f"{SETS}/{self.sets}") for stem in every]}
        if self.train not in lists:
            raise ValueError(f"{self._folder / SETS / self.sets} has no {self.train}.txt")
        wanted = {"train": self.train, "test": "test", **({"val": "val"} if self.train == "train" else {})}
        found: dict[str, list[tuple[str, str]]] = {}
        for split, name in wanted.items():
            if name in lists:
                lines = text_lines(lists[name], self.files.texts[lists[name]])
                found[split] = [(line.split()[0], lists[name]) for line in lines]
        return found

    def _pairs(self, annotations: dict[str, str], kind: str, faults: Faults) -> dict[str, list[tuple[str, str]]]:
        """Of each split the images and their annotation files; what is missing is a fault."""
        images = self._below(IMAGES, SUFFIXES, faults)
        every = {*images, *annotations} if self.all_annotated else annotations
        found: dict[str, list[tuple[str, str]]] = {}
        for split, listed in self._listed(sorted(every), faults).items():
            there = found.setdefault(split, [])
            for stem, file in listed:
                if stem not in images:
                    faults.add(annotations.get(stem, file), "image", f"{IMAGES} has no {stem}", of="image")
                elif stem not in annotations:
                    faults.add(file, stem, f"{kind} has no {stem}", of="image")
                else:
                    there.append((images[stem], annotations[stem]))
        return found


class VOC(_VOC):
    """Images in JPEGImages with boxes in Annotations/NAME.xml, in the splits that ImageSets/Main lists.

    path: a directory or archive (.tar, also compressed, or .zip) that has these folders, at any depth. train: the list
    to train on; with trainval a tenth of it validates. names: of the classes; None is those that are found, by name;
    an object of another class is a fault. difficult: objects that are marked so are left out of all splits, or kept.
    size: a side or [height, width] that whole photos are scaled to fit into; None is their own. Photos that differ in
    size are padded to the largest. The others are as AnnotatedImages has them; skip leaves out the faulty object alone.

    Corners in the files count pixels from 1 and are themselves inside: (1 1 1 1) is the box (0 0 1 1).
    """

    sets, all_annotated = "Main", True

    def __init__(
        self,
        *,
        path: Path,
        train: Literal["train", "trainval"] = "train",
        names: Sequence[str] | None = None,
        difficult: Literal["leave_out", "keep"] = "leave_out",
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
        checks.one_of(("train", "trainval"), train=train)
        checks.one_of(("leave_out", "keep"), difficult=difficult)
        self.train, self.names, self.difficult = train, check_names(names), difficult

    def settings(self) -> dict[str, Any]:
        return {"train": self.train, "names": self.names, "difficult": self.difficult}

    @cached_property
    def spec(self) -> SizedBoxedImages:  # type: ignore[override]
        return SizedBoxedImages(image=self.image_entry, size=self.size_entry, boxes=self.boxes_entry)

    def layout(self, faults: Faults) -> Layout:
        found: dict[str, list[tuple[str, str, list[tuple[str, str, Box]]]]] = {}
        left_out = 0
        for split, pairs in self._pairs(self._below(ANNOTATIONS, {".xml"}, faults), ANNOTATIONS, faults).items():
            there = found.setdefault(split, [])
            for image, file in pairs:
                try:
                    root = parse_xml(self.files.texts[file])
                except ValueError as error:
                    faults.add(file, "XML", str(error), of="image")
                    continue
                things = []
                for number, thing in enumerate(root.iter("object"), 1):
                    if self.difficult == "leave_out" and (thing.findtext("difficult") or "").strip() == "1":
                        left_out += 1
                    elif read := read_object(thing, file, f"object {number}", faults):
                        things.append(read)
                there.append((image, file, things))
        known = sorted({name for part in found.values() for *_, things in part for _, name, _ in things})
        names = self.names or tuple(known)
        splits: dict[str, list[Sample]] = {split: [] for split in found}
        for split, part in found.items():
            for image, file, things in part:
                objects = []
                for field, name, box in things:
                    if name in names:
                        objects.append(Object(f"{field}, bndbox", box, names.index(name)))
                    else:
                        faults.add(file, f"{field}, name", f"unknown class {name!r}", of="object")
                splits[split].append(Sample(image, file, objects))
        notes = [f"{counted(left_out, 'difficult object')} left out (dataset.difficult=keep)"] if left_out else []
        return Layout(names, splits, notes)


class VOCSegmentation(_VOC):
    """Images in JPEGImages with label images in SegmentationClass/NAME.png, in the splits that ImageSets/Segmentation
    lists.

    names: of the classes, by number; None is the numbers that are found. void: the number of pixels that do not count.
    The others are as VOC has them; padding is void.
    """

    sets, all_annotated = "Segmentation", False

    def __init__(
        self,
        *,
        path: Path,
        train: Literal["train", "trainval"] = "train",
        names: Sequence[str] | None = None,
        void: int = 255,
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
        checks.one_of(("train", "trainval"), train=train)
        checks.between("[0, 255]", void=void)
        self.train, self.names, self.void = train, check_names(names), void

    def settings(self) -> dict[str, Any]:
        return {"train": self.train, "names": self.names, "void": self.void}

    @cached_property
    def spec(self) -> SizedMaskedImages:  # type: ignore[override]
        return SizedMaskedImages(image=self.image_entry, size=self.size_entry, mask=self.mask_entry)

    def layout(self, faults: Faults) -> Layout:
        pairs = self._pairs(self._below(MASKS, {".png"}, faults), MASKS, faults)
        return Layout(
            self.names,
            {split: [Sample(image, mask, mask=mask) for image, mask in part] for split, part in pairs.items()},
        )


def parse_xml(content: bytes) -> ElementTree.Element:
    """Raises ValueError for what is no XML, or declares entities, which may grow without end."""
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError("declares a document type, which is not read")
    try:
        return ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"cannot be read ({error})") from None


def read_object(thing: ElementTree.Element, file: str, field: str, faults: Faults) -> tuple[str, str, Box] | None:
    """Field, class and box of an object; None where it has none, which is a fault."""
    name = (thing.findtext("name") or "").strip()
    if not name:
        faults.add(file, f"{field}, name", "is missing", of="object")
        return None
    corners = []
    for key in CORNERS:
        text = (thing.findtext(f"bndbox/{key}") or "").strip()
        try:
            corners.append(float(text))
        except ValueError:
            faults.add(file, f"{field}, {key}", f"{text!r} is no number" if text else "is missing", of="object")
            return None
    x1, y1, x2, y2 = corners
    return field, name, (x1 - 1, y1 - 1, x2, y2)
