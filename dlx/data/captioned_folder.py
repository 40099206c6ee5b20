"""CaptionedFolder: a person's own images with captions: a text file for each image, a CSV, or COCO's captions JSON
(Chen et al. 2015, arXiv:1504.00325)."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import torch

from dlx.config import checks
from dlx.data.annotations import Faults, counted
from dlx.data.archive import Files, as_text, suffix_of
from dlx.data.coco import words_of
from dlx.data.dataset import Dataset, Source
from dlx.data.files import data_root
from dlx.data.image_folder import ImageFolder
from dlx.data.layouts import splits_of, text_lines
from dlx.data.splits import held_out
from dlx.data.text import BEGIN, END, MARKED, pad_rows
from dlx.data.tokenizing import check_tokens, is_learned, make_tokenizer, tokenizer_of
from dlx.random import uniform_rows
from dlx.tasks.spec import CaptionedImages, Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch
    from dlx.tasks.tokenizer import Tokenizer

IMAGE_COLUMNS = ("image", "file_name", "filename", "file", "path")
CAPTION_COLUMNS = ("caption", "text", "description")
KEPT = "captions.json"

Found = tuple[str, str, str, str]
"""An image as a file names it, its caption, the file, and the field that says so."""


class CaptionedFolder(Dataset):
    """Images and their captions, one or several each: in an epoch an image comes with one of them, drawn anew.

    path: a directory or archive (.tar, also compressed, or .zip). The captions are in .json files of COCO's layout;
    else in .csv files with a line for each caption and the columns image and caption; else in a .txt file for each
    image, of the same name but for its ending, beside it or in another folder, with a caption a line. Folders train,
    val and test (or such words in the names of the .json and .csv files) are splits.

    tokens: words, characters, bytes, bpe, wordpiece, or the path of a tokenizer.json, made of the training texts.
    vocabulary: the most words or subwords. lower: all in lower case. length: tokens, marks included; longer captions
    are cut, and a note says how many. split_seed: draws the test split where no folder gives one. The others are as
    ImageFolder has them.
    """

    keeps = ("tokens", "vocabulary", "lower")

    def __init__(
        self,
        *,
        path: Path,
        size: int | tuple[int, int] | None = None,
        channels: Literal[1, 3] = 3,
        background: Literal["white", "black"] = "white",
        tokens: str = "words",
        vocabulary: int = 4096,
        lower: bool = True,
        length: int = 64,
        on_error: Literal["raise", "skip"] = "raise",
        root: Path | None = None,
        split_seed: int = 0,
    ) -> None:
        check_tokens(tokens, vocabulary, len(MARKED))
        checks.at_least(3, length=length)
        self.images = _Pictures(
            path=path, size=size, channels=channels, background=background, on_error=on_error, root=root
        )
        self.tokens, self.vocabulary, self.lower, self.length = tokens, vocabulary, lower, length
        self.root, self.split_seed = data_root(root), split_seed

    @cached_property
    def captions(self) -> dict[str, list[list[str]]]:
        """Those of each image, by split, in the order of the images."""
        return self.images.captions()

    def _known(self) -> list[str]:
        """The captions that the tokenizer may learn from: those of images that are not tested on."""
        if not is_learned(self.tokens):
            return [text for part in self.captions.values() for texts in part for text in texts]
        part = self.captions["train"]
        held = torch.zeros(len(part), dtype=torch.bool)
        if "test" not in self.captions:
            no_classes = torch.zeros(len(part), dtype=torch.int64)
            held = held_out(no_classes, self.images.keys("train"), self.split_seed, "test")
        return [text for texts, tested in zip(part, held.tolist(), strict=True) for text in texts if not tested]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return make_tokenizer(
            self.tokens, self._known(), self.vocabulary, len(MARKED), lower=self.lower, root=self.root
        )

    def adopt(self, spec: Spec) -> None:
        self.tokenizer = tokenizer_of(spec, "caption") or self.tokenizer

    @cached_property
    def spec(self) -> CaptionedImages:  # type: ignore[override]
        tokenizer = self.tokenizer
        return CaptionedImages(
            image=self.images.spec.image,
            caption=Tokens(vocabulary=tokenizer.size, length=self.length, tokenizer=tokenizer.to_json(), **MARKED),
        )

    @cached_property
    def _rows(self) -> dict[str, list[list[list[int]]]]:
        encode = self.tokenizer.encode
        return {name: [[encode(text) for text in texts] for texts in part] for name, part in self.captions.items()}

    def splits(self) -> dict[str, Source]:
        found: dict[str, Source] = {}
        for name, images in self.images.splits().items():
            rows = self._rows[name]
            marked = [[BEGIN, *row[: self.length - 2], END] for texts in rows for row in texts]
            tokens_ML, _ = pad_rows(marked, self.tokenizer.size, self.length)
            count_N = torch.tensor([len(texts) for texts in rows])
            found[name] = Captions(images.tensors["image"], tokens_ML, count_N, images.keys)
        return found

    def notes(self) -> list[str]:
        rows = [row for part in self._rows.values() for texts in part for row in texts]
        cut = sum(len(row) > self.length - 2 for row in rows)
        long = [f"{cut} of {len(rows)} captions are longer than {self.length} tokens and are cut"] if cut else []
        return [*self.images.notes(), *long]

    def fingerprint(self) -> dict[str, Any]:
        """Names, sizes and checksums of all images, and those of their captions."""
        return self.images.fingerprint()


class Captions:
    """Images, each with one of its captions, which `draw` decides.

    image: uint8 [N, C, H, W]. caption: tokens of all captions, [M, L], those of the first image first. count: how many
    each image has, int64 [N].
    """

    lengths = None

    def __init__(
        self, image: Tensor, caption_ML: Tensor, count_N: Tensor, keys: Sequence[str] | None, *,
        names: Collection[str] = ("image", "caption"),
    ) -> None:  # fmt: skip
        self.image, self.caption, self.count, self.keys, self.names = image, caption_ML, count_N, keys, names
        self.start = count_N.cumsum(0) - count_N

    def __len__(self) -> int:
        return len(self.image)

    def only(self, names: Collection[str]) -> Captions:
        source = copy(self)
        source.names = names
        return source

    def take(self, index: Tensor, draw: int = 0) -> Batch:
        batch = {"image": self.image[index]} if "image" in self.names else {}
        if "caption" in self.names:
            count_B = self.count[index]
            number_B = (uniform_rows("caption", index + (draw & ((1 << 62) - 1))) * count_B).long()
            batch["caption"] = self.caption[self.start[index] + number_B.minimum(count_B - 1)]
        return batch


class _Pictures(ImageFolder):
    """The images that have captions, all of one class, and the captions beside their arrays."""

    def __init__(self, *, path: Path, **given: Any) -> None:
        super().__init__(path=path, **given)
        self.files = Files(path, texts=(".txt", ".csv", ".json"))
        self._found: dict[str, list[str]] = {}
        self._more: list[str] = []

    @property
    def settings(self) -> str:
        return f"{super().settings} captions 1"

    def arrange(self, names: list[str]) -> tuple[list[str], dict[str, list[tuple[str, int]]]]:
        faults = Faults(self.files.path, self.on_error)
        self._found, words = read_captions(self.files, faults)
        faults.check()
        if not self._found:
            raise ValueError("holds no image with a caption")
        left_out = len(self.files.images) - len(self._found)
        if left_out and not faults.lines:
            self._more.append(f"{counted(left_out, 'image')} without a caption left out")
        self._more += faults.notes()
        self.files.seen.empty.clear()  # folders are no classes
        splits: dict[str, list[tuple[str, int]]] = {}
        for name, split in splits_of(words).items():
            splits.setdefault(split, []).append((name, 0))
        return ["image"], splits

    def _decode(self, into: Path) -> None:
        super()._decode(into)
        facts = json.loads((into / "facts.json").read_text(encoding="utf-8"))
        of = {as_text(name): texts for name, texts in self._found.items()}
        kept = {split: [of[name] for name, _ in part] for split, part in facts["samples"].items()}
        content = {"captions": kept, "notes": self._more}
        (into / KEPT).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @cached_property
    def _texts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._kept / KEPT).read_text(encoding="utf-8"))
        return found

    def captions(self) -> dict[str, list[list[str]]]:
        found: dict[str, list[list[str]]] = self._texts["captions"]
        return found

    def keys(self, split: str) -> list[str]:
        return [name for name, _ in self._facts["samples"][split]]

    def notes(self) -> list[str]:
        return [*self._facts["notes"], *self._texts["notes"]]

    def fingerprint(self) -> dict[str, Any]:
        found = super().fingerprint()
        texts = {
            f"{split}: {name}": " | ".join(own)
            for split, part in self.captions().items()
            for name, own in zip(self.keys(split), part, strict=True)
        }
        return {**found, "samples": {key: f"{content} {texts[key]}" for key, content in found["samples"].items()}}


def read_captions(files: Files, faults: Faults) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The captions of each image, in the order of the images' names, and the words of folders and files that may mean
    its split. Raises ValueError for a file that is not of its layout; what is wrong with an image is a fault."""
    texts = files.texts
    by_suffix = {suffix: sorted(n for n in texts if suffix_of(n) == suffix) for suffix in (".json", ".csv", ".txt")}
    coco = {name: content for name in by_suffix[".json"] if (content := _coco(name, texts[name])) is not None}
    captions: dict[str, list[str]] = defaultdict(list)
    words: dict[str, list[str]] = {}
    find = _Finder(files.images)
    if not coco and not by_suffix[".csv"]:
        if not by_suffix[".txt"]:
            raise ValueError("holds no captions: a .json of COCO's layout, a .csv, or a .txt for each image")
        for name, lines in _beside(files, by_suffix[".txt"], find, faults):
            captions[name], words[name] = lines, words_of(f"{PurePosixPath(name).parent}")
        return dict(sorted(captions.items())), words
    rows = [row for name, content in coco.items() for row in _coco_rows(name, content, faults)]
    if not coco:
        rows = [row for name in by_suffix[".csv"] for row in _csv_rows(name, texts[name], faults)]
    for image, caption, file, field in rows:
        found = find(image, file)
        if found is None:
            faults.add(file, field, f"there is no image {image}, or several", of="image")
        elif not caption.strip():
            faults.add(file, field, "the caption is empty", of="object")
        else:
            captions[found].append(" ".join(caption.split()))
            words.setdefault(found, [*words_of(f"{PurePosixPath(found).parent}"), *words_of(file)])
    return dict(sorted(captions.items())), words


class _Finder:
    """Images by how files name them: by their path or its end, or by their name without an ending."""

    def __init__(self, images: Sequence[str]) -> None:
        self.by_name, self.by_stem = defaultdict(list), defaultdict(list)
        for name in images:
            path = PurePosixPath(name)
            self.by_name[path.name].append(path)
            self.by_stem[path.stem].append(path)

    def __call__(self, image: str, file: str) -> str | None:
        """The image of that path: of several the one below the file's folder; None for none or several."""
        parts = PurePosixPath(image).parts
        found = [
            path for path in self.by_name.get(parts[-1] if parts else "", []) if path.parts[-len(parts) :] == parts
        ]
        below = [path for path in found if path.is_relative_to(PurePosixPath(file).parent)]
        return next((str(some[0]) for some in (found, below) if len(some) == 1), None)

    def beside(self, text: str) -> str | None:
        """The image of a text's name: the one in its folder, else the one in a folder of the same name, else the only
        one there is."""
        path = PurePosixPath(text)
        found = self.by_stem.get(path.stem, [])
        near = [one for one in found if one.parent == path.parent]
        alike = [one for one in found if one.parent.name == path.parent.name]
        return next((str(some[0]) for some in (near, alike, found) if len(some) == 1), None)


def _beside(files: Files, names: Sequence[str], find: _Finder, faults: Faults) -> Iterator[tuple[str, list[str]]]:
    """Images with the lines of their text files. Texts of other names, such as a README, are not read."""
    text_of: dict[str, str] = {}
    for name in names:
        if image := find.beside(name):
            if image in text_of:
                faults.add(name, "name", f"{text_of[image]} is of the same image", of="object")
            else:
                text_of[image] = name
    for image in files.images:
        if image not in text_of:
            faults.add(image, "caption", "there is no text of this name", of="image")
        elif lines := [" ".join(line.split()) for line in text_lines(text_of[image], files.texts[text_of[image]])]:
            yield image, lines
        else:
            faults.add(text_of[image], "caption", "the text is empty", of="image")


def _coco(name: str, content: bytes) -> dict[str, Any] | None:
    """What a .json holds; None where it has no captions. Raises ValueError for what is no JSON."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: no JSON that can be read ({error})") from None
    if not isinstance(found, dict) or not all(isinstance(found.get(part), list) for part in ("images", "annotations")):
        return None
    has_captions = any(isinstance(one, Mapping) and "caption" in one for one in found["annotations"])
    return found if has_captions else None


def _coco_rows(file: str, content: dict[str, Any], faults: Faults) -> Iterator[Found]:
    names: dict[Any, str] = {}
    for number, one in enumerate(content["images"]):
        key, name = (one.get(part) if isinstance(one, dict) else None for part in ("id", "file_name"))
        if not isinstance(key, int | str) or not isinstance(name, str):
            faults.add(file, f"images[{number}]", "has no id or no file_name", of="image")
        else:
            names[key] = name
    for number, one in enumerate(content["annotations"]):
        key, text = (one.get(part) if isinstance(one, dict) else None for part in ("image_id", "caption"))
        if not isinstance(key, int | str) or key not in names:
            faults.add(file, f"annotations[{number}].image_id", f"there is no image {key!r}", of="object")
        elif not isinstance(text, str):
            faults.add(file, f"annotations[{number}].caption", f"must be a text, got {text!r:.60}", of="object")
        else:
            yield names[key], text, file, f"annotations[{number}]"


def _csv_rows(file: str, content: bytes, faults: Faults) -> Iterator[Found]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: no text that can be read ({error})") from None
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        places = [
            next((names.index(n) for n in known if n in names), None) for known in (IMAGE_COLUMNS, CAPTION_COLUMNS)
        ]
        image, caption = places
        if image is None or caption is None:
            raise ValueError(f"{file}: its first line must name the columns image and caption, has {', '.join(names)}")
        for row in reader:
            if row and len(row) != len(names):
                reason = f"has {len(row)} columns, the first line has {len(names)}"
                faults.add(file, f"line {reader.line_num}", reason, of="object")
            elif row:
                yield row[image].strip(), row[caption], file, f"line {reader.line_num}"
    except csv.Error as error:
        raise ValueError(f"{file}: line {reader.line_num} is no CSV ({error})") from None
