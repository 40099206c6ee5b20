"""AnnotatedImages: images with boxes or masks in files, decoded once to arrays, or whenever they are read. A subclass
reads one layout of files.

Images that differ in size are padded at the right and bottom to the largest, with 0 and masks with void.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.data.annotations import Box, Faults, counted, inside
from dlx.data.archive import Files, as_text
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.data.files import cached_dir, data_root, read_array
from dlx.data.image_folder import level_counts, level_statistics
from dlx.data.photos import Decoder, Photos
from dlx.tasks.reading import decode_content, decode_mask, image_size, size_inside
from dlx.tasks.spec import Boxes, Image, Mask, Size

_FORMAT = 2  # of the kept arrays; part of their key
NUMBERS = 256  # that a pixel of a label image can have
MEASURED = 2000  # images whose mean and deviation are taken where none are kept as arrays


@dataclass(frozen=True)
class Object:
    """field: where it is in its file, as a message says it. is_share: the box is in shares of the image's sides."""

    field: str
    box: Box
    label: int
    is_share: bool = False

    def in_pixels(self, size: tuple[int, int]) -> Box:
        height, width = size
        x1, y1, x2, y2 = self.box
        return (x1 * width, y1 * height, x2 * width, y2 * height) if self.is_share else self.box


@dataclass(frozen=True)
class Sample:
    """An image by its name, with its objects or the name of its label image. file: what holds the objects."""

    image: str
    file: str
    objects: list[Object] = field(default_factory=list)
    mask: str | None = None


@dataclass(frozen=True)
class Layout:
    """What the files of a dataset mean. names: of the classes; None for the numbers that the masks have. ids: of the
    classes, where the files have them."""

    names: tuple[str, ...] | None
    splits: dict[str, list[Sample]]
    notes: list[str] = field(default_factory=list)
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Looked:
    """What a file turned out to hold. numbers: of a label image, those that it has."""

    checksum: str
    size: tuple[int, int]
    numbers: tuple[int, ...] = ()


class AnnotatedImages(Dataset):
    """path: a directory or archive (.tar, also compressed, or .zip). size: a side or [height, width] that whole images
    are scaled to (see `whole`). channels: 3 for RGB, 1 for gray. background: what transparent pixels lie on. root:
    where arrays are kept.

    on_error: raise reports all faults of images and annotations at once; skip leaves out the object or the image.
    decode: once keeps all images as arrays under root; on_demand decodes the files of a directory for each batch.
    """

    texts: ClassVar[tuple[str, ...]] = ()
    """Suffixes of the text files that are read."""

    whole: ClassVar[Literal["stretched", "inside"]] = "inside"
    """How a whole picture is scaled to `size`: to exactly that, or so that it fits into it."""

    void = NUMBERS - 1

    def __init__(
        self,
        *,
        path: Path,
        size: int | tuple[int, int] | None = None,
        channels: Literal[1, 3] = 3,
        background: Literal["white", "black"] = "white",
        on_error: Literal["raise", "skip"] = "raise",
        decode: Literal["once", "on_demand"] = "once",
        root: Path | None = None,
    ) -> None:
        sides = (size, size) if isinstance(size, int) else size
        checks.at_least(1, size=min(sides) if sides else None)
        checks.one_of((1, 3), channels=channels)
        checks.one_of(("white", "black"), background=background)
        checks.one_of(("raise", "skip"), on_error=on_error)
        checks.one_of(("once", "on_demand"), decode=decode)
        self.files = Files(path, texts=self.texts)
        self.size = None if sides is None else (sides[0], sides[1])
        self.channels, self.on_error, self.decode = channels, on_error, decode
        self.background, self.root = 1.0 if background == "white" else 0.0, data_root(root)

    def layout(self, faults: Faults) -> Layout:
        """What the names and texts of `files` mean. Raises ValueError where they have not this layout."""
        raise NotImplementedError(f"{type(self).__name__} reads no layout")

    def settings(self) -> dict[str, Any]:
        """What else the arrays depend on."""
        return {}

    @cached_property
    def _kept(self) -> Path:
        """The folder of the decoded arrays."""
        own = {name: getattr(self, name) for name in ("size", "channels", "background", "on_error", "decode")}
        kind = type(self).__qualname__
        settings = json.dumps([_FORMAT, kind, own, self.settings()], sort_keys=True, default=str)
        return cached_dir(self.root / "annotated" / self.files.digest(settings), self._decode)

    @cached_property
    def _facts(self) -> dict[str, Any]:
        return json.loads((self._kept / "facts.json").read_text(encoding="utf-8"))

    @property
    def image_entry(self) -> Image:
        channels, height, width = self._facts["shape"]
        mean, std = tuple(self._facts["mean"]), tuple(self._facts["std"])
        return Image(channels=channels, height=height, width=width, mean=mean, std=std, background=self.background)

    @property
    def size_entry(self) -> Size:
        return Size(bound=self.size)

    @property
    def boxes_entry(self) -> Boxes:
        return Boxes(classes=tuple(self._facts["names"]), most=self._facts["most"], ids=tuple(self._facts["ids"]))

    @property
    def mask_entry(self) -> Mask:
        _, height, width = self._facts["shape"]
        return Mask(classes=tuple(self._facts["names"]), height=height, width=width, void=self._facts["void"])

    def splits(self) -> dict[str, Source]:
        found: dict[str, Source] = {}
        for split, samples in self._facts["samples"].items():
            kept = {name: self._kept / f"{split}_{name}.npy" for name in ("image", "size", "boxes", "mask")}
            tensors = {name: read_array(path) for name, path in kept.items() if path.is_file()}
            source: TensorSource | Photos = TensorSource(**tensors)
            if self.decode == "on_demand":
                decoder = self._decoder(self._facts["numbers"], self._facts["void"])
                images, masks = self._facts["files"][split]
                source = Photos(self.files.path, images, masks, decoder, **tensors)
            source.keys = [key for key, _ in samples]
            if self._facts["differ"]:
                padded = ("image",) if "boxes" in tensors else ("image", "mask")
                source.lengths = dict.fromkeys(padded, tensors["size"])
            found[split] = source
        return found

    def _decoder(self, numbers: Sequence[int], void: int) -> Decoder:
        return Decoder(self.channels, self.background, _classes(numbers, void), void)

    def notes(self) -> list[str]:
        return list(self._facts["notes"])

    def fingerprint(self) -> dict[str, Any]:
        """Names and checksums of all images with their annotations."""
        parts = self._facts["samples"].items()
        samples = [(f"{split}: {name}", content) for split, part in parts for name, content in part]
        return {"path": str(self.files.path.absolute()), "samples": dict(samples)}

    def _decode(self, into: Path) -> None:
        """Writes the arrays, a few images at a time: memory does not grow with their number."""
        if self.decode == "on_demand" and not self.files.path.is_dir():
            raise UserError(f"dataset.decode: on_demand reads a directory; unpack {self.files.path} first")
        faults = Faults(self.files.path, self.on_error)
        with self.files.naming_path():
            layout = self.layout(faults)
            seen = self.files.seen.notes()
            self.files.forget()
            looked = self._look(layout, faults)
            numbers = self._numbers(layout, looked)
            splits = {split: self._sound(part, looked, numbers, faults) for split, part in layout.splits.items()}
            faults.check()
            names = layout.names or tuple(map(str, numbers))
            if empty := [split for split in ("train", *splits) if not splits.get(split)]:
                raise ValueError(f"{empty[0]} has no image that can be read")
            if not names:
                raise ValueError("holds no classes")
        notes = [*seen, *layout.notes, *faults.notes()]
        times = Counter(one.image for part in splits.values() for one in part)
        if twice := [name for name, count in times.items() if count > 1]:
            notes.append(f"{counted(len(twice), 'image')} in more than one split, such as {as_text(twice[0])}")
        sizes = {one.image: looked[one.image].size for part in splits.values() for one in part}
        shapes = self._shapes(sizes, notes)
        height, width = (max(sides) for sides in zip(*shapes.values(), strict=True))
        void = self.void if self.void >= len(names) else NUMBERS - 1
        most = max(1, *(len(one.objects) for part in splits.values() for one in part))
        for split, part in splits.items():
            np.save(into / f"{split}_size.npy", np.array([shapes[one.image] for one in part], np.int64))
            if not any(one.mask for one in part):
                np.save(into / f"{split}_boxes.npy", _boxes(part, sizes, shapes, most))
        decoder = self._decoder(numbers, void)
        if self.decode == "once":
            counts = self._write(into, splits, shapes, decoder)
        else:
            counts = self._measure(splits["train"], shapes, decoder)
        mean, std = level_statistics(counts)
        given = splits.items()
        samples = {split: [(as_text(one.image), _checksum(one, looked)) for one in part] for split, part in given}
        files = {
            split: ([one.image for one in part], [one.mask for one in part if one.mask])
            for split, part in splits.items()
        }
        facts = {
            "shape": (self.channels, height, width), "names": names, "mean": mean, "std": std, "most": most,
            "void": void, "differ": len(set(shapes.values())) > 1, "samples": samples, "notes": notes,
            "numbers": numbers, "files": files, "ids": layout.ids,
        }  # fmt: skip
        (into / "facts.json").write_text(json.dumps(facts), encoding="utf-8")

    def _look(self, layout: Layout, faults: Faults) -> dict[str, Looked]:
        """What is in each image and label image that can be decoded; the others are faults."""
        samples = [sample for part in layout.splits.values() for sample in part]
        masks = {sample.mask for sample in samples if sample.mask}
        found: dict[str, Looked] = {}

        def look(name: str, content: bytes) -> tuple[tuple[int, int], tuple[int, ...]]:
            if name not in masks:
                decode_content(content, self.channels, (1, 1))
                return image_size(content), ()
            mask_HW = decode_mask(content)
            return (mask_HW.shape[0], mask_HW.shape[1]), tuple(np.unique(mask_HW).tolist())

        wanted = {sample.image for sample in samples} | masks
        for name, checksum, seen in self.files.each(wanted, "looking at images", look):
            if isinstance(seen, str):
                faults.add(name, "label image" if name in masks else "image", f"cannot be decoded ({seen})", of="image")
            else:
                found[name] = Looked(checksum, *seen)
        return found

    def _numbers(self, layout: Layout, looked: dict[str, Looked]) -> list[int]:
        """The numbers in label images that mean the classes, in order."""
        if layout.names is not None:
            return [number for number in range(NUMBERS) if number != self.void][: len(layout.names)]
        return sorted({number for one in looked.values() for number in one.numbers} - {self.void})

    def _sound(
        self, part: Sequence[Sample], looked: dict[str, Looked], numbers: Collection[int], faults: Faults
    ) -> list[Sample]:
        """The images and objects without a fault, boxes in pixels."""
        found = []
        for one in part:
            image, mask = looked.get(one.image), looked.get(one.mask or one.image)
            if image is None or mask is None or not self._is_sound_mask(one, image, mask, numbers, faults):
                continue
            objects = []
            for thing in one.objects:
                try:
                    box = inside(thing.in_pixels(image.size), image.size)
                    objects.append(replace(thing, box=box, is_share=False))
                except ValueError as error:
                    faults.add(one.file, thing.field, str(error), of="object")
            found.append(replace(one, objects=objects))
        return found

    def _is_sound_mask(
        self, one: Sample, image: Looked, mask: Looked, numbers: Collection[int], faults: Faults
    ) -> bool:
        if one.mask and mask.size != image.size:
            sizes = [f"{width} x {height}" for height, width in (mask.size, image.size)]
            faults.add(one.mask, "size", f"{sizes[0]} pixels, but its image has {sizes[1]}", of="image")
            return False
        if one.mask and (unknown := set(mask.numbers) - set(numbers) - {self.void}):
            listed = ", ".join(map(str, sorted(unknown)[:5])) + (", ..." if len(unknown) > 5 else "")
            reason = f"out of range, there are {len(numbers)} classes and void {self.void}"
            faults.add(one.mask, f"label {listed}", reason, of="image")
            return False
        return True

    def _shapes(self, sizes: dict[str, tuple[int, int]], notes: list[str]) -> dict[str, tuple[int, int]]:
        """Height and width of each image as it is kept."""
        several = len(set(sizes.values()))
        if self.whole == "inside":
            return sizes if self.size is None else {n: size_inside(size, self.size)[0] for n, size in sizes.items()}
        target = self.size
        if target is None and several == 1:
            return sizes
        if target is None:
            sides = np.median(np.array(list(sizes.values())), 0).astype(int).tolist()
            target = tuple(max(side // 8 * 8, min(side, 8)) for side in sides)
            notes.append(
                f"photos of {several} sizes are scaled to {target[0]}x{target[1]}, the median height and width "
                f"(dataset.size sets another)"
            )
        return dict.fromkeys(sizes, target)

    def _measure(self, part: Sequence[Sample], shapes: dict[str, tuple[int, int]], decoder: Decoder) -> np.ndarray:
        """The counts of the levels of some training images, evenly chosen, int64 [C, 256]."""
        chosen = [one.image for one in part[:: -(-len(part) // MEASURED)]]
        look = self.files.each(chosen, "measuring colors", lambda name, x: level_counts(decoder.image(x, shapes[name])))
        return np.sum([counts for _, _, counts in look if not isinstance(counts, str)], axis=0)

    def _write(
        self,
        into: Path,
        splits: dict[str, list[Sample]],
        shapes: dict[str, tuple[int, int]],
        decoder: Decoder,
    ) -> np.ndarray:
        """Writes images and masks; gives the counts of the levels of the training images, int64 [C, 256]."""
        height, width = (max(sides) for sides in zip(*shapes.values(), strict=True))
        shape_of = dict(shapes)
        rows: dict[str, list[tuple[str, int]]] = defaultdict(list)
        arrays: dict[str, np.ndarray] = {}
        masks = {one.mask for part in splits.values() for one in part if one.mask}
        needed = sum(map(len, splits.values())) * (self.channels + bool(masks)) * height * width
        if needed > shutil.disk_usage(into).free:
            # Writing to a mapped file on a full disk kills the process.
            raise UserError(
                f"dataset.root: {needed / 1e9:.1f} GB are needed in {into.parent}; dataset.size makes it less, "
                f"dataset.decode=on_demand none"
            )
        for split, part in splits.items():
            for row, one in enumerate(part):
                rows[one.image].append((f"{split}_image", row))
                if one.mask:
                    rows[one.mask].append((f"{split}_mask", row))
                    shape_of[one.mask] = shapes[one.image]
            for name, inner in (("image", (self.channels, height, width)), ("mask", (height, width))):
                if name == "image" or masks:
                    shape = (len(part), *inner)
                    arrays[f"{split}_{name}"] = np.lib.format.open_memmap(
                        into / f"{split}_{name}.npy", "w+", np.uint8, shape
                    )

        def decode(name: str, content: bytes) -> np.ndarray:
            return (decoder.mask if name in masks else decoder.image)(content, shape_of[name])

        counts = np.zeros((self.channels, 256), np.int64)
        for name, _, pixels in self.files.each(rows, "decoding images", decode):
            if isinstance(pixels, str):
                raise UserError(f"dataset.path: {self.files.path}: {name} cannot be decoded ({pixels})")
            h, w = shape_of[name]
            for key, row in rows[name]:
                if name in masks:
                    arrays[key][row] = decoder.void  # beyond a smaller image
                arrays[key][row, ..., :h, :w] = pixels
                if key == "train_image":
                    counts += level_counts(pixels)
        for array in arrays.values():
            array.flush()  # type: ignore[attr-defined]
        return counts


def _classes(numbers: Sequence[int], void: int) -> np.ndarray:
    """The class of each number of a label image, uint8 [256]."""
    class_of = np.full(NUMBERS, void, np.uint8)
    class_of[list(numbers)] = np.arange(len(numbers))
    return class_of


def _boxes(
    part: Sequence[Sample], sizes: dict[str, tuple[int, int]], shapes: dict[str, tuple[int, int]], most: int
) -> np.ndarray:
    """float32 [N, most, 5] in pixels of the images as they are kept; padding rows are 0 with class -1."""
    boxes = np.zeros((len(part), most, 5), np.float32)
    boxes[..., 4] = -1
    for row, one in enumerate(part):
        (height, width), (h, w) = sizes[one.image], shapes[one.image]
        for number, thing in enumerate(one.objects):
            x1, y1, x2, y2 = thing.box
            boxes[row, number] = (x1 * w / width, y1 * h / height, x2 * w / width, y2 * h / height, thing.label)
    return boxes


def _checksum(one: Sample, looked: dict[str, Looked]) -> str:
    """Of an image with its annotations."""
    image = looked[one.image].checksum
    if one.mask:
        return f"{image} {looked[one.mask].checksum}"
    return f"{image} {zlib.crc32(repr([(thing.box, thing.label) for thing in one.objects]).encode()):08x}"
