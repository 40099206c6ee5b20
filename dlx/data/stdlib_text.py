"""The source of Python's standard library as a stream of tokens, embedded: it comes with the interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dlx.config import checks
from dlx.data.stdlib import ALPHABET, modules, source
from dlx.data.text import TextStream
from dlx.tasks.tokenizer import Characters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlx.tasks.tokenizer import Tokenizer


class StdlibText(TextStream):
    """Modules in the order of their names, up to `size` characters; the last 5 % test, the 5 % before validate.

    Characters are a new line and printable ASCII, others are left out: a vocabulary of 96 for any version of Python.
    The text itself is that of the running interpreter. tokens, vocabulary, length, root: as every text's.
    """

    def __init__(
        self,
        *,
        tokens: str = "characters",
        vocabulary: int = 1024,
        length: int = 128,
        size: int = 1_000_000,
        root: Path | None = None,
    ) -> None:
        super().__init__(tokens=tokens, vocabulary=vocabulary, length=length, root=root)
        checks.at_least(1000, size=size)
        self.size = size

    def texts(self) -> dict[str, str]:
        parts, total = [], 0
        for name in modules():
            parts.append(source(name))
            total += len(parts[-1]) + 1
            if total > self.size:
                break
        return {"text": "\n".join(parts)[: self.size]}

    def make_tokenizer(self, texts: Sequence[str]) -> Tokenizer:
        return Characters(ALPHABET) if self.tokens == "characters" else super().make_tokenizer(texts)
