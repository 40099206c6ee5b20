"""Pairs of texts, padded, as translations: a source ends with its mark, a target lies between begin and end."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from dlx.config.errors import UserError
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.data.text import BEGIN, END, PAD, pad_rows
from dlx.tasks.spec import Tokens, Translations

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlx.tasks.tokenizer import Tokenizer

Pair = tuple[str, str]
FIRST = 3  # marks: padding, begin, end


class TextPairs(Dataset):
    """Base of datasets of pairs of texts. A subclass defines `pairs` and `tokenizers`.

    Batches are of pairs of similar length. The vocabularies may be one, so that embeddings can be tied. most: pairs
    with more tokens on a side, marks included, are left out.
    """

    most: int | None = None

    def pairs(self) -> Mapping[str, Sequence[Pair]]:
        """(source, target) of `train`, and of `val` and `test` where they are given."""
        raise NotImplementedError(f"{type(self).__name__} defines no pairs")

    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """Of sources and of targets."""
        raise NotImplementedError(f"{type(self).__name__} defines no tokenizers")

    @cached_property
    def given(self) -> Mapping[str, Sequence[Pair]]:
        """The output of `pairs()`, computed once."""
        return self.pairs()

    @cached_property
    def rows(self) -> dict[str, tuple[list[list[int]], list[list[int]]]]:
        """Tokens of the sources and targets between their marks. Raises UserError where `most` leaves none."""
        source, target = self.tokenizers()
        found = {}
        for name, pairs in self.given.items():
            rows = [([*source.encode(a), END], [BEGIN, *target.encode(b), END]) for a, b in pairs]
            if self.most is not None:
                rows = [row for row in rows if max(map(len, row)) <= self.most]
            if self.most is not None and not rows:
                raise UserError(f"dataset.most: no pair of {name} has at most {self.most} tokens on each side")
            found[name] = ([a for a, _ in rows], [b for _, b in rows])
        return found

    def longest(self) -> tuple[int, int]:
        """Tokens of the longest source and target, marks included."""
        sides = zip(*self.rows.values(), strict=True)
        source, target = (max(len(row) for part in side for row in part) for side in sides)
        return source, target

    @cached_property
    def spec(self) -> Translations:  # type: ignore[override]
        (source, target), (of_source, of_target) = self.tokenizers(), self.longest()
        return Translations(
            source=Tokens(vocabulary=source.size, length=of_source, pad=PAD, end=END, tokenizer=source.to_json()),
            target=Tokens(
                vocabulary=target.size, length=of_target, pad=PAD, begin=BEGIN, end=END, tokenizer=target.to_json()
            ),
        )

    def splits(self) -> dict[str, Source]:
        (of_source, of_target), spec = self.longest(), self.spec
        found: dict[str, Source] = {}
        for name, (source, target) in self.rows.items():
            source_NS, source_length = pad_rows(source, spec.source.vocabulary, of_source)
            target_NL, target_length = pad_rows(target, spec.target.vocabulary, of_target)
            found[name] = TensorSource(source=source_NS, target=target_NL)
            found[name].lengths = {"source": source_length, "target": target_length}  # type: ignore[attr-defined]
        return found
