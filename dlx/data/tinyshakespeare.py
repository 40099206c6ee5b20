"""Tiny Shakespeare (Karpathy 2015, char-rnn): 1,115,394 characters of plays, of 65 kinds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

from dlx.config.errors import UserError
from dlx.data.files import fetch
from dlx.data.text import TextStream, read_text


class TinyShakespeare(TextStream):
    """The first 90 % are trained on, the next 5 % validate and the last 5 % test.

    path: the file, where it is at hand. download: fetch it otherwise. root: where it is, in the folder tinyshakespeare,
    with trained tokenizers. tokens, vocabulary, length: as every text's.
    """

    url: ClassVar[str] = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/"
    md5: ClassVar[str] = "6fb458f1232090904fb40fe944165e91"

    def __init__(
        self,
        *,
        path: Path | None = None,
        download: bool = True,
        tokens: str = "characters",
        vocabulary: int = 1024,
        length: int = 128,
        root: Path | None = None,
    ) -> None:
        super().__init__(tokens=tokens, vocabulary=vocabulary, length=length, root=root)
        self.path, self.download = None if path is None else Path(path).expanduser(), download

    def _locate(self) -> Path:
        own = self.root / "tinyshakespeare" / "input.txt"
        if self.path is not None or own.is_file():
            return self.path or own
        advice = f"Put input.txt from {self.url} into {own.parent}/, or say with dataset.path= where it is."
        return fetch(self.url, own, self.md5, allowed=self.download, advice=advice)

    def texts(self) -> dict[str, str]:
        path = self._locate()
        text = read_text(path)
        if (found := hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()) != self.md5:
            raise UserError(
                f"dataset.path: {path}: damaged, or not the published text (md5 {found}, not {self.md5}); "
                "data=text_file reads any text"
            )
        return {"text": text}
