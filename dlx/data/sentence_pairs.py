"""Pairs of lines of which the second follows the first, or not: what BERT is trained on (Devlin et al. 2019,
arXiv:1810.04805)."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.data.dataset import Dataset, Source
from dlx.data.files import data_root
from dlx.data.stdlib import MODULES, marked_tokenizer, modules, plain
from dlx.data.text import BEGIN, END, HELD_OUT, MARKED, PAD, pad_rows, read_text
from dlx.data.text_file import fingerprint
from dlx.data.tokenizing import check_tokens, is_learned, make_tokenizer, tokenizer_of
from dlx.random import uniform_rows
from dlx.tasks.spec import Label, SentencePairs, TokenLabels, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch
    from dlx.tasks.tokenizer import Tokenizer

SHORTEST = 10  # characters of a line
DOCSTRING = re.compile(r'^ *[rR]?"""(.*?)"""', re.MULTILINE | re.DOTALL)


class PairSource:
    """[CLS] A [SEP] B [SEP] for each line A that another follows. Half of the time, by a coin, B is that line, else any
    other. fixed: the same coins whatever the draw, for evaluation.

    line_NS: tokens of all lines, padded. length_N: of each. follower: lines that follow the one before them.
    """

    def __init__(self, line_NS: Tensor, length_N: Tensor, follower: Tensor, length: int, *, fixed: bool) -> None:
        self.line_NS, self.length_N, self.follower, self.length, self.fixed = line_NS, length_N, follower, length, fixed

    def __len__(self) -> int:
        return len(self.follower)

    def take(self, index: Tensor, draw: int = 0) -> Batch:
        second_B = self.follower[index]
        first_B = second_B - 1
        # Each sample's own numbers: they depend on its index and the draw, not on the batch that it is in.
        u_B2 = uniform_rows("sentence pairs", index + (0 if self.fixed else draw & ((1 << 62) - 1)), 2)
        follows_B = u_B2[:, 0] < 0.5
        # Any line but the true one: those after it move down by one.
        other_B = (u_B2[:, 1] * (len(self.length_N) - 1)).long().clamp_max(len(self.length_N) - 2)
        other_B = other_B + (other_B >= second_B)
        second_B = second_B.where(follows_B, other_B)
        # Columns of A's tokens and B's within their lines; what lies outside is a mark or padding.
        position_L = torch.arange(self.length)
        a_B1, b_B1 = self.length_N[first_B].unsqueeze(1), self.length_N[second_B].unsqueeze(1)
        in_a_BL, in_b_BL = position_L - 1, position_L - a_B1 - 2
        widest = self.line_NS.shape[1] - 1
        a_BL = self.line_NS[first_B].gather(1, in_a_BL.clamp(0, widest).expand(len(index), -1)).long()
        b_BL = self.line_NS[second_B].gather(1, in_b_BL.clamp(0, widest)).long()
        tokens_BL = torch.full((len(index), self.length), PAD)
        tokens_BL = a_BL.where((in_a_BL >= 0) & (in_a_BL < a_B1), tokens_BL)
        tokens_BL = b_BL.where((in_b_BL >= 0) & (in_b_BL < b_B1), tokens_BL)
        tokens_BL[(in_a_BL == a_B1) | (in_b_BL == b_B1)] = END
        tokens_BL[:, 0] = BEGIN
        segment_BL = ((in_b_BL >= 0) & (in_b_BL <= b_B1)).long()
        return {"tokens": tokens_BL, "segment": segment_BL, "follows": follows_B.long()}


class SentencePairsText(Dataset):
    """Lines of the standard library's docstrings, or of a text. Which B is drawn anew in each epoch of the training.

    path: a text whose documents are separated by empty lines; none is the docstrings of ten modules. tokens:
    characters, bytes, words, bpe, wordpiece, or the path of a tokenizer.json; words and subwords are learned from the
    training documents alone, and without a path they are those of `stdlib_modules`. vocabulary: the most words or
    subwords. length: tokens of a pair, marks included; lines are cut to half of that. root: where trained tokenizers
    are kept.

    The first 90 % of the lines are trained on, the next 5 % validate and the last 5 % test.
    """

    keeps = ("tokens", "vocabulary")

    def __init__(
        self,
        *,
        path: Path | None = None,
        tokens: str = "characters",
        vocabulary: int = 1024,
        length: int = 128,
        root: Path | None = None,
    ) -> None:
        check_tokens(tokens, vocabulary, len(MARKED))
        checks.at_least(8, length=length)
        self.path = None if path is None else Path(path).expanduser()
        self.tokens, self.vocabulary, self.length, self.root = tokens, vocabulary, length, data_root(root)

    @cached_property
    def documents(self) -> list[list[str]]:
        """Lines that follow each other, at least two a document. Raises UserError where there are too few."""
        texts = docstrings() if self.path is None else read_text(self.path).split("\n\n")
        documents = []
        for text in texts:
            lines = [line.strip() for line in text.split("\n")]
            lines = [line for line in lines if (len(line) >= SHORTEST if self.path is None else line)]
            if len(lines) > 1:
                documents.append(lines)
        if len(documents) < HELD_OUT:
            raise UserError(
                f"dataset.path: {self.path}: {len(documents)} documents of two lines or more, with an empty line "
                f"between them; at least {HELD_OUT} are needed"
            )
        return documents

    @cached_property
    def tokenizer(self) -> Tokenizer:
        if self.path is None:
            return marked_tokenizer(self.tokens, self.vocabulary, self.root)
        documents = self._parts["train"] if is_learned(self.tokens) else self.documents
        texts = ["\n".join(lines) for lines in documents]
        if self.tokens == "characters":
            texts = [text.replace("\n", "") for text in texts]
        return make_tokenizer(self.tokens, texts, self.vocabulary, len(MARKED), root=self.root)

    def adopt(self, spec: Spec) -> None:
        self.tokenizer = tokenizer_of(spec) or self.tokenizer

    @cached_property
    def spec(self) -> SentencePairs:  # type: ignore[override]
        tokenizer = self.tokenizer
        return SentencePairs(
            tokens=Tokens(vocabulary=tokenizer.size, length=self.length, tokenizer=tokenizer.to_json(), **MARKED),
            segment=TokenLabels(classes=("A", "B"), length=self.length),
            follows=Label(classes=("another", "follows")),
        )

    def _source(self, documents: Sequence[Sequence[str]], *, fixed: bool) -> Source:
        most = (self.length - 3) // 2
        rows = [self.tokenizer.encode(line)[:most] for lines in documents for line in lines]
        line_NS, length_N = pad_rows(rows, self.tokenizer.size)
        first = torch.tensor([number == 0 for lines in documents for number in range(len(lines))])
        return PairSource(line_NS, length_N, (~first).nonzero().flatten(), self.length, fixed=fixed)

    @cached_property
    def _parts(self) -> dict[str, list[list[str]]]:
        held = max(1, len(self.documents) // HELD_OUT)
        a, b = len(self.documents) - 2 * held, len(self.documents) - held
        return {"train": self.documents[:a], "val": self.documents[a:b], "test": self.documents[b:]}

    def splits(self) -> dict[str, Source]:
        return {name: self._source(part, fixed=name != "train") for name, part in self._parts.items()}

    def fingerprint(self) -> dict[str, Any]:
        return {} if self.path is None else fingerprint({self.path: read_text(self.path)})


def docstrings() -> list[str]:
    """Of the modules, classes and functions of MODULES, in their order: strings of three quotes that begin a line."""
    files = [path for name in MODULES for path in modules()[name]]
    sources = [plain(path.read_text(encoding="utf-8", errors="ignore")) for path in files]
    return [match[1] for text in sources for match in DOCSTRING.finditer(text)]
