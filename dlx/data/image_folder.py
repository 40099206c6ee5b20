"""ImageFolder: a person's own images, a folder per class, in a directory or a .tar archive (also .gz, .bz2, .xz)."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from dlx.config.errors import UserError
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.data.files import data_root, kept_folder, read_array
from dlx.tasks.reading import decode_content
from dlx.tasks.spec import Image, Label, LabeledImages

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
MAX_IMAGE_BYTES = 256 << 20  # of an archive's member; Pillow itself refuses images of too many pixels
_FORMAT = 2  # of the kept arrays; part of their key


class ImageFolder(Dataset):
    """Images in class folders, either directly or in folders train, and test or val; other files are left alone.

    path: a directory or archive. Folders around the class folders are looked through.
    size: height and width that images are scaled to (what sticks out of the square is cut off evenly); None where all
    have one size. channels: 3 for RGB, 1 for gray. root: where decoded images are kept.

    Images are decoded once, to memory-mapped arrays whose key is the content: for an archive its bytes, for a
    directory the names, sizes and times of its files.
    """

    def __init__(
        self, *, path: str, size: int | None = None, channels: Literal[1, 3] = 3, root: str | None = None
    ) -> None:
        if size is not None and size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {channels}")
        self.path, self.size, self.channels, self.root = Path(path).expanduser(), size, channels, data_root(root)

    @cached_property
    def _kept(self) -> Path:
        """The folder of the decoded arrays."""
        if self.path.is_dir():
            content = "\0".join(f"{name}\0{size}\0{time}" for name, size, time in _list_directory(self.path))
            digest = hashlib.sha256(content.encode(errors="surrogateescape"))  # names need not be UTF-8
        elif self.path.is_file():
            with self.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        else:
            raise UserError(f"dataset.path: {self.path}: there is no such directory or archive")
        digest.update(f"\0{_FORMAT} {self.size} {self.channels}".encode())
        return kept_folder(self.root / "image_folder" / digest.hexdigest()[:32], self._decode)

    @cached_property
    def spec(self) -> LabeledImages:  # type: ignore[override]
        facts = json.loads((self._kept / "spec.json").read_text(encoding="utf-8"))
        channels, height, width = facts["shape"]
        mean, std = tuple(facts["mean"]), tuple(facts["std"])
        return LabeledImages(
            image=Image(channels=channels, height=height, width=width, mean=mean, std=std),
            label=Label(classes=tuple(facts["classes"])),
        )

    def splits(self) -> dict[str, Source]:
        return {
            name: TensorSource(
                image=read_array(self._kept / f"{name}_image.npy"), label=read_array(self._kept / f"{name}_label.npy")
            )
            for name in ("train", "val", "test")
            if (self._kept / f"{name}_label.npy").is_file()
        }

    def _decode(self, into: Path) -> None:
        """All images to arrays, a few at a time: what is in memory does not grow with their number."""
        names = _list_archive(self.path) if self.path.is_file() else [name for name, *_ in _list_directory(self.path)]
        try:
            classes, splits = arrange(names)
        except ValueError as error:
            raise UserError(f"dataset.path: {self.path}: {error}") from error
        place: dict[str, tuple[str, int]] = {}
        for split, members in splits.items():
            place |= {name: (split, row) for row, (name, _) in enumerate(members)}
            np.save(into / f"{split}_label.npy", np.array([label for _, label in members], np.int64))
        arrays: dict[str, np.ndarray] = {}
        first = ""
        for name, pixels in self._decoded(set(place)):
            if not arrays:
                first = name
                if (needed := len(place) * pixels.size) > shutil.disk_usage(into).free:
                    # Writing to a mapped file on a full disk kills the process.
                    raise UserError(f"dataset.root: {needed / 1e9:.1f} GB are needed in {into.parent}")
                for split, members in splits.items():
                    shape = (len(members), *pixels.shape)
                    arrays[split] = np.lib.format.open_memmap(into / f"{split}_image.npy", "w+", np.uint8, shape)
            split, row = place[name]
            if pixels.shape != arrays[split].shape[1:]:
                here, there = (f"{h}x{w}" for h, w in (pixels.shape[1:], arrays[split].shape[2:]))
                raise UserError(
                    f"dataset.path: {name} is {here} (height x width) but {first} is {there}; "
                    f"set dataset.size to scale all images, such as dataset.size={min(pixels.shape[1:])}"
                )
            arrays[split][row] = pixels
        mean, std = channel_statistics(arrays["train"])
        facts = {"shape": arrays["train"].shape[1:], "classes": classes, "mean": mean, "std": std}
        (into / "spec.json").write_text(json.dumps(facts), encoding="utf-8")

    def _decoded(self, wanted: set[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Names and pixels in the order of reading. Threads pay for photographs: Pillow decodes beside the GIL."""
        from rich.console import Console
        from rich.progress import track

        files = _read_archive(self.path, wanted) if self.path.is_file() else _read_directory(self.path, wanted)
        console = Console(stderr=True)
        shown = track(
            files,
            "decoding images",
            total=len(wanted),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        size = (self.size, self.size) if self.size else None
        threads = min(8, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:
            while block := list(islice(shown, 64 * threads)):
                parts = [block[start : start + 64] for start in range(0, len(block), 64)]
                for part in pool.map(partial(self._decode_part, size=size), parts):
                    yield from part

    def _decode_part(self, part: list[tuple[str, bytes]], size: tuple[int, int] | None) -> list[tuple[str, np.ndarray]]:
        decoded = []
        for name, content in part:
            try:
                decoded.append((name, decode_content(content, self.channels, size)))
            except Exception as error:  # Pillow's decoders raise errors of many kinds
                raise UserError(f"dataset.path: {self.path}: {name} cannot be decoded ({error})") from error
        return decoded


def arrange(names: list[str]) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
    """The classes, and for each split its images with their class's number, both in the order of their names.

    names: relative, with forward slashes. Raises ValueError where they are not in class folders.
    """
    files = {name: PurePosixPath(name).parts for name in sorted(set(names))}
    if not files:
        raise ValueError(f"holds no images ({', '.join(sorted(SUFFIXES))})")
    tops = {parts[0] for parts in files.values()}
    while len(tops) == 1 and not tops & set(SPLITS) and all(len(parts) > 2 for parts in files.values()):
        files = {name: parts[1:] for name, parts in files.items()}
        tops = {parts[0] for parts in files.values()}
    found = {SPLITS[top] for top in tops & set(SPLITS)}
    given = tops <= set(SPLITS) and any(len(parts) > 2 for parts in files.values())
    if given and "train" not in found:
        raise ValueError(f"holds {', '.join(sorted(tops))} but no train folder")
    if not given and len(found) > 1:
        raise ValueError(f"has other images beside {', '.join(sorted(found))}: {', '.join(sorted(tops - set(SPLITS)))}")
    splits: dict[str, list[tuple[str, str]]] = {}
    for name, parts in files.items():
        split, *inner = (SPLITS[parts[0]], *parts[1:]) if given else ("train", *parts)
        if len(inner) < 2:
            raise ValueError(f"{name} is in no class folder")
        splits.setdefault(split, []).append((name, inner[0]))
    classes = sorted({label for _, label in splits["train"]})
    number = {label: index for index, label in enumerate(classes)}
    for split, members in splits.items():
        if unknown := {label for _, label in members} - set(classes):
            raise ValueError(f"{split} has classes that train has not: {', '.join(sorted(unknown))}")
    return classes, {split: [(name, number[label]) for name, label in members] for split, members in splits.items()}


def channel_statistics(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 [N, C, H, W], in 0..1, from exact counts of each level."""
    counts = np.zeros((images.shape[1], 256), np.int64)
    for start in range(0, len(images), 1024):
        for channel, pixels in enumerate(images[start : start + 1024].swapaxes(0, 1)):
            counts[channel] += np.bincount(pixels.ravel(), minlength=256)
    level = np.arange(256) / 255
    share = counts / counts.sum(1, keepdims=True)
    mean = share @ level
    std = np.sqrt((share * (level - mean[:, None]) ** 2).sum(1))
    return mean.tolist(), np.where(std > 0, std, 1.0).tolist()


def _is_image(name: PurePosixPath) -> bool:
    return name.suffix.lower() in SUFFIXES and not any(part.startswith((".", "__MACOSX")) for part in name.parts)


def _list_directory(path: Path) -> list[tuple[str, int, int]]:
    """Relative name, bytes and modification time (ns) of each image below, by name; linked folders are followed.

    Raises UserError for what cannot be read: nothing is left out unsaid.
    """
    found = []
    try:
        for folder, inner, names in os.walk(path, onerror=_raise, followlinks=True):
            inner[:] = [name for name in inner if not _leads_back(Path(folder, name))]
            for name in names:
                file = Path(folder, name)
                relative = PurePosixPath(file.relative_to(path).as_posix())
                if _is_image(relative):
                    stat = file.stat()
                    found.append((str(relative), stat.st_size, stat.st_mtime_ns))
    except OSError as error:
        raise UserError(f"dataset.path: {error.filename}: cannot be read ({error.strerror})") from error
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _leads_back(folder: Path) -> bool:
    """Whether it is a link to a folder that it lies in, which would be followed for ever."""
    return folder.is_symlink() and folder.resolve() in {parent.resolve() for parent in folder.absolute().parents}


def _read_directory(path: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    for name in sorted(wanted):
        try:
            content = (path / name).read_bytes()
        except OSError as error:
            raise UserError(f"dataset.path: {path / name}: cannot be read ({error.strerror})") from error
        yield name, content


def _members(path: Path) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
    """The images of an archive, in its order; nothing is ever written to disk.

    Raises UserError for an archive that is damaged, or has links, devices or names that lead out of it.
    """
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise UserError(f"dataset.path: {path}: refused, {member.name!r} leads out of the archive")
                if not (member.isfile() or member.isdir()):
                    raise UserError(f"dataset.path: {path}: refused, {member.name!r} is a link or device, not a file")
                if member.size > MAX_IMAGE_BYTES and _is_image(name):
                    raise UserError(f"dataset.path: {path}: refused, {member.name!r} has {member.size:,} bytes")
                if member.isfile() and _is_image(name):
                    yield str(name), member, archive
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise UserError(f"dataset.path: {path}: not an archive that can be read to its end ({error})") from error


def _list_archive(path: Path) -> list[str]:
    return [name for name, *_ in _members(path)]


def _read_archive(path: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    for name, member, archive in _members(path):
        if name in wanted and (file := archive.extractfile(member)):
            yield name, file.read()
