"""COCO: images with boxes in COCO's instances JSON (Lin et al. 2014), which many annotation tools write."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from dlx.data.annotated import AnnotatedImages, Layout, Object, Sample
from dlx.data.annotations import Box, Faults, counted
from dlx.data.image_folder import split_of
from dlx.data.layouts import check_names, splits_of
from dlx.tasks.spec import SizedBoxedImages

PARTS = ("images", "annotations", "categories")
INSTANCES = "instances"  # what the names of COCO's own files with boxes begin with


class COCO(AnnotatedImages):
    """Images with boxes in .json files, one for each split: `train`, `val` or `test` is a word of the file's name
    (instances_train2017.json) or its folder's. One file without such a word is all there is.

    path: a directory or archive (.tar, also compressed, or .zip) with these files and the images, which are found by
    their `file_name`. Where there are files instances_*.json, others are not read. Regions of crowds (`iscrowd`) are
    left out, and a note says how many. size: a side or [height, width] that whole photos are scaled to fit into; None
    is their own. Photos that differ in size are padded to the largest. The others are as AnnotatedImages has them; skip
    leaves out the faulty object alone.
    """

    texts = (".json",)

    @cached_property
    def spec(self) -> SizedBoxedImages:  # type: ignore[override]
        return SizedBoxedImages(image=self.image_entry, size=self.size_entry, boxes=self.boxes_entry)

    def layout(self, faults: Faults) -> Layout:
        files = self._instances()
        split_at = splits_of({name: words_of(name) for name in files})
        if len(set(split_at.values())) < len(files):
            raise ValueError(f"several files are for one split: {', '.join(sorted(files))}")
        categories: dict[Any, str] = {}
        for name, content in files.items():
            for number, one in enumerate(content["categories"]):
                known = categories.setdefault(*_category(one, f"{name}: categories[{number}]"))
                if known != one["name"]:
                    raise ValueError(f"{name}: categories[{number}]: {one['name']!r} is {known!r} in another file")
        label_of = {number: label for label, number in enumerate(sorted(categories))}
        try:
            names = check_names([categories[number] for number in label_of])
        except ValueError as error:
            raise ValueError(f"{next(iter(files))}: categories: {error}") from None
        splits: dict[str, list[Sample]] = {}
        crowds = 0
        for name, content in files.items():
            split = split_at[name]
            splits[split], left_out = self._samples(name, split, content, label_of, faults)
            crowds += left_out
        notes = [f"{counted(crowds, 'region')} of crowds left out"] if crowds else []
        return Layout(names, splits, notes, ids=tuple(label_of))

    def _instances(self) -> dict[str, dict[str, Any]]:
        """The files that hold images, annotations and categories. Raises ValueError for one that is no JSON."""
        texts = self.files.texts
        own = [name for name in texts if PurePosixPath(name).name.startswith(INSTANCES)]
        found = {}
        for name in sorted(own or texts):
            try:
                content = json.loads(texts[name])
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{name}: no JSON that can be read ({error})") from None
            if isinstance(content, dict) and all(isinstance(content.get(part), list) for part in PARTS):
                found[name] = content
        if not found:
            raise ValueError(f"holds no .json with lists of {', '.join(PARTS)}")
        return found

    @cached_property
    def _image_of(self) -> dict[str, list[str]]:
        """The images by the last part of their names."""
        found = defaultdict(list)
        for name in self.files.images:
            found[PurePosixPath(name).name].append(name)
        return found

    def _find(self, file_name: str, file: str, split: str) -> str | None:
        """The image of that name: of several the one below the file's folder, else the one in a folder of the split."""
        parts = PurePosixPath(file_name).parts
        found = [n for n in self._image_of.get(parts[-1], ()) if PurePosixPath(n).parts[-len(parts) :] == parts]
        below = [name for name in found if PurePosixPath(name).is_relative_to(PurePosixPath(file).parent)]
        alike = [name for name in found if split in map(split_of, words_of(str(PurePosixPath(name).parent)))]
        return next((some[0] for some in (found, below, alike) if len(some) == 1), None)

    def _samples(
        self, file: str, split: str, content: dict[str, Any], label_of: dict[Any, int], faults: Faults
    ) -> tuple[list[Sample], int]:
        """The images of a file with their objects, and how many crowds are left out."""
        samples: dict[Any, Sample] = {}
        missing = set()
        for number, one in enumerate(content["images"]):
            field = f"images[{number}]"
            key, file_name = (one.get(name) if isinstance(one, dict) else None for name in ("id", "file_name"))
            if not isinstance(key, int | str) or not isinstance(file_name, str) or not PurePosixPath(file_name).name:
                faults.add(file, field, "has no id or no file_name", of="image")
                continue
            if key in samples or key in missing:
                faults.add(file, f"{field}.id", f"{key} is there twice", of="image")
            elif (image := self._find(file_name, file, split)) is None:
                missing.add(key)
                faults.add(file, f"{field}.file_name", f"there is no image {file_name}, or several", of="image")
            else:
                samples[key] = Sample(image, file)
        crowds = 0
        for number, one in enumerate(content["annotations"]):
            field = f"annotations[{number}]"
            if not isinstance(one, dict):
                faults.add(file, field, "is no object of names and values", of="object")
                continue
            crowd, key = one.get("iscrowd"), one.get("image_id")
            if crowd:
                crowds += 1
            elif key in missing:
                continue
            elif not isinstance(key, int | str) or key not in samples:
                faults.add(file, f"{field}.image_id", f"there is no image {key!r}", of="object")
            elif (label := _label(one.get("category_id"), label_of)) is None:
                faults.add(file, f"{field}.category_id", f"unknown class {one.get('category_id')!r}", of="object")
            elif (box := _corners(one.get("bbox"))) is None:
                faults.add(file, f"{field}.bbox", f"must be four numbers, got {one.get('bbox')!r:.60}", of="object")
            else:
                samples[key].objects.append(Object(f"{field}.bbox", box, label))
        return list(samples.values()), crowds


def words_of(name: str) -> list[str]:
    """The words of a path: those of the file's name first, then those of its folders from the innermost one."""
    parts = [re.findall("[a-z]+", part.lower()) for part in reversed(PurePosixPath(name).parts)]
    return [word for words in parts for word in words]


def _category(one: Any, where: str) -> tuple[Any, str]:
    """Its number and name. Raises ValueError for what is no category."""
    if not isinstance(one, dict) or type(one.get("id")) is not int or not isinstance(one.get("name"), str):
        raise ValueError(f"{where}: must have a number `id` and a text `name`")
    return one["id"], one["name"]


def _label(category: Any, label_of: dict[Any, int]) -> int | None:
    return label_of.get(category) if type(category) is int else None


def _corners(bbox: Any) -> Box | None:
    """Of left, top, width and height; None for what is none."""
    if not isinstance(bbox, list) or len(bbox) != 4 or any(type(value) not in (int, float) for value in bbox):
        return None
    x, y, width, height = map(float, bbox)
    return x, y, x + width, y + height
