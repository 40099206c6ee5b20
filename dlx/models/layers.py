"""What several models share: normalization by name, drop path, He's initialization, checks, a trunk's maps.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from dlx.config import checks
from dlx.tasks.gather import gather_with_grad
from dlx.tasks.spec import Image

Norm = Literal["none", "batch", "layer", "group"]
GROUPS = 8


def make_norm(kind: str, channels: int, *, dim: int) -> nn.Module:
    """A normalization of [B, C] (dim 0) or [B, C, H, W] (dim 2).

    batch: over the batch and positions (Ioffe and Szegedy 2015); layer: over one sample (Ba et al. 2016); group: over 8
    groups of its channels, or fewer where 8 does not divide them (Wu and He 2018). Raises ValueError naming `norm`.
    """
    checks.one_of(get_args(Norm), norm=kind)
    if kind == "batch":
        return nn.BatchNorm2d(channels) if dim == 2 else nn.BatchNorm1d(channels)
    if kind == "none":
        return nn.Identity()
    return nn.GroupNorm(1 if kind == "layer" else math.gcd(GROUPS, channels), channels)


class SyncBatchNorm(nn.BatchNorm2d):
    """A batch norm of [B, C] or [B, C, H, W] over the samples of all processes, with gradient; torch's own needs a GPU.

    All processes have batches of one size. Alone, and in evaluation, it is nn.BatchNorm2d.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # one class for vectors and maps
        if input.dim() not in (2, 4):
            raise ValueError(f"expected [B, C] or [B, C, H, W], got {list(input.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not distributed.is_available() or not distributed.is_initialized():
            return super().forward(x)
        places = [dim for dim in range(x.dim()) if dim != 1]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # The variance about the common mean: E x^2 - mean^2 would cancel.
        mean_C = gather_with_grad(wide.mean(places).unsqueeze(0)).mean(0)
        centred = wide - mean_C.view(shape)
        var_C = gather_with_grad(centred.square().mean(places).unsqueeze(0)).mean(0)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                count = x.numel() // x.shape[1] * distributed.get_world_size()
                share = self.momentum if self.momentum is not None else 0.1
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean_C, share)
                self.running_var.lerp_(var_C * (count / max(1, count - 1)), share)
        normed = centred * (var_C + self.eps).rsqrt().view(shape)
        if self.affine:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(x.dtype)


def synchronize_norms(module: nn.Module) -> None:
    """Makes its batch norms those of all processes, with the weights and names that they have."""
    for part in module.modules():
        if type(part) in (nn.BatchNorm1d, nn.BatchNorm2d):
            part.__class__ = SyncBatchNorm


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size (at stride 1) and has no bias: a batch norm follows."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Stochastic depth (Huang et al. 2016, arXiv:1603.09382): zeroes each sample of a residual [B, ...] at `rate`.

    Dropout of ones is 0 or 1 / (1 - rate): the mean is that of evaluation, which needs no factor.
    """
    if not rate or not training:
        return x
    return x * F.dropout(x.new_ones(x.shape[0], *[1] * (x.dim() - 1)), rate)


def init_kaiming(module: nn.Module) -> None:
    """Weights of standard deviation sqrt(2 / fan_in) (He et al. 2015, arXiv:1502.01852), biases of 0."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def require_size(image: Image, least: int, what: str) -> None:
    """Raises ValueError for images with a side below `least` pixels, which `what` needs."""
    if min(image.height, image.width) < least:
        raise ValueError(f"{what} needs images of {least}x{least}, got {image.height}x{image.width}")


def map_channels(trunk: Any, channels: int, side: int = 64, first: bool = False) -> dict[int, int]:
    """Channels of a trunk's maps by their stride; of several at one stride the last, or the first."""
    with frozen(trunk):
        maps = trunk.maps(torch.zeros(1, channels, side, side))
    return {side // each.shape[-1]: each.shape[1] for each in (maps[::-1] if first else maps)}


def check_stride(trunk: Any, stride: int, channels: int) -> int:
    """The channels of the trunk's map at a stride. Raises ValueError naming `trunk` or `stride` where it has none."""
    check_maps(trunk)
    strides = map_channels(trunk, channels)
    if stride not in strides:
        raise ValueError(f"stride must be one of the trunk's maps, {list(strides)}, got {stride}")
    return strides[stride]


def check_maps(trunk: Any) -> None:
    """Raises ValueError for a trunk that does not offer the maps of its stages."""
    if not hasattr(trunk, "maps"):
        raise ValueError(f"trunk must offer the maps of its stages (vgg, resnet), got {type(trunk).__name__}")


def map_at(trunk: Any, x_BCHW: Tensor, stride: int) -> Tensor:
    """The trunk's map of a stride, [B, C, H / stride, W / stride], rounded up; of several the last."""
    return maps_at(trunk, x_BCHW, (stride,))[0]


def maps_at(trunk: Any, x_BCHW: Tensor, strides: Sequence[int]) -> list[Tensor]:
    """The trunk's maps of some of its strides. An image is padded to whole cells of the coarsest: some trunks would
    leave out the rest of it."""
    H, W = x_BCHW.shape[-2:]
    whole = max(strides)
    x_BCHW = F.pad(x_BCHW, (0, -W % whole, 0, -H % whole))
    maps = {round(x_BCHW.shape[-1] / each.shape[-1]): each for each in trunk.maps(x_BCHW)}
    return [maps[stride] for stride in strides]


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Without gradients, and with modules as in an evaluation: running means of a batch norm stay as they are too."""
    were_training = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        with torch.no_grad():
            yield
    finally:
        for module, was_training in zip(modules, were_training, strict=True):
            module.train(was_training)
