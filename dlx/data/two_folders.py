"""TwoFolders: a person's own images of two sides, in a directory or an archive: folders A and B, of which no image of
the one belongs to one of the other."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import torch
from torch import Tensor

from dlx.data.dataset import Dataset, TensorSource, Unpaired
from dlx.data.image_folder import SPLITS, ImageFolder, split_of
from dlx.tasks.spec import Image, Match, MatchedImages

SIDES = "ab"


class TwoFolders(Dataset):
    """Images in folders of the names `a` and `b`, directly or in train, and test or val; or in trainA, trainB, testA,
    testB.

    path: a directory or archive (.tar, also compressed, or .zip). paired: in val and test images of one name (but for
    an ending _A and _B) show the same, so that the error of a translation is measured; training knows no pairs. The
    others are as ImageFolder has them.
    """

    def __init__(
        self,
        *,
        path: Path,
        a: str = "A",
        b: str = "B",
        paired: bool = False,
        size: int | tuple[int, int] | None = None,
        channels: Literal[1, 3] = 3,
        background: Literal["white", "black"] = "white",
        on_error: Literal["raise", "skip"] = "raise",
        root: Path | None = None,
    ) -> None:
        if not a or not b or a.lower() == b.lower():
            raise ValueError(f"b must be another folder than a, got {b!r}")
        self.paired = paired
        self.images = _Sides((a, b), path=path, size=size, channels=channels, background=background, on_error=on_error,
                             root=root)  # fmt: skip

    @cached_property
    def spec(self) -> MatchedImages:  # type: ignore[override]
        image: Image = self.images.spec.image
        matches = {f"match_{side}": Match(of=f"image_{side}", known=self.paired) for side in SIDES}
        return MatchedImages(image_a=image, image_b=image, **matches)

    def splits(self) -> dict[str, Unpaired]:
        found = {}
        for name, source in self.images.splits().items():
            first = int((source.tensors["label"] == 0).sum())  # those of side a come first
            keys = list(source.keys or ())
            matches = self._matches(name, keys[:first], keys[first:])
            sides = []
            for side, rows, match in zip(SIDES, (slice(first), slice(first, None)), matches, strict=True):
                part = TensorSource(**{f"image_{side}": source.tensors["image"][rows], f"match_{side}": match})
                part.keys = keys[rows]
                sides.append(part)
            found[name] = Unpaired(*sides)
        return found

    def _matches(self, split: str, a: list[str], b: list[str]) -> tuple[Tensor, Tensor]:
        """Numbers of the images, equal where they show the same."""
        if not self.paired or split == "train":
            return torch.arange(len(a)), -1 - torch.arange(len(b))
        number = {_stem(name): n for n, name in enumerate(a)}
        return torch.arange(len(a)), torch.tensor([number.get(_stem(name), -1 - n) for n, name in enumerate(b)])

    def notes(self) -> list[str]:
        return self.images.notes()

    def fingerprint(self) -> dict[str, Any]:
        return self.images.fingerprint()


def _stem(name: str) -> str:
    return re.sub(r"[ _-][ab]$", "", PurePosixPath(name).stem, flags=re.IGNORECASE)


class _Sides(ImageFolder):
    """The images of both folders, those of the first before those of the second."""

    def __init__(self, folders: tuple[str, str], **settings: Any) -> None:
        super().__init__(**settings)
        self.folders = folders

    @property
    def settings(self) -> str:
        return f"{super().settings} {self.folders}"

    def arrange(self, names: list[str]) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
        splits: dict[str, list[tuple[str, int]]] = {}
        for name in sorted(set(names), key=lambda name: (self._place(name)[1], name)):
            split, side = self._place(name)
            splits.setdefault(split, []).append((name, side))
        if "train" not in splits:
            raise ValueError(f"holds no images in a folder {self.folders[0]} or train{self.folders[0]}")
        for split, members in splits.items():
            for side, folder in enumerate(self.folders):
                if not any(number == side for _, number in members):
                    raise ValueError(f"{split} has no images in a folder {folder}")
        return list(self.folders), splits

    def _place(self, name: str) -> tuple[str, int]:
        """The split and the side of an image. Raises ValueError where its folders say no side."""
        around = PurePosixPath(name).parts[:-1]
        splits = "|".join(SPLITS)
        for number in reversed(range(len(around))):
            for side, folder in enumerate(self.folders):
                match = re.fullmatch(rf"(?:({splits})[ _-]?)?{re.escape(folder)}", around[number], re.IGNORECASE)
                if match and match[1]:
                    return SPLITS[match[1].lower()], side
                if match:
                    return next(filter(None, map(split_of, reversed(around[:number]))), "train"), side
        raise ValueError(f"{name} is in no folder {' or '.join(self.folders)}")
