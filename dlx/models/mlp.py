"""Multi-layer perceptron (Rosenblatt 1958; Rumelhart, Hinton, Williams 1986): affine maps with a nonlinearity between.

With one hidden layer it approximates any continuous function (Cybenko 1989; Hornik et al. 1989); with
`activation=identity` all of it is one affine map, however deep.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dlx.config import checks
from dlx.models.layers import make_norm
from dlx.tasks.supervised import AnySamples, Supervised

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU, "identity": nn.Identity}


class MLP(Supervised):
    """hidden: widths of the hidden layers; empty is the linear model. norm: before each activation. dropout: rate after
    each activation."""

    def __init__(
        self,
        *,
        spec: AnySamples,
        hidden: tuple[int, ...] = (128,),
        activation: Literal["relu", "tanh", "sigmoid", "gelu", "identity"] = "relu",
        norm: Literal["none", "batch", "layer", "group"] = "none",
        dropout: float = 0.0,
        loss: str | None = None,
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        checks.between("[0, 1)", dropout=dropout)
        if any(width < 1 for width in hidden):
            raise ValueError(f"hidden must hold widths of at least 1, got {list(hidden)}")
        checks.one_of(ACTIVATIONS, activation=activation)
        layers: list[nn.Module] = []
        width = self.num_features
        for next_width in hidden:
            layers.append(nn.Linear(width, next_width))
            if norm != "none":
                layers.append(make_norm(norm, next_width, dim=0))
            layers.append(ACTIVATIONS[activation]())
            if dropout:
                layers.append(nn.Dropout(dropout))
            width = next_width
        self._trunk = len(layers)
        self.layers = nn.Sequential(*layers, *([nn.Linear(width, self.num_outputs)] if self.num_outputs else []))

    def features(self, x: Tensor) -> Tensor:
        """The input of the last layer, [B, F]."""
        return self.layers[: self._trunk](x.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))
