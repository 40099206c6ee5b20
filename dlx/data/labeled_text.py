"""Labelled texts of a person's own: a CSV with the columns text and label, or a folder per class with .txt files."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.data.files import data_root
from dlx.data.image_folder import split_of
from dlx.data.splits import held_out
from dlx.data.text import BEGIN, END, MARKED, pad_rows, read_text
from dlx.data.text_file import checksum, fingerprint
from dlx.data.tokenizing import check_tokens, is_learned, make_tokenizer, tokenizer_of
from dlx.tasks.spec import Label, LabeledTokens, Tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from dlx.tasks.spec import Spec
    from dlx.tasks.tokenizer import Tokenizer

COLUMNS = ("text", "label")
Sample = tuple[str, str, str]
"""Text, class, and name (of a file; empty where it has none)."""


class LabeledTexts(Dataset):
    """Base of datasets of labelled texts, each between the marks begin ([CLS]) and end ([SEP]), padded to `length`.

    tokens: characters, bytes, words, bpe, wordpiece, or the path of a tokenizer.json; words and subwords are learned
    from texts that are not tested on. vocabulary: the most words or subwords. length: tokens, marks included; longer
    texts are cut, and a note says how many. split_seed: draws the test split where `samples` gives none.
    """

    keeps = ("tokens", "vocabulary")

    def __init__(
        self,
        *,
        tokens: str = "characters",
        vocabulary: int = 1024,
        length: int = 128,
        root: Path | None = None,
        split_seed: int = 0,
    ) -> None:
        check_tokens(tokens, vocabulary, len(MARKED))
        checks.at_least(3, length=length)
        self.tokens, self.vocabulary, self.length, self.root = tokens, vocabulary, length, data_root(root)
        self.split_seed = split_seed

    def samples(self) -> Mapping[str, Sequence[Sample]]:
        """Of `train`, and of `val` and `test` where they are given."""
        raise NotImplementedError(f"{type(self).__name__} defines no samples")

    def make_tokenizer(self) -> Tokenizer:
        parts = {"train": self._known} if is_learned(self.tokens) else self.given
        texts = [text for part in parts.values() for text, *_ in part]
        return make_tokenizer(self.tokens, texts, self.vocabulary, len(MARKED), root=self.root)

    @property
    def _known(self) -> list[Sample]:
        """The training samples without those that `SplitSettings` takes from them for the test split."""
        samples = self.given["train"]
        if "test" in self.given:
            return list(samples)
        held = held_out(self._labels("train"), self._keys("train"), self.split_seed, "test")
        return [sample for sample, tested in zip(samples, held.tolist(), strict=True) if not tested]

    def _labels(self, part: str) -> Tensor:
        number = {label: n for n, label in enumerate(self.classes)}
        return torch.tensor([number[label] for _, label, _ in self.given[part]])

    def _keys(self, part: str) -> list[str] | None:
        keys = [key for *_, key in self.given[part]]
        return keys if all(keys) else None

    @cached_property
    def given(self) -> Mapping[str, Sequence[Sample]]:
        """The output of `samples()`, computed once."""
        return self.samples()

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({label for _, label, _ in self.given["train"]}))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return self.make_tokenizer()

    def adopt(self, spec: Spec) -> None:
        self.tokenizer = tokenizer_of(spec) or self.tokenizer

    @cached_property
    def _rows(self) -> dict[str, list[list[int]]]:
        encode = self.tokenizer.encode
        return {name: [encode(text) for text, *_ in part] for name, part in self.given.items()}

    @cached_property
    def spec(self) -> LabeledTokens:  # type: ignore[override]
        tokenizer = self.tokenizer
        return LabeledTokens(
            tokens=Tokens(vocabulary=tokenizer.size, length=self.length, tokenizer=tokenizer.to_json(), **MARKED),
            label=Label(classes=self.classes),
        )

    def splits(self) -> dict[str, Source]:
        found: dict[str, Source] = {}
        for name, rows in self._rows.items():
            marked = [[BEGIN, *row[: self.length - 2], END] for row in rows]
            tokens_NL, lengths_N = pad_rows(marked, self.tokenizer.size, self.length)
            source = TensorSource(tokens=tokens_NL, label=self._labels(name))
            source.lengths, source.keys = {"tokens": lengths_N}, self._keys(name)
            found[name] = source
        return found

    def notes(self) -> list[str]:
        rows = [row for part in self._rows.values() for row in part]
        cut = sum(len(row) > self.length - 2 for row in rows)
        return [f"{cut} of {len(rows)} texts are longer than {self.length} tokens and are cut"] if cut else []


class LabeledText(LabeledTexts):
    """path: a CSV whose first line names the columns text and label, or a directory with a folder for each class, or
    with folders train, and test or val, that hold them. The other settings are those of every labelled text.

    Without a test folder a fifth is the test split.
    """

    def __init__(
        self,
        *,
        path: Path,
        tokens: str = "characters",
        vocabulary: int = 1024,
        length: int = 256,
        root: Path | None = None,
        split_seed: int = 0,
    ) -> None:
        super().__init__(tokens=tokens, vocabulary=vocabulary, length=length, root=root, split_seed=split_seed)
        self.path = Path(path).expanduser()

    def samples(self) -> dict[str, list[Sample]]:
        found = read_folders(self.path) if self.path.is_dir() else {"train": read_csv(self.path)}
        classes = {name: Counter(label for _, label, _ in part) for name, part in found.items()}
        if len(classes["train"]) < 2:
            raise UserError(f"dataset.path: {self.path}: has one class only, {next(iter(classes['train']))}")
        for label, count in sorted(classes["train"].items()):
            if count < 2:
                raise UserError(f"dataset.path: {self.path}: class {label} has one text, where at least 2 are needed")
        for name, counts in classes.items():
            if unknown := sorted(set(counts) - set(classes["train"])):
                raise UserError(f"dataset.path: {self.path}: {name} has a class that train has not, {unknown[0]}")
        return found

    def fingerprint(self) -> dict[str, Any]:
        if self.path.is_file():
            return fingerprint({self.path: read_text(self.path)})
        samples = {f"{name}: {key}": checksum(text) for name, part in self.given.items() for text, _, key in part}
        return {"path": str(self.path.absolute()), "samples": samples}


def read_csv(path: Path) -> list[Sample]:
    """The rows of a CSV. Raises UserError naming the line of a fault."""
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        names = [name.strip().lower() for name in next(reader)]
        if missing := [name for name in COLUMNS if name not in names]:
            raise UserError(
                f"dataset.path: {path}: must have the columns text and label, has {', '.join(names)} "
                f"(without {' and '.join(missing)})"
            )
        text, label = (names.index(name) for name in COLUMNS)
        found = []
        for row in reader:
            if not row:
                continue
            if len(row) != len(names):
                raise UserError(
                    f"dataset.path: {path}: line {reader.line_num} has {len(row)} columns, the first has {len(names)}"
                )
            if not row[text].strip() or not row[label].strip():
                what = "text" if row[label].strip() else "label"
                raise UserError(f"dataset.path: {path}: line {reader.line_num} has no {what}")
            found.append((row[text].strip(), row[label].strip(), ""))
    except csv.Error as error:
        raise UserError(f"dataset.path: {path}: line {reader.line_num} is no CSV ({error})") from None
    if not found:
        raise UserError(f"dataset.path: {path}: holds no texts")
    return found


def read_folders(path: Path) -> dict[str, list[Sample]]:
    """The .txt files of class folders, by split. Raises UserError."""
    tops = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    split = {folder: split_of(folder.name) for folder in tops}
    if not tops or not all(split.values()) or any(any(folder.glob("*.txt")) for folder in tops):
        found = {"train": _read_classes(path)}
    else:
        found = {str(split[folder]): _read_classes(folder) for folder in tops}
        if "train" not in found:
            raise UserError(f"dataset.path: {path}: has no train folder")
    for name, part in found.items():
        if not part:
            raise UserError(f"dataset.path: {path}: {name} has no class folders with .txt files")
    return found


def _read_classes(path: Path) -> list[Sample]:
    files = sorted(path.glob("*/*.txt"))
    return [(read_text(file).strip(), file.parent.name, file.relative_to(path).as_posix()) for file in files]
