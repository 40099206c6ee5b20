"""A person's own text, a file of UTF-8, as a stream of tokens."""

from __future__ import annotations

import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

from dlx.data.text import TextStream, read_text


class TextFile(TextStream):
    """A file's first 90 % are trained on, the next 5 % validate and the last 5 % test.

    path: the file. tokens, vocabulary, length, root: as every text's.
    """

    def __init__(
        self,
        *,
        path: Path,
        tokens: str = "characters",
        vocabulary: int = 1024,
        length: int = 128,
        root: Path | None = None,
    ) -> None:
        super().__init__(tokens=tokens, vocabulary=vocabulary, length=length, root=root)
        self.path = Path(path).expanduser()

    @cached_property
    def _text(self) -> str:
        return read_text(self.path)

    def texts(self) -> dict[str, str]:
        return {"text": self._text}

    def fingerprint(self) -> dict[str, Any]:
        return fingerprint({self.path: self._text})


def fingerprint(texts: dict[Path, str]) -> dict[str, Any]:
    """Where the first file lies, and the characters and checksum of each."""
    samples = {path.name: checksum(text) for path, text in texts.items()}
    return {"path": str(next(iter(texts)).absolute()), "samples": samples}


def checksum(text: str) -> str:
    """The number of its characters and the CRC-32 of its bytes."""
    return f"{len(text)} {zlib.crc32(text.encode()):08x}"
