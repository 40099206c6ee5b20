"""Steps: the input of a sequence model as vectors [B, L, D], whatever the data hold.

Tokens are looked up in an embedding; the steps of a sequence of real numbers, and the rows of an image, are taken as
they are, or mapped linearly.
Shapes: B batch, L steps, D width; images C channels, H rows, W columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from dlx.config import checks
from dlx.tasks.spec import Image, RealSequence, Tokens

if TYPE_CHECKING:
    from dlx.tasks.spec import Entry, Spec


class Steps(nn.Module):
    """width: of the vectors; null: of tokens as given by `default`, of real numbers and rows as many as there are.

    Attributes: `width`, and `length`, the number of steps of the longest input.
    """

    def __init__(self, entry: Entry, width: int | None, *, default: int) -> None:
        super().__init__()
        checks.at_least(1, embedding=width)
        self.embedding: nn.Module = nn.Identity()
        if isinstance(entry, Tokens):
            self.length, size, self.width = entry.length, entry.vocabulary, width or default
            self.embedding = nn.Embedding(size, self.width)
            return
        if isinstance(entry, Image):
            self.length, size = entry.height, entry.channels * entry.width
        elif isinstance(entry, RealSequence):
            self.length, size = entry.length, entry.size
        else:
            raise ValueError(f"spec must have tokens, real sequences or images, got {type(entry).__name__}")
        self.width = width or size
        if width:
            self.embedding = nn.Linear(size, width)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens int64 [B, L], real numbers [B, L, F] or images [B, C, H, W] as vectors [B, L, D]."""
        if x.dim() == 4:
            x = x.transpose(1, 2).flatten(2)  # a row holds all of its channels
        vectors: Tensor = self.embedding(x)
        return vectors


def require_longer(spec: Spec, **values: int) -> None:
    """Raises ValueError naming the argument that is as long as the longest sequence of the data, or longer."""
    (entry,) = spec.inputs.values()
    for name, value in values.items():
        if value >= entry.shape[0]:
            raise ValueError(f"{name} must be below {entry.shape[0]}, the steps of the data's sequences, got {value}")
