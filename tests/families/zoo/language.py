"""A language model on one stream: the next token from the one before it."""

from __future__ import annotations

from torch import Tensor, nn

from dlx.tasks.generation import Cache
from dlx.tasks.sequence import SequenceModel
from dlx.tasks.spec import LabeledTokens, Streams


class Language(SequenceModel):
    film = True

    def __init__(self, *, spec: LabeledTokens | Streams, width: int = 16, loss: str | None = None) -> None:
        super().__init__(spec=spec, loss=loss)
        self.letters = nn.Embedding(spec.tokens.vocabulary, width)
        self.out = self.make_head(width)

    def features(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        return self.letters(x)
