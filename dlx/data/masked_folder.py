"""MaskedFolder: images and label images with equal names, in two folders; what each pixel is, is a number of its label
image's palette or gray levels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from dlx.config import checks
from dlx.data.annotated import AnnotatedImages, Layout, Sample
from dlx.data.annotations import Faults
from dlx.data.archive import suffix_of
from dlx.data.layouts import check_names, class_names, partners
from dlx.tasks.spec import MaskedImages

LABELS = (".png", ".bmp", ".gif", ".tif", ".tiff")  # JPEG would change the numbers


class MaskedFolder(AnnotatedImages):
    """Images and label images with the same name but for its ending, in the folders `images` and `labels`, which lie
    directly in the path, or in train, val and test below it (or these in them).

    path: a directory or archive (.tar, also compressed, or .zip). images, labels: names of the two folders. names: of
    the classes, in the order of their numbers, void left out; None is a file classes.txt with one a line, or else the
    numbers that are found. void: the number of pixels that do not count. size: a side or [height, width] that whole
    pictures are scaled to, masks by the nearest pixel; None is their own where all have one size, else the median
    height and width. on_error: raise reports all faults at once; skip leaves those images out. The others are as
    AnnotatedImages has them.
    """

    texts = (".txt",)
    whole = "stretched"

    def __init__(
        self,
        *,
        path: Path,
        images: str = "images",
        labels: str = "labels",
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
        checks.between("[0, 255]", void=void)
        if images == labels:
            raise ValueError(f"labels must be another folder than images, got {labels!r}")
        self.images, self.labels, self.names, self.void = images, labels, check_names(names), void

    def settings(self) -> dict[str, Any]:
        return {"images": self.images, "labels": self.labels, "names": self.names, "void": self.void}

    @cached_property
    def spec(self) -> MaskedImages:  # type: ignore[override]
        return MaskedImages(image=self.image_entry, mask=self.mask_entry)

    def layout(self, faults: Faults) -> Layout:
        labels = [name for name in self.files.images if suffix_of(name) in LABELS]
        splits: dict[str, list[Sample]] = {}
        for split, image, mask in partners(self.files, labels, self.images, self.labels, faults):
            if mask is None:
                faults.add(image, self.labels, "there is no label image of this name", of="image")
            else:
                splits.setdefault(split, []).append(Sample(image=image, file=mask, mask=mask))
        return Layout(self.names or class_names(self.files.texts), splits)
