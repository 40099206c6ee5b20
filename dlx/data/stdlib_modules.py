"""Which module of Python's standard library a line comes from: labelled texts that come with the interpreter."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dlx.config import checks
from dlx.data.labeled_text import LabeledTexts, Sample
from dlx.data.stdlib import MODULES, marked_tokenizer, source
from dlx.random import generator

if TYPE_CHECKING:
    from dlx.tasks.tokenizer import Tokenizer

SHORTEST, LONGEST = 20, 100  # characters of a line


class StdlibModules(LabeledTexts):
    """Lines of 20 to 100 characters, without the spaces before them, of ten modules; a line that is there twice, in one
    module or in two, is left out, so that no line that is tested on was trained on.

    lines: at most of each module, drawn by data_seed, whatever the run's seed. tokens, vocabulary, length, root: as
    every labelled text's; with the same settings the tokens are those of `sentence_pairs`.
    """

    def __init__(
        self,
        *,
        tokens: str = "characters",
        vocabulary: int = 1024,
        length: int = 128,
        lines: int = 1000,
        data_seed: int = 0,
        root: Path | None = None,
    ) -> None:
        super().__init__(tokens=tokens, vocabulary=vocabulary, length=length, root=root)
        checks.at_least(10, lines=lines)
        self.lines, self.data_seed = lines, data_seed

    def samples(self) -> dict[str, list[Sample]]:
        there = {name: [line.strip() for line in source(name).split("\n")] for name in MODULES}
        counts = Counter(line for lines in there.values() for line in lines)
        found: list[Sample] = []
        for number, (name, lines) in enumerate(there.items()):
            kept = [line for line in lines if SHORTEST <= len(line) <= LONGEST and counts[line] == 1]
            order = torch.randperm(len(kept), generator=generator(self.data_seed, "stdlib modules", number))
            found += [(kept[position], name, "") for position in order[: self.lines].sort().values.tolist()]
        return {"train": found}

    def make_tokenizer(self) -> Tokenizer:
        return marked_tokenizer(self.tokens, self.vocabulary, self.root)
