"""A classifier of texts."""

from __future__ import annotations

from torch import Tensor, nn

from dlx.tasks.spec import LabeledTokens
from dlx.tasks.supervised import Supervised


class Sentence(Supervised):
    """Embeddings side by side, and one hidden layer."""

    def __init__(self, *, spec: LabeledTokens, width: int = 16, loss: str | None = None) -> None:
        super().__init__(spec=spec, loss=loss)
        self.letters = nn.Embedding(spec.tokens.vocabulary, width)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(width * spec.tokens.length, 32), nn.ReLU())
        self.out = self.make_head(32)

    def features(self, tokens: Tensor) -> Tensor:
        return self.hidden(self.letters(tokens))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.features(tokens))
