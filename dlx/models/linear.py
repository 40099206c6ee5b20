"""Linear model: y = W x + b. Softmax regression on class labels, least squares on real targets."""

from __future__ import annotations

from torch import Tensor, nn

from dlx.tasks.spec import ImageSpec, VectorSpec
from dlx.tasks.supervised import Supervised


class Linear(Supervised):
    """One affine map of the flattened input. Convex, so that its optimum is known: the oracle of the others."""

    def __init__(self, *, spec: ImageSpec | VectorSpec, loss: str | None = None) -> None:
        super().__init__(spec=spec, loss=loss)
        self.linear = nn.Linear(spec.num_features, spec.num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))
