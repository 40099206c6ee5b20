"""Linear model: y = W x + b. Softmax regression on class labels, least squares on real targets."""

from __future__ import annotations

from torch import Tensor, nn

from dlx.tasks.supervised import AnySamples, Supervised


class Linear(Supervised):
    """One affine map of the flattened input. Convex, so that its optimum is known: the oracle of the others."""

    def __init__(self, *, spec: AnySamples, loss: str | None = None) -> None:
        super().__init__(spec=spec, loss=loss)
        self.linear = nn.Linear(self.num_features, self.num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))
