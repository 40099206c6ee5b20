"""Tokenizers: texts to tokens and back. A tokenizer is kept as JSON, beside the spec that names it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from dlx.config.errors import UserError


class Characters:
    """A token for each character of an alphabet; `first` is the number of the first one."""

    def __init__(self, alphabet: str, first: int = 0) -> None:
        self.alphabet, self.first = alphabet, first
        self._number = {letter: first + number for number, letter in enumerate(alphabet)}

    def encode(self, text: str) -> list[int]:
        """Raises UserError for a character that the alphabet lacks."""
        if unknown := {letter for letter in text if letter not in self._number}:
            raise UserError(f"characters that the vocabulary lacks: {' '.join(map(repr, sorted(unknown)[:10]))}")
        return [self._number[letter] for letter in text]

    def decode(self, tokens: list[int]) -> str:
        """Tokens below `first` (padding, marks) are left out; those beyond the alphabet are shown as \ufffd."""
        numbers = [token - self.first for token in tokens if token >= self.first]
        return "".join(self.alphabet[number] if number < len(self.alphabet) else "\ufffd" for number in numbers)

    def to_json(self) -> str:
        return json.dumps({"type": "characters", "alphabet": self.alphabet, "first": self.first}, ensure_ascii=False)


@cache
def load_tokenizer(text: str) -> Any:
    """A tokenizer from the output of `to_json`. Raises UserError for anything else."""
    try:
        content = json.loads(text)
        if content["type"] == "characters":
            return Characters(content["alphabet"], content["first"])
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError("tokenizer: not a tokenizer that dlx knows")
