"""DCGAN (Radford et al. 2015, arXiv:1511.06434): a GAN of strided convolutions, without pooling or hidden dense layers.

Batch norm in both but at the generator's output and the discriminator's input; ReLU in the generator, tanh at its end;
leaky ReLU in the discriminator.
Shapes: B batch, Z of the latent, C channels, H height, W width.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from dlx.config import checks
from dlx.tasks.adversarial import Adversarial
from dlx.tasks.spec import Images

SMALL = 32  # pixels: smaller images are halved down to 2, others to 4


class DCGAN(Adversarial):
    """generator_width, discriminator_width: channels next to the image; each halving of the side doubles them.
    slope: of the discriminator's leaky ReLUs; 0: plain ones. loss, penalty, critic_steps: as of `GAN`; with a gradient
    penalty the discriminator has no batch norm, whose samples depend on each other (arXiv:1704.00028, section 4)."""

    def __init__(
        self,
        *,
        spec: Images,
        latent_dim: int = 100,
        generator_width: int = 128,
        discriminator_width: int = 64,
        slope: float = 0.2,
        loss: Literal["non_saturating", "minimax", "least_squares", "wasserstein"] = "non_saturating",
        penalty: float = 0.0,
        critic_steps: int = 1,
    ) -> None:
        super().__init__(spec=spec)
        checks.at_least(
            1, latent_dim=latent_dim, generator_width=generator_width, discriminator_width=discriminator_width
        )
        checks.between("[0, 1)", slope=slope)
        self.choose_loss(loss, penalty, critic_steps)
        self.latent_dim = latent_dim
        self.generator = make_generator(latent_dim, self.input.shape, generator_width)
        trunk, features = make_trunk(self.input.shape, discriminator_width, slope, norm=not penalty)
        self.discriminator = nn.Sequential(trunk, nn.Conv2d(features[0], 1, features[1:], bias=False), nn.Flatten(0))
        self.apply(initialize)

    def generate(self, z_BZ: Tensor) -> Tensor:
        made: Tensor = self.generator(z_BZ[:, :, None, None])
        return made


def sides(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Height and width from the image's to the smallest map's, each half of the one before. Raises ValueError."""
    height, width = shape[1:]
    least = 4 if min(height, width) >= SMALL else 2
    found = [(height, width)]
    while height % 2 == width % 2 == 0 and min(height, width) > least:
        height, width = height // 2, width // 2
        found.append((height, width))
    if len(found) < 2:
        raise ValueError(f"spec must have images whose sides can be halved, got {height} x {width}")
    return found


def make_generator(latent_dim: int, shape: tuple[int, ...], width: int) -> nn.Sequential:
    """From latents [B, Z, 1, 1] to images [B, C, H, W] in [-1, 1]."""
    maps = sides(shape)
    channels = [width * 2**level for level in reversed(range(len(maps) - 1))]
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent_dim, channels[0], maps[-1], bias=False)]
    for before, after in pairwise([*channels, shape[0]]):
        layers += [nn.BatchNorm2d(before), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)]
    return nn.Sequential(*layers, nn.Tanh())


def make_trunk(
    shape: tuple[int, ...], width: int, slope: float = 0.2, *, norm: bool = True
) -> tuple[nn.Sequential, tuple[int, int, int]]:
    """The discriminator without its last layer, and the shape of its features: from images [B, *shape] to them."""
    maps = sides(shape)
    channels = [shape[0], *(width * 2**level for level in range(len(maps) - 1))]
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(channels)):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(after)] if norm and number else []
        layers += [nn.LeakyReLU(slope, inplace=True)]
    return nn.Sequential(*layers), (channels[-1], *maps[-1])


def initialize(module: nn.Module) -> None:
    """Weights of convolutions and dense layers N(0, 0.02), those of batch norm N(1, 0.02); biases 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
    bias = getattr(module, "bias", None)
    if isinstance(bias, nn.Parameter):
        nn.init.zeros_(bias)
