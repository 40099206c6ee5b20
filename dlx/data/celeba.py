"""CelebA (Liu et al. 2015, arXiv:1411.7766): 202,599 faces with 40 attributes each, in the files of its makers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import torch

from dlx.config.errors import UserError
from dlx.config.groups import nearest
from dlx.data.archive import Files
from dlx.data.dataset import Dataset, TensorSource
from dlx.data.image_folder import ImageFolder
from dlx.tasks.spec import AttributedImages, Attributes

TABLE, PARTITION = "list_attr_celeba", "list_eval_partition"
PARTS = {"0": "train", "1": "val", "2": "test"}
STARGAN = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")


class CelebA(Dataset):
    """The images in folders below `path` and list_attr_celeba.txt; list_eval_partition.txt gives the splits where it is
    there, and else the files' names. Both may be .csv files. Images that the table has not are left out.

    path: a directory or archive (.tar, also compressed, or .zip). attributes: names of those that are read, in this
    order; null: all. size: of the images; the middle is cut out and scaled. The others are as ImageFolder has them.
    """

    def __init__(
        self,
        *,
        path: Path,
        attributes: Sequence[str] | None = STARGAN,
        size: int | tuple[int, int] = 128,
        on_error: Literal["raise", "skip"] = "raise",
        root: Path | None = None,
    ) -> None:
        if attributes is not None and (not attributes or len(set(attributes)) < len(attributes)):
            raise ValueError(f"attributes must be distinct and at least one, got {list(attributes)}")
        self.images = _Faces(path=path, size=size, on_error=on_error, root=root)
        self.wanted = attributes

    @cached_property
    def _columns(self) -> tuple[tuple[str, ...], list[int]]:
        """The attributes that are read, and their columns. Raises UserError."""
        names, _ = self.images.table
        wanted = tuple(names) if self.wanted is None else tuple(self.wanted)
        for name in wanted:
            if name not in names:
                known = nearest(name, names) or f"; it has {', '.join(names)}"
                raise UserError(f"dataset.attributes: {TABLE} has no {name}{known}")
        return wanted, [names.index(name) for name in wanted]

    @cached_property
    def spec(self) -> AttributedImages:  # type: ignore[override]
        names, _ = self._columns  # before images are decoded, which takes long
        return AttributedImages(image=self.images.spec.image, attributes=Attributes(names=names))

    def splits(self) -> dict[str, TensorSource]:
        _, columns = self._columns
        _, rows = self.images.table
        found = {}
        for name, source in self.images.splits().items():
            keys = source.keys or []
            own = torch.tensor([[rows[PurePosixPath(key).name][column] for column in columns] for key in keys])
            found[name] = TensorSource(image=source.tensors["image"], attributes=own.float())
            found[name].keys = keys
        return found

    def notes(self) -> list[str]:
        return self.images.notes()

    def fingerprint(self) -> dict[str, Any]:
        return self.images.fingerprint()


class _Faces(ImageFolder):
    """All faces as one class."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.files = Files(self.path, texts=(".txt", ".csv"))

    @property
    def settings(self) -> str:
        return f"{super().settings} celeba"

    @cached_property
    def table(self) -> tuple[list[str], dict[str, list[int]]]:
        """Names of attributes, and 0 or 1 for each by image. Raises UserError."""
        with self.files.naming_path():
            lines = self._lines(TABLE)
            if lines is None:
                raise ValueError(f"holds no {TABLE}.txt or {TABLE}.csv")
            heads = [
                n for n, line in enumerate(lines[:2]) if len(line) > 1 or not line[0].isdecimal()
            ]  # the .txt begins with a number of images
            if not heads:
                raise ValueError(f"{TABLE} begins with no names of attributes")
            width = len(lines[heads[0] + 1]) - 1 if len(lines) > heads[0] + 1 else 0
            names = lines[heads[0]][-width:] if width else []
            rows = {}
            for number, line in enumerate(lines[heads[0] + 1 :], heads[0] + 2):
                if len(line) != len(names) + 1 or not set(line[1:]) <= {"1", "-1", "0"}:
                    raise ValueError(f"{TABLE}, line {number}: is no image with {len(names)} of 1 and -1")
                rows[line[0]] = [int(value == "1") for value in line[1:]]
        return names, rows

    def _lines(self, stem: str) -> list[list[str]] | None:
        """The words of each line of a table that are not empty; None where it is not there."""
        for name, content in self.files.texts.items():
            if PurePosixPath(name).stem == stem:
                text = content.decode(errors="replace").replace(",", " ")
                return [words for line in text.splitlines() if (words := line.split())]
        return None

    def arrange(self, names: list[str]) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
        _, rows = self.table
        known = [name for name in self.files.images if PurePosixPath(name).name in rows]
        if not known:
            raise ValueError(f"holds no image that {TABLE} has")
        partition = dict(line for line in self._lines(PARTITION) or [] if len(line) == 2)
        splits: dict[str, list[tuple[str, int]]] = {}
        for name in sorted(known):
            split = PARTS.get(partition.get(PurePosixPath(name).name, "0"), "train")
            splits.setdefault(split, []).append((name, 0))
        return ["face"], splits
