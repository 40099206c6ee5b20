"""Multi30k (Elliott et al. 2016, arXiv:1605.00459): 31,014 captions of pictures in English and German."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import ClassVar, Literal

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.data.files import fetch
from dlx.data.pairs import Pair
from dlx.data.parallel_text import ParallelPairs, read_lines
from dlx.data.text import decode


class Multi30k(ParallelPairs):
    """The published splits of task 1: 29,000 pairs to train on, 1,014 to validate, the 1,000 of 2016 to test.

    direction: de-en is German to English. path: the directory of train.de, train.en, val.de, ..., test_2016_flickr.en,
    packed (.gz) or not; without it they are looked for in root's folder multi30k, and fetched if download is true. The
    other settings are those of every parallel text.
    """

    url: ClassVar[str] = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
    files: ClassVar[dict[str, str]] = {
        "train.de.gz": "81ff90b99829c0cd4b1b587d394afd39",
        "train.en.gz": "0065d13af80720a55ca8153d126e6627",
        "val.de.gz": "6e0e229eb049e3fc99a1ef02fb2d5f91",
        "val.en.gz": "2b69aa9253948ac9f67e94917272dd40",
        "test_2016_flickr.de.gz": "efd67d314d98489b716b145475101932",
        "test_2016_flickr.en.gz": "ff2c0fcb4893a13bd73414306bc250ae",
    }
    """The md5 of each, as downloaded."""

    def __init__(
        self,
        *,
        direction: Literal["de-en", "en-de"] = "de-en",
        path: Path | None = None,
        download: bool = True,
        tokens: str = "bpe",
        vocabulary: int = 8000,
        lower: bool = True,
        most: int | None = None,
        root: Path | None = None,
    ) -> None:
        super().__init__(tokens=tokens, vocabulary=vocabulary, lower=lower, most=most, root=root)
        checks.one_of(("de-en", "en-de"), direction=direction)
        self.languages = direction.split("-")
        self.path, self.download = None if path is None else Path(path).expanduser(), download

    def _locate(self, name: str) -> Path:
        own = self.root / "multi30k"
        folder = self.path or own
        for found in (folder / name, folder / name.removesuffix(".gz")):
            if found.is_file():
                return found
        if self.path is not None:
            raise UserError(f"dataset.path: {self.path}: has no {name}, nor {name.removesuffix('.gz')}")
        advice = f"Put {', '.join(self.files)} from {self.url} into {own}/, or say with dataset.path= where they are."
        return fetch(self.url, own / name, self.files[name], allowed=self.download, advice=advice)

    def read(self) -> dict[str, list[Pair]]:
        found = {}
        for split, stem in {"train": "train", "val": "val", "test": "test_2016_flickr"}.items():
            a, b = (self._locate(f"{stem}.{language}.gz") for language in self.languages)
            found[split] = read_lines(_read(a), _read(b), a, b)
        return found


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
        return decode(gzip.decompress(content) if path.suffix == ".gz" else content, path)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"dataset.path: {path}: cannot be read ({error})") from None
