"""Progressive GAN (Karras et al. 2017, arXiv:1710.10196): both networks grow from 4x4 to the data's size by new layers.

A stage for each size. Over its first half the new layers fade in, by a weight alpha that rises from 0 to 1: the
generator's image is alpha * new + (1 - alpha) * the smaller one enlarged, the discriminator takes its image in by the
same weights, and real images lose as much of their detail. Further parts: weights of N(0, 1) that are scaled where they
are used, so that Adam moves all of them alike; no batch norm, but each pixel of the generator is scaled to length 1; a
map of how much the images of a group differ, as the discriminator's last channel; the loss of WGAN-GP.
Shapes: B batch, Z of the latent, C channels, H height, W width. Level l is the size 4 * 2^l.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.tasks.adversarial import Adversarial, gradient_penalty, outputs_log, spread_sums
from dlx.tasks.spec import Images
from dlx.tasks.system import Objective

if TYPE_CHECKING:
    from dlx.tasks.system import Batch, Statistics

FIRST = 4  # pixels of a side at level 0
EPS = 1e-8
GAIN = math.sqrt(2)  # of He's initialization


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def pixel_norm(x: Tensor) -> Tensor:
    """Scales the channels of each pixel, [B, C, ...], to a mean square of 1 (section 4.2)."""
    return x * (x.float().square().mean(1, keepdim=True) + EPS).rsqrt().to(x.dtype)


def spread_map(x_BCHW: Tensor, group: int) -> Tensor:
    """x and a further channel: the standard deviation over the images of a group, averaged over channels and pixels
    (section 3). The groups are of `group` images, or of the next fewer by which the batch can be divided."""
    B, _, H, W = x_BCHW.shape
    group = next(size for size in range(min(group, B), 0, -1) if B % size == 0)
    x_MGCHW = x_BCHW.float().unflatten(0, (-1, group))
    std_M = ((x_MGCHW - x_MGCHW.mean(1, keepdim=True)).square().mean(1) + EPS).sqrt().mean((1, 2, 3))
    std_B = std_M.repeat_interleave(group).to(x_BCHW.dtype)
    return torch.cat([x_BCHW, std_B.view(-1, 1, 1, 1).expand(B, 1, H, W)], 1)


def enlarge(x_BCHW: Tensor, times: int = 2) -> Tensor:
    """Each pixel becomes `times` x `times` of them."""
    return x_BCHW if times == 1 else F.interpolate(x_BCHW, scale_factor=float(times), mode="nearest")


def shrink(x_BCHW: Tensor, times: int = 2) -> Tensor:
    """Means of `times` x `times` pixels."""
    return x_BCHW if times == 1 else F.avg_pool2d(x_BCHW, times)


class Equalized(nn.Module):
    """A convolution, or without a kernel a dense layer, of weights N(0, 1) times gain / sqrt(fan in) (section 4.1)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 0, *, gain: float = GAIN, bias: bool = True) -> None:
        super().__init__()
        shape = (outputs, inputs, kernel, kernel) if kernel else (outputs, inputs)
        self.weight = nn.Parameter(torch.randn(shape))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.kernel, self.scale = kernel, gain / math.sqrt(math.prod(shape[1:]))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        return (
            F.conv2d(x, weight, self.bias, padding=self.kernel // 2) if self.kernel else F.linear(x, weight, self.bias)
        )


class Growing(nn.Module):
    """The generator: widths of its layers at each level."""

    def __init__(self, latent_dim: int, widths: list[int], channels: int) -> None:
        super().__init__()
        # The gain makes up for the 16 pixels that a number of the latent is sent to.
        self.dense = Equalized(latent_dim, widths[0] * FIRST**2, gain=GAIN / 4, bias=False)
        self.dense_bias = nn.Parameter(torch.zeros(widths[0], 1, 1))
        self.conv = Equalized(widths[0], widths[0], 3)
        pairs = list(pairwise(widths))
        self.blocks = nn.ModuleList(
            nn.ModuleList([Equalized(before, after, 3), Equalized(after, after, 3)]) for before, after in pairs
        )
        self.to_image = nn.ModuleList(Equalized(width, channels, 1, gain=1.0) for width in widths)

    def features(self, z_BZ: Tensor, level: int) -> list[Tensor]:
        """The maps of each level up to this one."""
        x = self.dense(pixel_norm(z_BZ)).unflatten(1, (-1, FIRST, FIRST)) + self.dense_bias
        maps = [pixel_norm(leaky(self.conv(pixel_norm(leaky(x)))))]
        for block in self.blocks[:level]:
            x = enlarge(maps[-1])
            for conv in block.children():
                x = pixel_norm(leaky(conv(x)))
            maps.append(x)
        return maps

    def forward(self, z_BZ: Tensor, level: int, alpha: Tensor) -> Tensor:
        """Images of this level, [B, C, H, W]. alpha: how far its layers have come in, a 0-d tensor."""
        maps = self.features(z_BZ, level)
        image = self.to_image[level](maps[level])
        if level:
            image = torch.lerp(enlarge(self.to_image[level - 1](maps[level - 1])), image, alpha)
        return image


class GrowingCritic(nn.Module):
    """The discriminator, the generator's mirror. group: images whose spread it sees."""

    def __init__(self, widths: list[int], channels: int, group: int) -> None:
        super().__init__()
        self.group = group
        self.from_image = nn.ModuleList(Equalized(channels, width, 1) for width in widths)
        pairs = list(pairwise(widths))
        self.blocks = nn.ModuleList(
            nn.ModuleList([Equalized(own, own, 3), Equalized(own, below, 3)]) for below, own in pairs
        )
        self.conv = Equalized(widths[0] + 1, widths[0], 3)
        self.dense = Equalized(widths[0] * FIRST**2, widths[0])
        self.score = Equalized(widths[0], 1, gain=1.0)

    def forward(self, x_BCHW: Tensor, level: int, alpha: Tensor) -> Tensor:
        """Scores [B] of images of this level."""
        h = leaky(self.from_image[level](x_BCHW))
        for own in range(level, 0, -1):
            for conv in self.blocks[own - 1].children():
                h = leaky(conv(h))
            h = shrink(h)
            if own == level:
                h = torch.lerp(leaky(self.from_image[level - 1](shrink(x_BCHW))), h, alpha)
        h = leaky(self.conv(spread_map(h, self.group)))
        return self.score(leaky(self.dense(h.flatten(1))))[:, 0]


@dataclass(frozen=True, eq=False)
class Turn(Objective):
    """A player's turn at a level."""

    level: int = 0


class ProgressiveGAN(Adversarial):
    """width, most: a layer at level l has width / 2^(l + 1) channels, at most `most`. penalty: factor of the gradient
    penalty; drift: of the mean square of the critic's output for real images, which keeps it near 0. fade: share of a
    stage in which new layers come in; group: images whose spread the critic sees. grow: false trains the whole networks
    from the start, in one stage.

    The training has 2n + 1 equal parts for n growths: the first for 4x4, then two for each size. Images whose sides are
    not 4 * 2^n, such as 28x28, are padded with their outermost pixels for the critic, and those that are made are cut.
    What is shown and measured before the end is of the current size, enlarged.
    """

    generator: Growing
    discriminator: GrowingCritic
    grown: Tensor
    """The level whose layers are in, and the share of the next one's, float32 []. A buffer: a run that was cut off is
    sampled at the size that it had come to."""

    def __init__(
        self,
        *,
        spec: Images,
        latent_dim: int = 512,
        width: int = 8192,
        most: int = 512,
        penalty: float = 10.0,
        drift: float = 1e-3,
        fade: float = 0.5,
        group: int = 4,
        grow: bool = True,
    ) -> None:
        super().__init__(spec=spec)
        checks.at_least(1, latent_dim=latent_dim, most=most, group=group)
        checks.at_least(0, drift=drift)
        checks.between("[0, 1]", fade=fade)
        self.choose_loss("wasserstein", penalty)
        channels, height, width_of_image = self.input.shape
        self.levels = max(0, math.ceil(math.log2(max(height, width_of_image) / FIRST)))
        if width < 2 ** (self.levels + 1):
            raise ValueError(f"width must be at least {2 ** (self.levels + 1)} for {self.side} pixels, got {width}")
        self.latent_dim, self.drift, self.fade, self.grow = latent_dim, drift, fade, grow
        widths = [min(width // 2 ** (level + 1), most) for level in range(self.levels + 1)]
        self.generator = Growing(latent_dim, widths, channels)
        self.discriminator = GrowingCritic(widths, channels, group)
        self.register_buffer("grown", torch.tensor(float(self.levels)))

    @property
    def side(self) -> int:
        """Pixels of a side at the last level."""
        return FIRST * 2**self.levels

    # Stages: sizes.

    def stage_starts(self, total_steps: int) -> list[int]:
        if not self.grow:
            return [0]
        parts = 2 * self.levels + 1
        starts = [0, *(round(total_steps * (2 * level - 1) / parts) for level in range(1, self.levels + 1))]
        if any(a >= b for a, b in pairwise([*starts, max(1, total_steps)])):
            raise ValueError(f"grow must leave a step for each of {len(starts)} stages, got {total_steps} steps")
        return starts

    def objectives(self, stage: int = 0) -> list[Objective]:
        level = stage if self.grow else self.levels
        generator, critic = self.generator, self.discriminator
        used = slice(max(0, level - 1) if self.grow else level, level + 1)
        made: list[nn.Module] = [generator.dense, generator.conv, *generator.blocks[:level], *generator.to_image[used]]
        told: list[nn.Module] = [
            *critic.from_image[used], *critic.blocks[:level], critic.conv, critic.dense, critic.score
        ]  # fmt: skip
        made_params = [generator.dense_bias, *Objective.of("generator", *made).params]
        return [
            Turn("discriminator", Objective.of("discriminator", *told).params, level=level),
            Turn("generator", made_params, level=level),
        ]

    def alpha(self, batch: Batch, level: int) -> Tensor:
        """How far the layers of a level have come in, from 0 to 1; those of the first are there at once."""
        progress: Tensor = batch["progress"]
        if not (self.grow and self.fade and level):
            return torch.ones_like(progress)
        return (progress / self.fade).clamp(max=1)

    def position(self) -> tuple[int, Tensor]:
        """The level that the networks have come to, and how far its layers are in."""
        level = self.levels if self.grown.is_meta else math.ceil(self.grown)
        return level, self.grown - level + 1

    # Images of a level.

    def seen(self, image: Tensor, level: int, alpha: Tensor) -> Tensor:
        """Images of the data as a critic of a level gets them: padded, shrunk, and without the detail that the
        generator cannot make yet."""
        _, _, height, width = image.shape
        top, left = (self.side - height) // 2, (self.side - width) // 2
        if (height, width) != (self.side, self.side):
            edges = (left, self.side - width - left, top, self.side - height - top)
            image = F.pad(image, edges, mode="replicate")
        x = shrink(image, 2 ** (self.levels - level))
        return torch.lerp(enlarge(shrink(x)), x, alpha) if level else x

    def in_full(self, x_BCHW: Tensor, level: int) -> Tensor:
        """Images of a level at the data's size: the inverse of the padding and shrinking in `seen`."""
        _, height, width = self.input.shape
        top, left = (self.side - height) // 2, (self.side - width) // 2
        return enlarge(x_BCHW, 2 ** (self.levels - level))[:, :, top : top + height, left : left + width]

    def generate(self, z_BZ: Tensor) -> Tensor:
        level, alpha = self.position()
        return self.in_full(self.generator(z_BZ, level, alpha), level)

    def discriminate(self, x: Tensor) -> Tensor:
        level, alpha = self.position()
        score: Tensor = self.discriminator(self.seen(x, level, alpha), level, alpha)
        return score

    # Training: two turns.

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(objective, Turn)
        level, alpha = objective.level, self.alpha(batch, objective.level)
        z_BZ = self.draw_latent(len(batch[self.input_name]))

        def critic(x: Tensor) -> Tensor:
            score: Tensor = self.discriminator(x, level, alpha)
            return score

        if objective.name == "generator":
            return self.loss.generator(critic(self.generator(z_BZ, level, alpha))), {}
        self.grown.copy_(level - 1 + alpha)
        real = self.seen(batch[self.input_name], level, alpha)
        with torch.no_grad():
            fake = self.generator(z_BZ, level, alpha)
        on_real, on_fake = critic(real), critic(fake)
        loss = self.loss.discriminator(on_real, on_fake) + self.drift * on_real.square().mean()
        if self.penalty:
            loss = loss + self.penalty * gradient_penalty(critic, real, fake)
        return loss, {**outputs_log("discriminator", on_real, on_fake), "alpha": alpha}

    # Evaluation.

    def evaluate(self, batch: Batch) -> Statistics:
        """Both at the size that the networks have come to."""
        level, alpha = self.position()
        fake = self.generator(self.latent_rows(batch["index"]), level, alpha)
        return {
            **spread_sums(self.seen(batch[self.input_name], level, alpha), "real"), **spread_sums(fake, "fake")
        }  # fmt: skip
