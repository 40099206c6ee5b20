"""WikiText (Merity et al. 2016, arXiv:1609.07843): articles of Wikipedia, by the `datasets` library."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.config.extras import require
from dlx.data.text import TextStream


class WikiText(TextStream):
    """The published splits, without changes to the text.

    size: 2 has two million words to train on, 103 a hundred million. download: fetch what is not there. root: where the
    library keeps it, and where trained tokenizers are. tokens, vocabulary, length: as every text's.
    """

    repository: ClassVar[str] = "Salesforce/wikitext"

    def __init__(
        self,
        *,
        size: Literal[2, 103] = 2,
        download: bool = True,
        tokens: str = "bpe",
        vocabulary: int = 8192,
        length: int = 128,
        root: Path | None = None,
    ) -> None:
        super().__init__(tokens=tokens, vocabulary=vocabulary, length=length, root=root)
        checks.one_of((2, 103), size=size)
        self.size, self.download = size, download

    def texts(self) -> dict[str, str]:
        require("dataset wikitext", "nlp", "datasets")
        from datasets import DownloadConfig, load_dataset

        try:
            parts = load_dataset(
                self.repository,
                f"wikitext-{self.size}-raw-v1",
                cache_dir=str(self.root / "wikitext"),
                download_config=DownloadConfig(local_files_only=not self.download),
            )
        except Exception as error:  # the library raises errors of many kinds
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"dataset wikitext: cannot be downloaded ({reason})") from None
        names = {"train": "train", "val": "validation", "test": "test"}
        return {name: "".join(parts[theirs]["text"]) for name, theirs in names.items()}
