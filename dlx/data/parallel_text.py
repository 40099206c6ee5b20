"""Parallel texts: line by line the same in two languages, in two files or in one of two columns (TSV)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.data.files import data_root
from dlx.data.pairs import FIRST, Pair, TextPairs
from dlx.data.splits import held_out
from dlx.data.text import read_text
from dlx.data.text_file import fingerprint
from dlx.data.tokenizing import check_tokens, is_learned, make_tokenizer, tokenizer_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlx.tasks.spec import Spec
    from dlx.tasks.tokenizer import Tokenizer


class ParallelPairs(TextPairs):
    """Base of parallel texts: one tokenizer for both sides, made of the training texts (an alphabet: of all).

    tokens: bpe, wordpiece, words, characters, bytes, or the path of a tokenizer.json. vocabulary: the most words or
    subwords. lower: all in lower case. most: pairs with more tokens on a side, marks included, are left out.
    """

    keeps = ("tokens", "vocabulary", "lower")

    def __init__(
        self,
        *,
        tokens: str = "bpe",
        vocabulary: int = 8000,
        lower: bool = False,
        most: int | None = None,
        root: Path | None = None,
    ) -> None:
        check_tokens(tokens, vocabulary, FIRST)
        checks.at_least(FIRST, most=most)
        self.tokens, self.vocabulary, self.lower, self.most = tokens, vocabulary, lower, most
        self.root = data_root(root)

    def read(self) -> Mapping[str, Sequence[Pair]]:
        """(source, target) of `train`, and of `val` and `test` where they are given, as they are in the files."""
        raise NotImplementedError(f"{type(self).__name__} defines no read")

    @cached_property
    def _read(self) -> dict[str, list[Pair]]:
        parts = self.read()
        if not self.lower:
            return {name: list(pairs) for name, pairs in parts.items()}
        return {name: [(a.lower(), b.lower()) for a, b in pairs] for name, pairs in parts.items()}

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        learned = {"train": self._read["train"]} if is_learned(self.tokens) else self._read
        texts = ["\n".join(pair[side] for pair in pairs) for pairs in learned.values() for side in (0, 1)]
        if self.tokens == "characters":
            texts = [text.replace("\n", "") for text in texts]
        return make_tokenizer(self.tokens, texts, self.vocabulary, FIRST, lower=self.lower, root=self.root)

    def adopt(self, spec: Spec) -> None:
        self._tokenizer = tokenizer_of(spec, "source") or self._tokenizer

    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        return self._tokenizer, self._tokenizer

    def pairs(self) -> dict[str, list[Pair]]:
        return self._read

    def notes(self) -> list[str]:
        there = sum(map(len, self.given.values()))
        left_out = there - sum(len(source) for source, _ in self.rows.values())
        return [f"{left_out} of {there} pairs have more than {self.most} tokens and are left out"] if left_out else []


class ParallelText(ParallelPairs):
    """path: a file whose lines have a source, a tab and a target; or, with `target`, a file of sources. target: the
    file of their targets, line by line. split_seed: draws the fifth that is tested on, before the tokenizer learns from
    the rest and long pairs are left out. The other settings are those of every parallel text."""

    def __init__(
        self,
        *,
        path: Path,
        target: Path | None = None,
        tokens: str = "bpe",
        vocabulary: int = 8000,
        lower: bool = False,
        most: int | None = None,
        root: Path | None = None,
        split_seed: int = 0,
    ) -> None:
        super().__init__(tokens=tokens, vocabulary=vocabulary, lower=lower, most=most, root=root)
        self.path, self.split_seed = Path(path).expanduser(), split_seed
        self.target = None if target is None else Path(target).expanduser()

    @cached_property
    def _texts(self) -> dict[Path, str]:
        found = {self.path: read_text(self.path)}
        return found if self.target is None else {**found, self.target: read_text(self.target, "target")}

    def read(self) -> dict[str, list[Pair]]:
        text = self._texts[self.path]
        if self.target is None:
            pairs = read_columns(text, self.path)
        else:
            pairs = read_lines(text, self._texts[self.target], self.path, self.target)
        if len(pairs) < 3:
            raise UserError(f"dataset.path: {self.path}: {len(pairs)} pairs are too few to split")
        held = held_out(torch.zeros(len(pairs), dtype=torch.int64), None, self.split_seed, "test").tolist()
        parts = {"train": False, "test": True}
        return {name: [pair for pair, h in zip(pairs, held, strict=True) if h == of] for name, of in parts.items()}

    def fingerprint(self) -> dict[str, Any]:
        return fingerprint(self._texts)


def lines_of(text: str) -> list[str]:
    """Lines, without an empty end: those of files, not of Unicode, which has more marks that end a line."""
    return text.removesuffix("\n").split("\n")


def read_lines(source: str, target: str, source_path: Path, target_path: Path) -> list[Pair]:
    """The pairs of two texts, line by line; those that are empty on both sides are left out. Raises UserError."""
    sides = lines_of(source), lines_of(target)
    if len(sides[0]) != len(sides[1]):
        raise UserError(
            f"dataset.path: {source_path} has {len(sides[0])} lines and {target_path} has {len(sides[1])}: they must "
            "be equally many"
        )
    pairs = [(a.strip(), b.strip()) for a, b in zip(*sides, strict=True)]
    for number, pair in enumerate(pairs, 1):
        if bool(pair[0]) != bool(pair[1]):
            path = target_path if pair[0] else source_path
            raise UserError(f"dataset.path: {path}: line {number} is empty, and that of the other side is not")
    return [pair for pair in pairs if pair[0]]


def read_columns(text: str, path: Path) -> list[Pair]:
    """The pairs of lines of two columns with a tab between; empty lines are left out. Raises UserError."""
    pairs = []
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) != 2 or not all(columns):
            there = sum(map(bool, columns))
            raise UserError(f"dataset.path: {path}: line {number} must have 2 columns with a tab between, has {there}")
        pairs.append((columns[0], columns[1]))
    return pairs
