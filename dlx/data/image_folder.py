"""ImageFolder: a person's own images, a folder per class, in a directory or an archive (.zip, .tar)."""

from __future__ import annotations

import json
import re
import shutil
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.data.archive import LISTED, SUFFIXES, Files, Seen, as_text
from dlx.data.dataset import Dataset, TensorSource
from dlx.data.files import cached_dir, data_root, read_array
from dlx.tasks.reading import decode_content, image_size
from dlx.tasks.spec import Image, Label, LabeledImages

SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
LARGEST_SIDE = 224  # of the size that is chosen for photos of several sizes
_FORMAT = 3  # of the kept arrays; part of their key


class ImageFolder(Dataset):
    """Images in class folders, either directly or in folders train, and test or val; other files are left alone.

    path: a directory or archive (.tar, also compressed, or .zip). Folders around the class folders are looked through.
    size: of the images, a side or [height, width]; they are scaled, and what sticks out is cut off evenly. None is
    their own where all have one size, else a square of about their shorter sides, at most 224. channels: 3 for RGB, 1
    for gray. background: what transparent pixels lie on. on_error: raise names all images that cannot be decoded; skip
    leaves them out and says how many. root: where decoded images are kept.

    Images are decoded once, to memory-mapped arrays whose key is the content: for an archive its bytes, for a
    directory the names, sizes and times of its files. Which are tested and validated on follows from their names.
    """

    def __init__(
        self,
        *,
        path: Path,
        size: int | tuple[int, int] | None = None,
        channels: Literal[1, 3] = 3,
        background: Literal["white", "black"] = "white",
        on_error: Literal["raise", "skip"] = "raise",
        root: Path | None = None,
    ) -> None:
        sides = (size, size) if isinstance(size, int) else size
        checks.at_least(1, size=min(sides) if sides else None)
        checks.one_of((1, 3), channels=channels)
        checks.one_of(("white", "black"), background=background)
        checks.one_of(("raise", "skip"), on_error=on_error)
        self.files = Files(path)
        self.path, self.size, self.channels = self.files.path, sides, channels
        self.background, self.on_error = 1.0 if background == "white" else 0.0, on_error
        self.root = data_root(root)

    @property
    def settings(self) -> str:
        """What the arrays depend on beside the files."""
        return f"{_FORMAT} {self.size} {self.channels} {self.background} {self.on_error}"

    def arrange(self, names: list[str]) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
        """As the function `arrange`; a subclass reads another layout."""
        return arrange(names)

    @cached_property
    def _kept(self) -> Path:
        """The folder of the decoded arrays."""
        return cached_dir(self.root / "image_folder" / self.files.digest(self.settings), self._decode)

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return json.loads((self._kept / "facts.json").read_text(encoding="utf-8"))

    @cached_property
    def spec(self) -> LabeledImages:  # type: ignore[override]
        channels, height, width = self._facts["shape"]
        mean, std = tuple(self._facts["mean"]), tuple(self._facts["std"])
        return LabeledImages(
            image=Image(channels=channels, height=height, width=width, mean=mean, std=std, background=self.background),
            label=Label(classes=tuple(self._facts["classes"])),
        )

    def splits(self) -> dict[str, TensorSource]:
        found: dict[str, TensorSource] = {}
        for name, samples in self._facts["samples"].items():
            source = TensorSource(
                image=read_array(self._kept / f"{name}_image.npy"), label=read_array(self._kept / f"{name}_label.npy")
            )
            source.keys = [key for key, _ in samples]
            found[name] = source
        return found

    def notes(self) -> list[str]:
        notes = list(self._facts["notes"])
        if len(self._facts["classes"]) == 1:
            notes.append(f"one class only ({self._facts['classes'][0]}): every answer is right")
        return notes

    def fingerprint(self) -> dict[str, Any]:
        """Names and sizes of all images, as the run keeps them."""
        parts = self._facts["samples"].items()
        samples = [(f"{split}: {name}", content) for split, part in parts for name, content in part]
        return {"path": str(self.path.absolute()), "samples": dict(samples)}

    def _decode(self, into: Path) -> None:
        """Decodes all images to arrays, a few at a time: memory does not grow with their number."""
        names, seen = self.files.names, self.files.seen
        with self.files.naming_path():
            classes, splits = self.arrange(names)
            check_classes(classes, splits, seen)
        wanted = {name for members in splits.values() for name, _ in members}
        looked_at = list(self.files.each(wanted, "looking at images", self._look))
        content_of = {name: checksum for name, checksum, _ in looked_at}
        bad = {name: found for name, _, found in looked_at if isinstance(found, str)}
        sizes = {found for _, _, found in looked_at if not isinstance(found, str)}
        notes = seen.notes()
        if bad and self.on_error == "raise":
            lines = [f"{name} cannot be decoded ({reason})" for name, reason in bad.items()]
            more = f" and {len(lines) - LISTED} more" if len(lines) > LISTED else ""
            remedy = "; dataset.on_error=skip leaves them out"
            raise UserError(f"dataset.path: {self.path}: {'; '.join(lines[:LISTED])}{more}{remedy}")
        if bad:
            notes.append(
                f"{len(bad)} of {len(wanted)} images cannot be decoded and are left out, such as {next(iter(bad))}"
            )
            splits = {split: [m for m in members if m[0] not in bad] for split, members in splits.items()}
            with self.files.naming_path():
                check_classes(classes, splits, seen)
        size = self.size or _chosen_size(sizes)
        if self.size is None and len(sizes) > 1:
            notes.append(f"photos of {len(sizes)} sizes are scaled to {size[0]}x{size[1]} (dataset.size sets another)")
        self._write_arrays(into, splits, size, set(bad))
        mean, std = channel_statistics(np.load(into / "train_image.npy", mmap_mode="r"))
        samples = {split: [(name, content_of[name]) for name, _ in members] for split, members in splits.items()}
        facts = {
            "shape": (self.channels, *size), "classes": [as_text(name) for name in classes], "mean": mean, "std": std,
            "samples": {split: [(as_text(name), count) for name, count in part] for split, part in samples.items()},
            "notes": notes,
        }  # fmt: skip
        (into / "facts.json").write_text(json.dumps(facts), encoding="utf-8")

    def _write_arrays(
        self, into: Path, splits: dict[str, list[tuple[str, int]]], size: tuple[int, int], bad: set[str]
    ) -> None:
        row_of: dict[str, tuple[str, int]] = {}
        arrays: dict[str, np.ndarray] = {}
        count = sum(len(members) for members in splits.values())
        if (needed := count * self.channels * size[0] * size[1]) > shutil.disk_usage(into).free:
            # Writing to a mapped file on a full disk kills the process.
            raise UserError(f"dataset.root: {needed / 1e9:.1f} GB are needed in {into.parent}")
        for split, members in splits.items():
            row_of |= {name: (split, row) for row, (name, _) in enumerate(members)}
            np.save(into / f"{split}_label.npy", np.array([label for _, label in members], np.int64))
            shape = (len(members), self.channels, *size)
            arrays[split] = np.lib.format.open_memmap(into / f"{split}_image.npy", "w+", np.uint8, shape)

        def decode(_: str, content: bytes) -> np.ndarray:
            return decode_content(content, self.channels, size, self.background)

        for name, _, pixels in self.files.each(set(row_of), "decoding images", decode):
            if isinstance(pixels, str):
                raise UserError(f"dataset.path: {self.path}: {name} cannot be decoded ({pixels})")
            split, row = row_of[name]
            arrays[split][row] = pixels
        for array in arrays.values():
            array.flush()  # type: ignore[attr-defined]

    def _look(self, _: str, content: bytes) -> tuple[int, int]:
        """The size of an image that can be decoded."""
        decode_content(content, self.channels, (1, 1))
        return image_size(content)


def _chosen_size(sizes: set[tuple[int, int]]) -> tuple[int, int]:
    """The one that all have, else a square of the median of the shorter sides, a multiple of 8, at most 224."""
    if len(sizes) == 1:
        return next(iter(sizes))
    shorter = sorted(min(size) for size in sizes)
    side = min(LARGEST_SIDE, shorter[len(shorter) // 2])
    return (max(8, side // 8 * 8),) * 2 if side >= 8 else (side, side)


def check_classes(classes: list[str], splits: dict[str, list[tuple[str, int]]], seen: Seen) -> None:
    """Raises ValueError for a split or a class without an image that can be read."""
    for split, members in splits.items():
        if not members:
            raise ValueError(f"{split} has no image that can be read")
    there = {label for _, label in splits["train"]}
    missing = [as_text(name) for number, name in enumerate(classes) if number not in there]
    missing += [
        as_text(name) for name in seen.empty if name.count("/") <= 1 and PurePosixPath(name).name not in classes
    ]
    if missing:
        others = f" ({'; '.join(seen.notes())})" if seen.suffixes else ""
        raise ValueError(f"classes without an image that can be read: {', '.join(missing[:LISTED])}{others}")


def split_of(name: str) -> str | None:
    """The split that a folder's name means, in any case and form: `Train`, `valid`, `train_set`, `test-images`."""
    match = re.fullmatch(r"([a-z]+?)(?:[_ -]?(?:set|split|data|images|imgs))?", name.lower())
    return SPLITS.get(match[1]) if match else None


def arrange(names: list[str]) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
    """The classes, and for each split its images with their class's number, both in the order of their names.

    names: relative, with forward slashes. Raises ValueError where they are not in class folders.
    """
    files = {name: PurePosixPath(name).parts for name in sorted(set(names))}
    if not files:
        raise ValueError(f"holds no images ({', '.join(sorted(SUFFIXES))})")
    tops = {parts[0] for parts in files.values()}
    while len(tops) == 1 and not any(map(split_of, tops)) and all(len(parts) > 2 for parts in files.values()):
        files = {name: parts[1:] for name, parts in files.items()}
        tops = {parts[0] for parts in files.values()}
    named = {top: split_of(top) for top in tops}
    found = {split for split in named.values() if split}
    deep = any(len(parts) > 2 for parts in files.values())
    given = all(named.values()) and deep
    if given and "train" not in found:
        raise ValueError(f"holds {', '.join(sorted(tops))} but no train folder")
    if given and len(found) < len(tops):
        twice = sorted(top for top in tops if list(named.values()).count(named[top]) > 1)
        raise ValueError(f"has several folders for one split: {', '.join(twice)}")
    others = sorted(top for top in tops if not named[top])
    if not given and deep and (len(found) > 1 or (found and others)):
        raise ValueError(f"has other images beside {', '.join(sorted(set(tops) - set(others)))}: {', '.join(others)}")
    _check_same_inside(files, tops, given)
    splits: dict[str, list[tuple[str, str]]] = {}
    for name, parts in files.items():
        split, *inner = (str(named[parts[0]]), *parts[1:]) if given else ("train", *parts)
        if len(inner) < 2:
            raise ValueError(f"{name} is in no class folder")
        splits.setdefault(split, []).append((name, inner[0]))
    classes = sorted({label for _, label in splits["train"]})
    number = {label: index for index, label in enumerate(classes)}
    for split, members in splits.items():
        if unknown := {label for _, label in members} - set(classes):
            raise ValueError(f"{split} has classes that train has not: {', '.join(sorted(unknown))}")
    return classes, {split: [(name, number[label]) for name, label in members] for split, members in splits.items()}


def _check_same_inside(files: dict[str, tuple[str, ...]], tops: set[str], given: bool) -> None:
    """Raises ValueError if the class folders all hold the same folders: they are probably splits."""
    inside = {top: {parts[1] for parts in files.values() if parts[0] == top and len(parts) > 2} for top in tops}
    shared = set.intersection(*inside.values()) if len(tops) > 1 and not given else set()
    if len(shared) > 1 and all(inner == shared for inner in inside.values()):
        names, below = ", ".join(sorted(tops)[:LISTED]), ", ".join(sorted(shared)[:LISTED])
        raise ValueError(
            f"{names} all hold the folders {below}: name the splits train, val and test, or give one of them"
        )


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 [N, C, H, W], in 0..1, from exact counts of each level."""
    counts = np.zeros((images.shape[1], 256), np.int64)
    for start in range(0, len(images), 1024):
        counts += level_counts(images[start : start + 1024].swapaxes(0, 1))
    return level_statistics(counts)


def level_counts(pixels: np.ndarray) -> np.ndarray:
    """How many values of uint8 [C, ...] have each level, int64 [C, 256]."""
    return np.stack([np.bincount(channel.ravel(), minlength=256) for channel in pixels])


def level_statistics(counts: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, in 0..1, of counts of its levels; 1 for a constant channel."""
    level = np.arange(256) / 255
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ level
    std = np.sqrt((share * (level - mean[:, None]) ** 2).sum(1))
    return mean.tolist(), np.where(std > 0, std, 1.0).tolist()
