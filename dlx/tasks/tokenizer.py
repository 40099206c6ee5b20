"""Tokenizers: texts to tokens and back. A tokenizer is kept as JSON, beside the spec that names it.

Each has `first`: tokens below it are marks (padding, begin, end, mask), which no text becomes. One with `lower` reads
all texts in lower case.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Protocol

from dlx.config.errors import UserError
from dlx.config.extras import require


class Tokenizer(Protocol):
    first: int
    lower: bool
    size: int
    """How many tokens there are, marks included."""

    def encode(self, text: str) -> list[int]:
        """Raises UserError for a text that cannot be told in these tokens."""
        ...

    def decode(self, tokens: list[int]) -> str:
        """Marks are left out; what no token stands for is shown as \ufffd."""
        ...

    def byte_lengths(self) -> list[int]:
        """Bytes of UTF-8 that each token stands for, marks 0; [size]."""
        ...

    def to_json(self) -> str: ...


class Characters:
    """A token for each character of an alphabet; `first` is the number of the first one."""

    def __init__(self, alphabet: str, first: int = 0, *, lower: bool = False) -> None:
        self.alphabet, self.first, self.size, self.lower = alphabet, first, first + len(alphabet), lower
        self._number = {letter: first + number for number, letter in enumerate(alphabet)}

    def encode(self, text: str) -> list[int]:
        """Raises UserError for a character that the alphabet lacks."""
        text = text.lower() if self.lower else text
        if unknown := {letter for letter in text if letter not in self._number}:
            raise UserError(f"characters that the vocabulary lacks: {' '.join(map(repr, sorted(unknown)[:10]))}")
        return [self._number[letter] for letter in text]

    def decode(self, tokens: list[int]) -> str:
        numbers = [token - self.first for token in tokens if token >= self.first]
        return "".join(self.alphabet[number] if number < len(self.alphabet) else "\ufffd" for number in numbers)

    def byte_lengths(self) -> list[int]:
        return [0] * self.first + [len(letter.encode(errors="surrogatepass")) for letter in self.alphabet]

    def to_json(self) -> str:
        return _to_json(self, "characters", alphabet=self.alphabet)


class Bytes:
    """A token for each byte of UTF-8: it can tell every text."""

    def __init__(self, first: int = 0, *, lower: bool = False) -> None:
        self.first, self.size, self.lower = first, first + 256, lower

    def encode(self, text: str) -> list[int]:
        return [self.first + byte for byte in (text.lower() if self.lower else text).encode()]

    def decode(self, tokens: list[int]) -> str:
        numbers = [token - self.first for token in tokens if token >= self.first]
        return bytes(number for number in numbers if number < 256).decode(errors="replace")

    def byte_lengths(self) -> list[int]:
        return [0] * self.first + [1] * 256

    def to_json(self) -> str:
        return _to_json(self, "bytes")


class Words:
    """A token for each word of a list, with spaces between; words that it lacks are `unknown`, the last token."""

    def __init__(self, words: list[str], first: int = 0, *, lower: bool = False) -> None:
        self.words, self.first, self.size, self.lower = words, first, first + len(words) + 1, lower
        self._number = {word: first + number for number, word in enumerate(words)}

    def encode(self, text: str) -> list[int]:
        return [self._number.get(word, self.size - 1) for word in (text.lower() if self.lower else text).split()]

    def decode(self, tokens: list[int]) -> str:
        numbers = [token - self.first for token in tokens if token >= self.first]
        return " ".join(self.words[number] if number < len(self.words) else "\ufffd" for number in numbers)

    def byte_lengths(self) -> list[int]:
        return [0] * self.first + [len(word.encode()) + 1 for word in self.words] + [2]

    def to_json(self) -> str:
        return _to_json(self, "words", words=self.words)


class Subwords:
    """BPE or WordPiece of the `tokenizers` library (dlx/data/tokenizing.py trains them); its own numbers, marks first.

    content: its JSON. Raises UserError where the library is missing or the JSON is none of it.
    """

    def __init__(self, content: str, first: int = 0, *, lower: bool = False) -> None:
        require("a tokenizer of subwords", "nlp", "tokenizers")
        from tokenizers import Tokenizer as Library

        try:
            self._library = Library.from_str(content)
        except Exception as error:  # the library raises plain Exceptions
            raise UserError(f"tokenizer: not one of the tokenizers library ({error})") from None
        self._content, self.first, self.size, self.lower = content, first, self._library.get_vocab_size(), lower

    def encode(self, text: str) -> list[int]:
        return list(self._library.encode(text.lower() if self.lower else text, add_special_tokens=False).ids)

    def decode(self, tokens: list[int]) -> str:
        return str(self._library.decode([token for token in tokens if token >= self.first]))

    def byte_lengths(self) -> list[int]:
        """Of a byte-level BPE each character of a piece is a byte; of a WordPiece `##` is none, and a space comes
        before a word."""
        model = json.loads(self._content)["model"]["type"]
        lengths = [0] * self.size
        for piece, number in self._library.get_vocab().items():
            if number >= self.first:
                whole = model == "WordPiece" and not piece.startswith("##")
                text = piece.removeprefix("##") if model == "WordPiece" else piece
                lengths[number] = whole + (len(text.encode()) if model == "WordPiece" else len(text))
        return lengths

    def to_json(self) -> str:
        return _to_json(self, "subwords", content=self._content)


def _to_json(tokenizer: Tokenizer, kind: str, **content: Any) -> str:
    lower = {"lower": True} if tokenizer.lower else {}
    return json.dumps({"type": kind, **content, "first": tokenizer.first, **lower}, ensure_ascii=False)


@cache
def load_tokenizer(text: str) -> Any:
    """A tokenizer from the output of `to_json`. Raises UserError for anything else."""
    try:
        content = json.loads(text)
        kind, first, lower = content["type"], content["first"], content.get("lower", False)
        if kind == "characters":
            return Characters(content["alphabet"], first, lower=lower)
        if kind == "bytes":
            return Bytes(first, lower=lower)
        if kind == "words":
            return Words(content["words"], first, lower=lower)
        if kind == "subwords":
            return Subwords(content["content"], first, lower=lower)
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError("tokenizer: not a tokenizer that dlx knows")
