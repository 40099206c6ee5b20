"""Texts as tensors: reading of files, streams in windows, and padded rows of tokens."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.data.dataset import Dataset, Source, Windows
from dlx.data.files import data_root
from dlx.data.tokenizing import check_tokens, is_learned, make_tokenizer, tokenizer_of
from dlx.tasks.spec import Streams, Tokens
from dlx.tasks.tokenizer import Bytes, Characters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from dlx.tasks.spec import Spec
    from dlx.tasks.tokenizer import Tokenizer

HELD_OUT = 20  # a twentieth of a text validates, another tests
PAD, BEGIN, END, MASK = range(4)
MARKED = {"pad": PAD, "begin": BEGIN, "end": END, "mask": MASK}


def smallest(vocabulary: int) -> torch.dtype:
    """The smallest dtype that holds tokens below `vocabulary`."""
    return torch.uint8 if vocabulary <= 1 << 8 else torch.int16 if vocabulary <= 1 << 15 else torch.int32


def read_text(path: Path, key: str = "path") -> str:
    """A file of UTF-8. Raises UserError naming the file, and the byte that is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"dataset.{key}: {path}: cannot be read ({error.strerror})") from None
    return decode(content, path, key)


def decode(content: bytes, path: Path, key: str = "path") -> str:
    """The text of a file's bytes; a mark of the byte order at its beginning is left out, lines end with a newline."""
    try:
        text = content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"dataset.{key}: {path}: not UTF-8 (byte {error.start} is 0x{content[error.start]:02x})"
        ) from None
    if not text.strip():
        raise UserError(f"dataset.{key}: {path}: the file is empty")
    return text


def encode_stream(tokenizer: Tokenizer, text: str) -> Tensor:
    """The tokens of a long text, [T], in the smallest dtype."""
    dtype = smallest(tokenizer.size)
    text = text.lower() if tokenizer.lower else text
    if isinstance(tokenizer, Bytes) and not tokenizer.first:
        return torch.from_numpy(np.frombuffer(text.encode(), np.uint8).copy())
    if isinstance(tokenizer, Characters) and list(tokenizer.alphabet) == sorted(tokenizer.alphabet):
        codes, alphabet = (np.frombuffer(part.encode("utf-32-le"), np.uint32) for part in (text, tokenizer.alphabet))
        number = np.searchsorted(alphabet, codes)
        if len(alphabet) and (alphabet[number.clip(max=len(alphabet) - 1)] == codes).all():
            return torch.from_numpy(number + tokenizer.first).to(dtype)
    return torch.tensor(tokenizer.encode(text), dtype=dtype)


def pad_rows(rows: Sequence[Sequence[int]], vocabulary: int, length: int | None = None) -> tuple[Tensor, Tensor]:
    """Rows of tokens filled up with PAD to the longest, [N, L] in the smallest dtype, and their lengths, int64 [N]."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
    filled = np.full((len(rows), length or int(lengths.max())), PAD, np.int64)
    for number, row in enumerate(rows):
        filled[number, : len(row)] = row
    return torch.from_numpy(filled).to(smallest(vocabulary)), lengths


class TextStream(Dataset):
    """Base of datasets that are one text: windows over its tokens. A subclass defines `texts`.

    tokens: characters, bytes, words, bpe, wordpiece, or the path of a tokenizer.json; words and subwords are learned
    from the training text alone. vocabulary: the most words or subwords. length: tokens of a window; neighbours share
    one, so that each token but the text's first is predicted once. root: where trained tokenizers are kept.
    """

    keeps = ("tokens", "vocabulary")

    def __init__(
        self, *, tokens: str = "characters", vocabulary: int = 1024, length: int = 128, root: Path | None = None
    ) -> None:
        check_tokens(tokens, vocabulary)
        checks.at_least(2, length=length)
        self.tokens, self.vocabulary, self.length, self.root = tokens, vocabulary, length, data_root(root)

    def texts(self) -> Mapping[str, str]:
        """`train`, `val` and `test`; or `text`, whose first 90 % are trained on, whose next 5 % validate and whose last
        5 % test."""
        raise NotImplementedError(f"{type(self).__name__} defines no texts")

    def make_tokenizer(self, texts: Sequence[str]) -> Tokenizer:
        return make_tokenizer(self.tokens, texts, self.vocabulary, root=self.root)

    @cached_property
    def _parts(self) -> Mapping[str, str]:
        parts = self.texts()
        if "text" not in parts:
            return parts
        text = parts["text"]
        held = len(text) // HELD_OUT
        end = len(text) - 2 * held
        return {"train": text[:end], "val": text[end : end + held], "test": text[end + held :]}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        parts = self._parts
        return self.make_tokenizer([parts["train"]] if is_learned(self.tokens) else list(parts.values()))

    def adopt(self, spec: Spec) -> None:
        self.tokenizer = tokenizer_of(spec) or self.tokenizer

    @cached_property
    def streams(self) -> dict[str, Tensor]:
        """The tokens of each split, kept once. Raises UserError for a text shorter than a window."""
        found = {name: encode_stream(self.tokenizer, text) for name, text in self._parts.items()}
        for name, stream in found.items():
            if len(stream) < self.length:
                raise UserError(
                    f"dataset.length: a window of {self.length} tokens is longer than the {len(stream)} tokens of the "
                    f"{name} split"
                )
        return found

    @cached_property
    def spec(self) -> Streams:  # type: ignore[override]
        tokenizer = self.tokenizer
        return Streams(tokens=Tokens(vocabulary=tokenizer.size, length=self.length, tokenizer=tokenizer.to_json()))

    def splits(self) -> dict[str, Source]:
        return {name: Windows(stream, self.length, stride=self.length - 1) for name, stream in self.streams.items()}
