"""What a batch holds: entries by name, each with its kind and sizes; a spec is the entries of a dataset or a system.

A batch is a dict of tensors under the names of a spec, always with `index` (int64 [B]). Which names a system reads, and
of which kinds, says the spec class in its constructor's annotation; which there are says the dataset's. A pair fits if
each entry of the one is among those of the other. A spec is frozen and plain (no tensors): it is written into the run
folder as `spec.json`, so that a trained run predicts, samples and exports without its dataset.

Shapes: B batch, C channels, H height, W width, F features, K classes or attributes, L tokens, M boxes.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch

from dlx.config.errors import UserError
from dlx.config.groups import nearest
from dlx.config.yaml import FORMAT
from dlx.tasks.reading import decode_image, fit_inside, read_rows, size_of_file
from dlx.tasks.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from dlx.tasks.system import Batch


MASK = "[MASK]"
"""What stands for the mask in a text that a person types."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Base of all kinds of entries."""

    files: ClassVar[tuple[str, ...]] = ()
    """Fields that are texts in files of their own beside spec.json: `NAME.FIELD`."""

    dtype: ClassVar[torch.dtype] = torch.float32

    is_text: ClassVar[bool] = False
    """Whether a person types it and reads it as a text."""

    is_picture: ClassVar[bool] = False

    holds_rows: ClassVar[bool] = False
    """Whether each row of a file is a sample."""

    is_made: ClassVar[bool] = False
    """Whether it is made from the entry `of`, so that nobody gives it."""

    def __post_init__(self) -> None:
        """Lists are kept as tuples: an entry is hashed, and equals itself after spec.json."""
        for one in fields(self):
            if isinstance(value := getattr(self, one.name), list):
                object.__setattr__(self, one.name, tuple(value))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        raise NotImplementedError(f"{type(self).__name__} defines no shape")

    def example(self, count: int, device: torch.device | str | None = None) -> Tensor:
        """A batch of the right dtype, shape and range, normalized."""
        return torch.zeros(count, *self.shape, dtype=self.dtype, device=device)

    def is_like(self, other: Entry | None) -> bool:
        """Whether stored values of the other entry are read by this one as they are meant."""
        return type(other) is type(self) and other.shape == self.shape

    def normalize(self, raw: Tensor) -> Tensor:
        """Converts stored values to a system's input, same shape."""
        return raw.to(self.dtype)

    def denormalize(self, value: Tensor) -> Tensor:
        """The inverse of `normalize` (images: in [0, 1])."""
        return value

    def read(self, source: Path | str) -> Tensor:
        """A file, or a text, as a normalized batch. Raises UserError naming the fault."""

        raise UserError(f"{source}: {type(self).__name__} is not read from files")

    def draw(self, value: Tensor) -> Tensor | list[str]:
        """A batch for the eye: pixels, uint8 [B, H, W, C], or a text for each sample."""
        return [" ".join(f"{number:.4g}" for number in row) for row in value.reshape(len(value), -1).tolist()]


@cache
def _column(values: tuple[float, ...], device: torch.device) -> Tensor:
    """float32 [C, 1, 1]; made once per device, since each copy to a GPU waits for it."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Image(Entry):
    """float32 [B, C, H, W], per channel (pixel / scale - mean) / std. Stored images are uint8 in 0..scale.

    height, width: of the largest, where a spec has the `Size` of images that differ. background: what transparent
    pixels of a file lie on, 0 black to 1 white.
    """

    is_picture: ClassVar[bool] = True

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0
    background: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.height, self.width)

    def is_like(self, other: Entry | None) -> bool:
        return super().is_like(other) and isinstance(other, Image) and other.scale == self.scale

    def __str__(self) -> str:
        return f"{self.height} x {self.width} pixels of {self.channels} channels, 0 to {self.scale:g}"

    def normalize(self, raw: Tensor) -> Tensor:
        x = raw / self.scale if raw.is_floating_point() else raw.float().div_(self.scale)  # the source stays as it is
        return x.float().sub_(_column(self.mean, raw.device)).div_(_column(self.std, raw.device))

    def denormalize(self, value: Tensor) -> Tensor:
        return value.float() * _column(self.std, value.device) + _column(self.mean, value.device)

    def levels(self, value: Tensor) -> Tensor:
        """Normalized images as the stored levels, int64 in 0..scale, exactly."""
        return (self.denormalize(value) * self.scale).round().long().clamp(0, int(self.scale))

    def in_range(self, low: float, high: float) -> Image:
        """The same images, normalized so that black is `low` and full brightness `high`."""
        width = high - low
        if width <= 0:
            raise ValueError(f"high must be above low ({low}), got {high}")
        return replace(self, mean=(-low / width,) * self.channels, std=(1 / width,) * self.channels)

    def read(self, source: Path | str) -> Tensor:
        """An image file, scaled and cut to this size, [1, C, H, W]."""
        return self._normalized(decode_image(Path(source), self.channels, (self.height, self.width), self.background))

    def read_exact(self, source: Path | str) -> Tensor:
        """An image file of exactly this size, as `read`: what is completed must not be scaled first."""
        height, width = size_of_file(Path(source))
        if (height, width) != (self.height, self.width):
            raise UserError(f"{source}: {height} x {width} pixels, not {self.height} x {self.width}")
        return self.read(source)

    def read_inside(self, source: Path | str, bound: tuple[int, int], *, enlarge: bool) -> tuple[Tensor, float]:
        """An image file, whole, scaled to fit into (height, width), [1, C, h, w], and the factor that it was scaled by.
        enlarge: also one that fits already."""
        pixels, scale = fit_inside(Path(source), self.channels, bound, self.background, enlarge=enlarge)
        return self._normalized(pixels), scale

    def read_whole(self, source: Path | str) -> tuple[Tensor, tuple[int, int], float]:
        """An image file, scaled to fit into this size and padded at its right and bottom: [1, C, H, W], the height and
        width that the picture takes, and the factor that it was scaled by."""
        x_1CHW, scale = self.read_inside(source, (self.height, self.width), enlarge=True)
        height, width = x_1CHW.shape[-2:]
        padded = torch.nn.functional.pad(x_1CHW, (0, self.width - width, 0, self.height - height))
        return padded, (height, width), scale

    def _normalized(self, pixels: Any) -> Tensor:
        raw = torch.from_numpy(pixels).float().mul(self.scale / 255).round()
        return self.normalize(raw.unsqueeze(0))

    def draw(self, value: Tensor) -> Tensor:
        return self.denormalize(value).clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


@dataclass(frozen=True, kw_only=True)
class Size(Entry):
    """int64 [B, 2]: height and width of each image within the padded batch; beyond them a normalized image is 0.

    bound: height and width that each image, whole, was scaled to fit into; None: none was scaled.
    """

    is_made: ClassVar[bool] = True

    shape: ClassVar[tuple[int, ...]] = (2,)
    dtype: ClassVar[torch.dtype] = torch.int64

    of: str = "image"
    bound: tuple[int, int] | None = None

    def example(self, count: int, device: torch.device | str | None = None) -> Tensor:
        return torch.ones(count, 2, dtype=torch.int64, device=device)


@dataclass(frozen=True, kw_only=True)
class Label(Entry):
    """int64 [B], or float32 [B, K] once a regularizer mixed labels."""

    shape: ClassVar[tuple[int, ...]] = ()
    dtype: ClassVar[torch.dtype] = torch.int64

    classes: tuple[str, ...]

    def example(self, count: int, device: torch.device | str | None = None) -> Tensor:
        return torch.arange(count, device=device) % len(self.classes)

    def read(self, source: Path | str) -> Tensor:
        """A class by its name or number."""

        text = str(source)
        if text in self.classes:
            return torch.tensor([self.classes.index(text)])
        if text.isdecimal() and int(text) < len(self.classes):
            return torch.tensor([int(text)])
        known = ", ".join(self.classes[:20]) + (", ..." if len(self.classes) > 20 else "")
        raise UserError(f"{text}: unknown class{nearest(text, self.classes) or ';'} classes: {known}")

    def draw(self, value: Tensor) -> list[str]:
        label = value.argmax(-1) if value.is_floating_point() else value
        return [self.classes[number] for number in label.tolist()]


@dataclass(frozen=True, kw_only=True)
class Attributes(Entry):
    """float32 [B, K] of 0 and 1, a column for each name."""

    names: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.names),)

    def read(self, source: Path | str) -> Tensor:
        """Names with commas between, those that hold."""

        value = torch.zeros(1, len(self.names))
        for name in filter(None, (part.strip() for part in str(source).split(","))):
            if name not in self.names:
                raise UserError(f"{name}: unknown attribute{nearest(name, self.names) or ';'} {', '.join(self.names)}")
            value[0, self.names.index(name)] = 1
        return value

    def draw(self, value: Tensor) -> list[str]:
        rows = (value > 0.5).tolist()
        return [", ".join(name for name, holds in zip(self.names, row, strict=True) if holds) for row in rows]


@dataclass(frozen=True, kw_only=True)
class Reals(Entry):
    """float32 [B, F]. names: of the columns, or none. modes: the centres of a mixture of Gaussians that the data are
    known to be drawn from, of standard deviation `mode_std` each."""

    holds_rows: ClassVar[bool] = True

    size: int = 1
    names: tuple[str, ...] = ()
    modes: tuple[tuple[float, ...], ...] = ()
    mode_std: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    def read(self, source: Path | str) -> Tensor:
        """The rows of a .csv or .npy file, [B, F]; a .csv may begin with a line of names."""
        return torch.from_numpy(read_rows(Path(source), self.size, self.names)).float()

    def draw(self, value: Tensor) -> list[str]:
        return [" ".join(f"{number:.6g}" for number in row) for row in value.tolist()]


@dataclass(frozen=True, kw_only=True)
class Boxes(Entry):
    """float32 [B, M, 5]: x1, y1, x2, y2 in pixels of the image `of`, and the class; padding rows have class -1.

    classes: names, without a background. most: boxes of the image that has the most. ids: the classes' `category_id` in
    COCO's files; none counts from 1.
    """

    classes: tuple[str, ...]
    most: int
    of: str = "image"
    ids: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.most, 5)

    def example(self, count: int, device: torch.device | str | None = None) -> Tensor:
        boxes = torch.zeros(count, self.most, 5, device=device)
        boxes[..., 2:4] = 1
        return boxes

    def draw(self, value: Tensor) -> list[str]:
        return [
            ", ".join(
                f"{self.classes[int(row[4])]} {row[0]:.0f} {row[1]:.0f} {row[2]:.0f} {row[3]:.0f}"
                for row in boxes
                if row[4] >= 0
            )
            for boxes in value.tolist()
        ]


@dataclass(frozen=True, kw_only=True)
class Mask(Entry):
    """int64 [B, H, W]: the class of each pixel of the image `of`; `void` marks pixels that do not count."""

    dtype: ClassVar[torch.dtype] = torch.int64

    classes: tuple[str, ...]
    height: int
    width: int
    void: int = 255
    of: str = "image"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.height, self.width)

    @property
    def palette(self) -> Tensor:
        """A color for each class, the background dark gray, and at last black for void, uint8 [K + 1, 3]."""
        hue = torch.arange(len(self.classes)) / max(1, len(self.classes))
        angle = 2 * torch.pi * (hue.unsqueeze(1) + torch.tensor([0.0, 1 / 3, 2 / 3]))
        palette_K3 = torch.cat([(0.55 + 0.45 * angle.cos()) * 255, torch.zeros(1, 3)])
        if self.classes[0] == "background":
            palette_K3[0] = 60
        return palette_K3.to(torch.uint8)

    def draw(self, value: Tensor) -> Tensor:
        """Each class in a color of its own."""
        index = value.cpu().where(value.cpu() != self.void, len(self.classes))
        return self.palette[index]


@dataclass(frozen=True, kw_only=True)
class Proposals(Entry):
    """float32 [B, M, 4]: x1, y1, x2, y2 of regions of the image `of` that may hold an object; padding rows are -1."""

    is_made: ClassVar[bool] = True

    most: int
    of: str = "image"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.most, 4)

    def example(self, count: int, device: torch.device | str | None = None) -> Tensor:
        boxes = torch.zeros(count, self.most, 4, device=device)
        boxes[..., 2:] = 1
        return boxes


@dataclass(frozen=True, kw_only=True)
class Tokens(Entry):
    """int64 [B, L]. vocabulary: how many tokens there are; length: of the longest text; tokenizer: what turns texts
    into tokens (dlx/tasks/tokenizer.py), as JSON.

    Marks among the tokens, None where the data have none: pad fills up shorter texts, each text begins with `begin` and
    ends with `end`, `mask` stands for a hidden token. Text is what lies between the marks.
    """

    dtype: ClassVar[torch.dtype] = torch.int64
    is_text: ClassVar[bool] = True

    vocabulary: int
    length: int
    pad: int | None = None
    begin: int | None = None
    end: int | None = None
    mask: int | None = None
    tokenizer: str | None = None

    files: ClassVar[tuple[str, ...]] = ("tokenizer",)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def marks(self) -> tuple[int, ...]:
        """The tokens that are no text."""
        return tuple(mark for mark in (self.pad, self.begin, self.end, self.mask) if mark is not None)

    def example(self, count: int, device: torch.device | str | None = None) -> Tensor:
        """Texts of full length, all of the last token: no marks, so that none of it is left out of a loss."""
        return torch.full((count, self.length), self.vocabulary - 1, dtype=torch.int64, device=device)

    def valid(self, tokens: Tensor) -> Tensor:
        """Where a token is no padding, bool [B, L']."""
        return tokens != self.pad if self.pad is not None else torch.ones_like(tokens, dtype=torch.bool)

    def load_tokenizer(self) -> Any:
        """Raises UserError where the data have none."""
        if self.tokenizer is None:
            raise UserError("tokens: these data have no tokenizer, so that texts cannot be read or shown")
        return load_tokenizer(self.tokenizer)

    def marked(self, ids: Sequence[int]) -> list[int]:
        """The tokens of a text between its marks."""
        return [*([] if self.begin is None else [self.begin]), *ids, *([] if self.end is None else [self.end])]

    def read(self, source: Path | str) -> Tensor:
        """A text, or the content of a file, between its marks, [1, L'] with L' at most L."""

        name = str(source) if isinstance(source, Path) else repr(source if len(source) <= 40 else f"{source[:39]}…")
        try:
            text = source.read_text(encoding="utf-8").removesuffix("\n") if isinstance(source, Path) else source
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{name}: no text that can be read ({error})") from None
        try:
            ids = self._encode(text)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        if not ids:
            raise UserError(f"{name}: holds no tokens")
        ids = self.marked(ids)
        if len(ids) > self.length:
            raise UserError(f"{name}: has {len(ids)} tokens; at most {self.length} are read")
        return torch.tensor([ids])

    def _encode(self, text: str) -> list[int]:
        """The tokens of a text, in which [MASK] is the mask where there is one."""
        tokenizer = self.load_tokenizer()
        if self.mask is None or MASK not in text:
            return list(tokenizer.encode(text))
        first, *rest = (list(tokenizer.encode(part)) if part else [] for part in text.split(MASK))
        return first + [token for part in rest for token in (self.mask, *part)]

    def padded(self, value: Tensor) -> Tensor:
        """Texts [B, L'] filled up to L, where there is a token for it."""
        missing = self.length - value.shape[1]
        return value if self.pad is None else torch.nn.functional.pad(value, (0, missing), value=self.pad)

    def text(self, ids: Sequence[int]) -> list[int]:
        """The tokens of one row that are text: up to `end`, without marks."""
        ids = list(ids)
        if self.end is not None and self.end in ids:
            ids = ids[: ids.index(self.end)]
        return [token for token in ids if token not in self.marks]

    def draw(self, value: Tensor) -> list[str]:
        rows = [self.text(row) for row in value.tolist()]
        if self.tokenizer is None:
            return [" ".join(map(str, row)) for row in rows]
        return [self.load_tokenizer().decode(row) for row in rows]


@dataclass(frozen=True, kw_only=True)
class TokenLabels(Entry):
    """int64 [B, L]: the class of each token of the entry `of`; `ignore` marks positions that do not count."""

    dtype: ClassVar[torch.dtype] = torch.int64

    classes: tuple[str, ...]
    length: int
    ignore: int = -100
    of: str = "tokens"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    def draw(self, value: Tensor) -> list[str]:
        return [" ".join(self.classes[label] for label in row if label != self.ignore) for row in value.tolist()]


@dataclass(frozen=True, kw_only=True)
class RealSequence(Entry):
    """float32 [B, T, F]: F real numbers at each of T steps. names: of the F, or none."""

    length: int
    size: int = 1
    names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length, self.size)

    def read(self, source: Path | str) -> Tensor:
        """A series, [1, T, F]: the rows of a .csv or .npy file are its steps; a .csv may begin with a line of names."""
        return torch.from_numpy(read_rows(Path(source), self.size, self.names)).float().unsqueeze(0)


@dataclass(frozen=True, kw_only=True)
class Episode(Entry):
    """int64 [B]: the seed that an episode of an environment begins with; what an evaluation of a policy reads."""

    shape: ClassVar[tuple[int, ...]] = ()
    dtype: ClassVar[torch.dtype] = torch.int64


@dataclass(frozen=True, kw_only=True)
class Match(Entry):
    """int64 [B]: what an image shows, by number. Two images of one number, of two sides, show the same thing, and each
    is what the other should be translated to. known: False where no such pairs are known in any split."""

    shape: ClassVar[tuple[int, ...]] = ()
    dtype: ClassVar[torch.dtype] = torch.int64

    known: bool = True
    of: str = "image"

    def example(self, count: int, device: torch.device | str | None = None) -> Tensor:
        return torch.arange(count, device=device)


S = TypeVar("S", bound="Spec")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Base of all specs: its fields are entries. `targets` names those that a system learns to answer with, or is
    scored on; the others are its inputs."""

    targets: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        for name in vars(cls).get("__annotations__", {}):
            if hasattr(Spec, name) and name != "targets":
                raise TypeError(f"{cls.__name__}.{name}: an entry cannot have the name of an attribute of Spec")

    @cached_property
    def entries(self) -> dict[str, Entry]:
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: entry for name, entry in found.items() if entry is not None}

    @property
    def inputs(self) -> dict[str, Entry]:
        return {name: entry for name, entry in self.entries.items() if name not in self.targets}

    @property
    def given(self) -> tuple[str, ...]:
        """The inputs that a person gives."""
        return tuple(name for name, entry in self.inputs.items() if not entry.is_made)

    def of_kind(self, kind: type[Entry], *, of: str | None = None) -> dict[str, Any]:
        """The entries of a kind, also those `of` an image alone."""
        found = {name: entry for name, entry in self.entries.items() if isinstance(entry, kind)}
        return {name: entry for name, entry in found.items() if of is None or getattr(entry, "of", None) == of}

    def narrow(self, kind: type[S]) -> S:
        """A spec of a class with that class's entries; optional entries are left out."""
        names = [field.name for field in fields(kind) if field.default is MISSING]
        if type(self) is kind and set(names) == set(self.entries):
            return self
        return kind(**{name: self.entries[name] for name in names})

    def example(self, count: int, device: torch.device | str | None = None) -> Batch:
        """A batch of the right dtypes and shapes."""
        return example(self.entries, count, device)

    def read(self, name: str, source: Path | str) -> Batch:
        """One entry of a file or text as a normalized batch; texts are filled up to their full length.

        An image in which places are told (boxes, masks) comes whole: padded, or, where the spec has a `Size`, without
        padding and scaled as that says (or down to the largest). Beside it come `size`, `scale` (float32 [1]: pixels of
        the batch for one of the file) and `file_size` (int64 [1, 2]: height and width of the file).
        """
        entry, sizes = self.entries[name], self.of_kind(Size, of=name)
        is_whole = sizes or any(self.of_kind(kind, of=name) for kind in (Boxes, Mask))
        if not isinstance(entry, Image) or not is_whole:
            value = entry.read(source)
            return {name: entry.padded(value) if isinstance(entry, Tokens) else value}
        if sizes:
            (bound,) = (one.bound for one in sizes.values())
            image, scale = entry.read_inside(source, bound or (entry.height, entry.width), enlarge=bound is not None)
            size = (image.shape[-2], image.shape[-1])
        else:
            image, size, scale = entry.read_whole(source)
        return {
            name: image,
            next(iter(sizes), "size"): torch.tensor([size]),
            "scale": torch.tensor([scale]),
            "file_size": torch.tensor([size_of_file(Path(source))]),
        }

    def to_dict(self) -> dict[str, Any]:
        """A plain mapping with `_target_`, from which `dlx.training.load.load_spec` makes the same spec. Leaves out
        texts that are `files`."""
        entries = {}
        for name, entry in self.entries.items():
            kept = [field.name for field in fields(entry) if field.name not in entry.files]
            entries[name] = {"_target_": _path(entry), **{key: getattr(entry, key) for key in kept}}
        return {"_target_": _path(self), "format": FORMAT, "entries": entries}

    def files(self) -> dict[str, str]:
        """The files beside spec.json: contents by name."""
        return {
            f"{name}.{field}": text
            for name, entry in self.entries.items()
            for field in entry.files
            if (text := getattr(entry, field)) is not None
        }


def _path(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__name__}"


def example(entries: Mapping[str, Entry], count: int, device: torch.device | str | None = None) -> Batch:
    batch = {name: entry.example(count, device) for name, entry in entries.items()}
    return {**batch, "index": torch.arange(count, device=device)}


def normalize(entries: Mapping[str, Entry], batch: Batch, names: Sequence[str]) -> Batch:
    """The batch with the entries of those names normalized; beyond an image's size it is 0."""
    for name in names:
        batch[name] = entries[name].normalize(batch[name])
    for name, entry in entries.items():
        if isinstance(entry, Size) and entry.of in names:
            image = batch[entry.of]
            height_B, width_B = batch[name].unbind(1)
            rows_BH = torch.arange(image.shape[-2], device=image.device) < height_B.unsqueeze(1)
            columns_BW = torch.arange(image.shape[-1], device=image.device) < width_B.unsqueeze(1)
            batch[entry.of] = image * (rows_BH.unsqueeze(-1) & columns_BW.unsqueeze(-2)).unsqueeze(1)
    return batch


# The specs that datasets and systems share. What is neither is a class of a few lines beside the system that reads it.


@dataclass(frozen=True, kw_only=True)
class Images(Spec):
    """proposals: where `dataset.proposals` asks for them; a system that reads them says so in its own spec."""

    image: Image
    proposals: Proposals | None = None


@dataclass(frozen=True, kw_only=True)
class LabeledImages(Images):
    label: Label
    targets = ("label",)


@dataclass(frozen=True, kw_only=True)
class BoxedImages(Images):
    boxes: Boxes
    targets = ("boxes",)


@dataclass(frozen=True, kw_only=True)
class ProposedBoxes(BoxedImages):
    proposals: Proposals = field()  # none as its default, unlike that of Images


@dataclass(frozen=True, kw_only=True)
class SizedBoxedImages(BoxedImages):
    """Images of several sizes, padded to the largest."""

    size: Size


@dataclass(frozen=True, kw_only=True)
class SizedProposedBoxes(ProposedBoxes, SizedBoxedImages):
    pass  # in this order: its proposals are those of ProposedBoxes, which must be there


@dataclass(frozen=True, kw_only=True)
class MaskedImages(Images):
    mask: Mask
    targets = ("mask",)


@dataclass(frozen=True, kw_only=True)
class SizedMaskedImages(MaskedImages):
    """Images of several sizes, padded to the largest; beyond an image its mask is void."""

    size: Size


@dataclass(frozen=True, kw_only=True)
class AttributedImages(Images):
    attributes: Attributes
    targets = ("attributes",)


@dataclass(frozen=True, kw_only=True)
class CaptionedImages(Images):
    caption: Tokens


@dataclass(frozen=True, kw_only=True)
class UnpairedImages(Spec):
    """Images of two sides, of which none belongs to another."""

    image_a: Image
    image_b: Image


@dataclass(frozen=True, kw_only=True)
class MatchedImages(UnpairedImages):
    """Images of two sides, some of which may be known to belong together: to measure a translation, not to learn it."""

    match_a: Match
    match_b: Match
    targets = ("match_a", "match_b")


@dataclass(frozen=True, kw_only=True)
class Streams(Spec):
    """Windows of a stream, or texts."""

    tokens: Tokens


@dataclass(frozen=True, kw_only=True)
class LabeledTokens(Streams):
    label: Label
    targets = ("label",)


@dataclass(frozen=True, kw_only=True)
class TaggedTokens(Streams):
    """Texts with a class at each token."""

    labels: TokenLabels
    targets = ("labels",)


@dataclass(frozen=True, kw_only=True)
class SentencePairs(Streams):
    """[CLS] A [SEP] B [SEP] as `begin` and `end`; segment is 0 for A and 1 for B; the label says whether B follows A in
    the text."""

    segment: TokenLabels
    follows: Label
    targets = ("follows",)


@dataclass(frozen=True, kw_only=True)
class Translations(Spec):
    source: Tokens
    target: Tokens
    targets = ("target",)


@dataclass(frozen=True, kw_only=True)
class Points(Spec):
    features: Reals


@dataclass(frozen=True, kw_only=True)
class LabeledReals(Points):
    label: Label
    targets = ("label",)


@dataclass(frozen=True, kw_only=True)
class RegressionReals(Points):
    target: Reals
    targets = ("target",)


@dataclass(frozen=True, kw_only=True)
class Series(Spec):
    """Real-valued series, as windows."""

    series: RealSequence


@dataclass(frozen=True, kw_only=True)
class RegressionSequences(Spec):
    """A sequence of real numbers, and one answer to it."""

    sequence: RealSequence
    target: Reals
    targets = ("target",)


@dataclass(frozen=True, kw_only=True)
class Episodes(Spec):
    """Transitions of an environment to learn from, and seeds of episodes to be evaluated on."""

    observation: Reals
    action: Label
    reward: Reals
    next_observation: Reals
    terminated: Reals
    episode: Episode
    targets = ("action", "reward", "next_observation", "terminated")
