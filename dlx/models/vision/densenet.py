"""DenseNet (Huang, Liu, van der Maaten, Weinberger 2016, arXiv:1608.06993): a layer sees all earlier maps of its block.

Two families: depths 121 to 264 have four blocks (table 1), other depths three of equal length (section 4.2, CIFAR).
Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dlx.config import checks
from dlx.models.layers import conv, require_size
from dlx.tasks.spec import LabeledImages
from dlx.tasks.supervised import Supervised

# depth -> layers per block; table 1 of the paper.
IMAGENET = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32), 264: (6, 12, 64, 48)}


@contextmanager
def _statistics_kept(norm: nn.BatchNorm2d) -> Iterator[None]:
    """Recomputing a training step must not move the running statistics a second time."""
    buffers = dict(norm.named_buffers())
    for name, buffer in buffers.items():
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for name, buffer in buffers.items():
            setattr(norm, name, buffer)


class DenseLayer(nn.Module):
    """BN - ReLU - 3x3 with `growth` new maps, or a bottleneck BN - ReLU - 1x1 (4 growth) - BN - ReLU - 3x3 (growth)."""

    def __init__(
        self, in_channels: int, growth: int, *, bottleneck: bool, dropout: float, memory_efficient: bool
    ) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv(in_channels, 4 * growth, 1) if bottleneck else conv(in_channels, growth, 3)
        if bottleneck:
            self.norm2 = nn.BatchNorm2d(4 * growth)
            self.conv2 = conv(4 * growth, growth, 3)
        self.bottleneck, self.dropout, self.memory_efficient = bottleneck, dropout, memory_efficient

    def _first(self, *maps: Tensor) -> Tensor:
        return self.conv1(F.relu(self.norm1(torch.cat(maps, 1)), inplace=True))

    def _contexts(self) -> tuple[Any, Any]:
        return nullcontext(), _statistics_kept(self.norm1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """maps: all that came before, each [B, C, H, W]; the result has `growth` channels."""
        if self.memory_efficient and torch.is_grad_enabled():
            new = checkpoint(self._first, *maps, use_reentrant=False, context_fn=self._contexts)
        else:
            new = self._first(*maps)
        if self.bottleneck:
            new = F.dropout(new, self.dropout, self.training)
            new = self.conv2(F.relu(self.norm2(new), inplace=True))
        return F.dropout(new, self.dropout, self.training)


class DenseBlock(nn.ModuleList):
    """Layers whose outputs are all kept: C grows by `growth` a layer."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps = [x_BCHW]
        for layer in self:
            maps.append(layer(maps))
        return torch.cat(maps, 1)


class Transition(nn.Module):
    """BN - ReLU - 1x1 to fewer channels - 2x2 average pooling."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = conv(in_channels, out_channels, 1)
        self.dropout = dropout

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.conv(F.relu(self.norm(x_BCHW), inplace=True))
        return F.avg_pool2d(F.dropout(x_BCHW, self.dropout, self.training), 2)


class DenseNet(Supervised):
    """depth: 121, 169, 201, 264 with four blocks, or 3n + 4 (6n + 4 with bottlenecks), such as 40 and 100, with three;
    None is 40 for images below 64 pixels and 121 above.

    growth: new maps per layer (the paper's k); None is 32 with four blocks, 12 with three. bottleneck: a 1x1
    convolution before each 3x3; None is on from depth 100 up. compression: what share of its channels a transition
    keeps; None is 0.5 with bottlenecks (DenseNet-BC), 1 without. stem: `7x7` with stride 2 and pooling, which makes
    images 4 times smaller, or `3x3`; None is 7x7 from 64 pixels up. dropout: after each convolution but the first (the
    paper: 0.2, without augmentation only). memory_efficient: the concatenated and normalized maps are made anew for the
    gradient and not kept (Pleiss et al. 2017, arXiv:1707.06990): a half to a fifth of the memory, 1.1 to 1.5 times the
    time.
    """

    def __init__(
        self,
        *,
        spec: LabeledImages,
        depth: int | None = None,
        growth: int | None = None,
        bottleneck: bool | None = None,
        compression: float | None = None,
        stem: Literal["3x3", "7x7"] | None = None,
        dropout: float = 0.0,
        memory_efficient: bool = False,
        loss: str | None = None,
    ) -> None:
        super().__init__(spec=spec, loss=loss)
        side = min(spec.image.height, spec.image.width)
        if depth is None:
            depth = 121 if side >= 64 else 40
        if bottleneck is None:
            bottleneck = depth >= 100
        unit = 6 if bottleneck else 3
        if depth not in IMAGENET and (depth <= 4 or (depth - 4) % unit):
            known = ", ".join(map(str, IMAGENET))
            wanted = f"depth must be one of {known}, or {unit}n + 4 {'with' if bottleneck else 'without'} bottlenecks"
            raise ValueError(f"{wanted}, got {depth}")
        blocks = IMAGENET.get(depth, ((depth - 4) // unit,) * 3)
        if growth is None:
            growth = 32 if depth in IMAGENET else 12
        checks.at_least(1, growth=growth)
        if compression is None:
            compression = 0.5 if bottleneck else 1.0
        checks.between("(0, 1]", compression=compression)
        checks.one_of(("3x3", "7x7"), stem=stem)
        checks.between("[0, 1)", dropout=dropout)
        large = stem == "7x7" if stem else side >= 64
        smallest = 2 ** (len(blocks) - 1)
        # A stride and a pooling, both rounding up, come before the transitions, which round down.
        smallest = 4 * smallest - 3 if large else smallest
        require_size(spec.image, smallest, f"depth {depth} with the {'7x7' if large else '3x3'} stem")

        channels = 2 * growth if bottleneck else 16
        self.conv0 = conv(spec.image.channels, channels, 7 if large else 3, 2 if large else 1)
        self.norm0 = nn.BatchNorm2d(channels) if large else nn.Identity()
        self.blocks, self.transitions = nn.ModuleList(), nn.ModuleList()
        for number, count in enumerate(blocks):
            if number:
                kept = int(compression * channels)
                if not kept:
                    raise ValueError(f"compression must leave at least one channel, got {compression}")
                self.transitions.append(Transition(channels, kept, dropout))
                channels = kept
            self.blocks.append(
                DenseBlock(
                    DenseLayer(
                        channels + layer * growth,
                        growth,
                        bottleneck=bottleneck,
                        dropout=dropout,
                        memory_efficient=memory_efficient,
                    )
                    for layer in range(count)
                )
            )
            channels += count * growth
        self.norm = nn.BatchNorm2d(channels)
        self.fc = self.make_head(channels)
        self.large = large
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(self.fc, nn.Linear):
            nn.init.zeros_(self.fc.bias)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The last block's maps, normalized, [B, C, h, w]."""
        x_BCHW = self.norm0(self.conv0(x_BCHW))
        if self.large:
            x_BCHW = F.max_pool2d(F.relu(x_BCHW, inplace=True), 3, 2, padding=1)
        for number, block in enumerate(self.blocks):
            x_BCHW = block(self.transitions[number - 1](x_BCHW) if number else x_BCHW)
        return F.relu(self.norm(x_BCHW), inplace=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.fc(self.features(x_BCHW).mean((2, 3)))
