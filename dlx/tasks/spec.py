"""What a dataset holds: the sizes a model is built from, and the names and shapes of its batches.

A spec is small, frozen and plain (no tensors): it is written into the run folder as `spec.json`, so that a
trained run predicts, samples and exports without its dataset. Shapes: B batch, C channels, H height, W width,
F features, D target dimensions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Base of all specs. `input_key` and `target_key` name the entries of a batch that a supervised system reads."""

    input_key: ClassVar[str]
    target_key: ClassVar[str]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input, without the batch."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """A plain mapping with `_target_`, which `dlx.config.build` turns back into the same spec."""
        return {"_target_": f"{type(self).__module__}.{type(self).__name__}", **asdict(self)}

    def normalize(self, raw: Tensor) -> Tensor:
        """Raw stored values to what the network sees, float32, same shape."""
        raise NotImplementedError

    def denormalize(self, value: Tensor) -> Tensor:
        """The inverse of `normalize`, float32 (images: in [0, 1])."""
        raise NotImplementedError


@cache
def _column(values: tuple[float, ...], device: torch.device) -> Tensor:
    """float32 [C, 1, 1]; made once per device, since each copy to a GPU waits for it."""
    import torch

    return torch.tensor(values, device=device).view(-1, 1, 1)


@dataclass(frozen=True, kw_only=True)
class ImageSpec(Spec):
    """Images with one class label each.

    Batch: `image` float32 [B, C, H, W], normalized; `label` int64 [B] (or float32 [B, K] once a regularizer mixed
    labels); `index` int64 [B]. Stored images are uint8 in 0..`scale`.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0

    input_key: ClassVar[str] = "image"
    target_key: ClassVar[str] = "label"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.channels, self.height, self.width)

    @property
    def num_features(self) -> int:
        return self.channels * self.height * self.width

    @property
    def num_outputs(self) -> int:
        return len(self.classes)

    def _per_channel(self, value: Tensor) -> tuple[Tensor, Tensor]:
        return _column(self.mean, value.device), _column(self.std, value.device)

    def normalize(self, raw: Tensor) -> Tensor:
        mean, std = self._per_channel(raw)
        return raw.float().div_(self.scale).sub_(mean).div_(std)

    def denormalize(self, value: Tensor) -> Tensor:
        mean, std = self._per_channel(value)
        return value.float() * std + mean


@dataclass(frozen=True, kw_only=True)
class VectorSpec(Spec):
    """Feature vectors with real targets (regression).

    Batch: `features` float32 [B, F]; `target` float32 [B, D]; `index` int64 [B].
    """

    num_features: int
    num_outputs: int = 1
    names: tuple[str, ...] = field(default=())

    input_key: ClassVar[str] = "features"
    target_key: ClassVar[str] = "target"

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.num_features,)

    def normalize(self, raw: Tensor) -> Tensor:
        return raw.float()

    def denormalize(self, value: Tensor) -> Tensor:
        return value.float()
