"""CycleGAN (Zhu et al. 2017, arXiv:1703.10593): translates images between two sides of which no pairs are known.

Two generators, a to b and b to a; each has a discriminator of patches that knows its side. There and back again must
give the image itself: the cycle, without which any image of the other side would do.
Shapes: B batch, C channels, H height, W width, P images of the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.models.generative.dcgan import initialize
from dlx.runs.media import grid
from dlx.tasks.adversarial import in_sign_range, least_squares_discriminator, outputs_log
from dlx.tasks.spec import Image, MatchedImages, UnpairedImages
from dlx.tasks.system import Answer, Objective, System

if TYPE_CHECKING:
    from dlx.tasks.system import Batch, Statistics

SHOWN = 6  # images of a picture


class Residual(nn.Module):
    """x plus two convolutions of it, without a nonlinearity after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_convolution(width, width, 3), nn.ReLU(), *_convolution(width, width, 3))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.layers(x_BCHW)


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
    mode: Literal["reflect", "zeros"] = "reflect" if stride == 1 else "zeros"
    return [nn.Conv2d(inputs, outputs, size, stride, size // 2, padding_mode=mode), nn.InstanceNorm2d(outputs)]


def make_generator(inputs: int, outputs: int, width: int, blocks: int, halvings: int = 2) -> nn.Sequential:
    """c7s1-64, d128, d256, R256 x blocks, u128, u64, c7s1-3 in the paper's terms: images [B, inputs, H, W] to images
    [B, outputs, H, W] in [-1, 1]. H and W can be halved that often."""
    layers = [*_convolution(inputs, width, 7), nn.ReLU()]
    for _ in range(halvings):
        layers += [*_convolution(width, 2 * width, 3, stride=2), nn.ReLU()]
        width *= 2
    layers += [Residual(width) for _ in range(blocks)]
    for _ in range(halvings):
        layers += [nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1)]
        layers += [nn.InstanceNorm2d(width // 2), nn.ReLU()]
        width //= 2
    return nn.Sequential(*layers, nn.Conv2d(width, outputs, 7, padding=3, padding_mode="reflect"), nn.Tanh())


def make_patch_discriminator(channels: int, width: int, halvings: int) -> nn.Sequential:
    """C64-C128-C256-C512 in the paper's terms, for 3 halvings: images to one output for each patch, [B, 1, H', W'].
    A patch has 70 pixels a side; of 2 halvings 34, of 1 16."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for level in range(1, halvings + 1):
        before, after = width * min(2 ** (level - 1), 8), width * min(2**level, 8)
        layers += [nn.Conv2d(before, after, 4, 2 if level < halvings else 1, 1), nn.InstanceNorm2d(after)]
        layers += [nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(after, 1, 4, 1, 1))


class Pool:
    """The last images that a generator made, of which a discriminator sees one in place of every second new one
    (Shrivastava et al. 2016, arXiv:1612.07828). It is first filled; 0 images: new ones are passed on."""

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        self.images_PCHW = torch.zeros(size, *shape)
        self.filled = torch.zeros((), dtype=torch.int64)

    def swap(self, made_BCHW: Tensor) -> Tensor:
        """Detached images [B, C, H, W], some of them from the pool. Nothing waits for the device."""
        made_BCHW = made_BCHW.detach()
        size, device = len(self.images_PCHW), made_BCHW.device
        if not size:
            return made_BCHW
        self.images_PCHW, self.filled = self.images_PCHW.to(device), self.filled.to(device)
        given = []
        for made_CHW in made_BCHW.to(self.images_PCHW.dtype):
            fills = self.filled < size
            place = torch.where(fills, self.filled, torch.randint(size, (), device=device)).view(1)
            swaps = ~fills & (torch.rand((), device=device) < 0.5)
            old_CHW = self.images_PCHW.index_select(0, place)[0]
            given.append(torch.where(swaps, old_CHW, made_CHW))
            self.images_PCHW.index_copy_(0, place, torch.where(fills | swaps, made_CHW, old_CHW).unsqueeze(0))
            self.filled = self.filled + fills
        return torch.stack(given)


class CycleGAN(System):
    """width, blocks, halvings: of a generator: channels next to the image, residual blocks, and how often it halves the
    side before them. discriminator_width, patch_halvings: of a discriminator; how often it halves the side says how
    large its patches are. cycle: weight of the cycles' error. identity: weight, as a share of that, of the error of an
    image that is on its side already. pool: images of each side that are kept for the discriminators.

    Images are in [-1, 1], and errors are mean absolute differences (L1) in it.
    """

    players = ("generators", "discriminators")
    asked = "image_a"
    film = True

    def __init__(
        self,
        *,
        spec: MatchedImages | UnpairedImages,
        width: int = 64,
        blocks: int = 9,
        discriminator_width: int = 64,
        halvings: int = 2,
        patch_halvings: int = 3,
        cycle: float = 10.0,
        identity: float = 0.5,
        pool: int = 50,
    ) -> None:
        super().__init__()
        checks.at_least(1, width=width, blocks=blocks, discriminator_width=discriminator_width)
        checks.at_least(1, halvings=halvings, patch_halvings=patch_halvings)
        checks.at_least(0, cycle=cycle, identity=identity, pool=pool)
        if isinstance(spec, MatchedImages) and not spec.match_a.known:
            spec = spec.narrow(UnpairedImages)
        self.spec = in_sign_range(spec)
        a, b = self.spec.image_a, self.spec.image_b
        if a.shape[1:] != b.shape[1:]:
            raise ValueError(f"spec must have images of one size on both sides, got {a} and {b}")
        if identity and a.channels != b.channels:
            raise ValueError(f"identity must be 0 for sides of {a.channels} and {b.channels} channels, got {identity}")
        if any(side % 2**halvings or side >> halvings < 2 for side in a.shape[1:]):
            raise ValueError(f"halvings must leave whole pixels, and two at least, of {a}, got {halvings}")
        if min(a.shape[1:]) >> patch_halvings < 3:
            raise ValueError(f"patch_halvings must leave 3 pixels of {a}, got {patch_halvings}")
        self.cycle, self.identity = cycle, identity
        self.to_b = make_generator(a.channels, b.channels, width, blocks, halvings)
        self.to_a = make_generator(b.channels, a.channels, width, blocks, halvings)
        self.discriminator_a = make_patch_discriminator(a.channels, discriminator_width, patch_halvings)
        self.discriminator_b = make_patch_discriminator(b.channels, discriminator_width, patch_halvings)
        self.is_matched = isinstance(spec, MatchedImages)  # some images of both sides are known to show the same
        self.pool_a, self.pool_b = Pool(pool, a.shape), Pool(pool, b.shape)
        self.apply(initialize)

    def objectives(self, stage: int = 0) -> list[Objective]:
        return [
            Objective.of("generators", self.to_b, self.to_a),
            Objective.of("discriminators", self.discriminator_a, self.discriminator_b),
        ]

    def averaged(self) -> list[nn.Parameter]:
        return [*self.to_b.parameters(), *self.to_a.parameters()]

    def state(self) -> dict[str, Any]:
        images = {"images_a": self.pool_a.images_PCHW.clone(), "images_b": self.pool_b.images_PCHW.clone()}
        return {**images, "filled_a": self.pool_a.filled, "filled_b": self.pool_b.filled}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.pool_a.images_PCHW, self.pool_a.filled = state["images_a"], state["filled_a"]
        self.pool_b.images_PCHW, self.pool_b.filled = state["images_b"], state["filled_b"]

    # Training: two turns.

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        if objective.name == "generators":
            return self.generators_loss(batch)
        return self.discriminators_loss(batch)

    def generators_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """E (D(G(x)) - 1)^2 of both sides, plus the cycles and the identities."""
        a, b = batch["image_a"], batch["image_b"]
        fake_b, fake_a = self.to_b(a), self.to_a(b)
        batch["fake_a"], batch["fake_b"] = fake_a.detach(), fake_b.detach()  # the discriminators' turn has them too
        fools = (self.discriminator_a(fake_a) - 1).square().mean() + (self.discriminator_b(fake_b) - 1).square().mean()
        cycles = F.l1_loss(self.to_a(fake_b), a) + F.l1_loss(self.to_b(fake_a), b)
        loss, logs = fools + self.cycle * cycles, {"adversarial": fools.detach(), "cycle": cycles.detach() / 2}
        if self.identity:
            same = F.l1_loss(self.to_a(a), a) + F.l1_loss(self.to_b(b), b)
            loss, logs["identity"] = loss + self.cycle * self.identity * same, same.detach() / 2
        return loss, logs

    def discriminators_loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """E (D(x) - 1)^2 / 2 + E D(G(x))^2 / 2 of both, for each patch."""
        a, b = batch["image_a"], batch["image_b"]
        if "fake_a" not in batch:
            with torch.no_grad():
                batch["fake_a"], batch["fake_b"] = self.to_a(b), self.to_b(a)
        real_a, fake_a = self.discriminator_a(a), self.discriminator_a(self.pool_a.swap(batch["fake_a"]))
        real_b, fake_b = self.discriminator_b(b), self.discriminator_b(self.pool_b.swap(batch["fake_b"]))
        loss = least_squares_discriminator(real_a, fake_a) + least_squares_discriminator(real_b, fake_b)
        return loss, {**outputs_log("a", real_a, fake_a), **outputs_log("b", real_b, fake_b)}

    # Evaluation.

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("error", "cycle") if self.is_matched else ("cycle",)

    def evaluate(self, batch: Batch) -> Statistics:
        a, b = batch["image_a"], batch["image_b"]
        fake_b, fake_a = self.to_b(a), self.to_a(b)
        found = {"cycle": (_off(self.to_a(fake_b), a) + _off(self.to_b(fake_a), b)).sum() / 2}
        found["count"] = torch.tensor(len(a), device=a.device)
        if self.is_matched:
            pairs_B = batch["match_a"] == batch["match_b"]
            found["error"] = ((_off(fake_b, b) + _off(fake_a, a)) * pairs_B).sum() / 2
            found["pairs"] = pairs_B.sum()
        return found

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        """cycle: L1 of images and what they are there and back again. error: L1 of translations and the truth, of
        images that show the same thing on both sides. Both are means over the two directions."""
        found = {"cycle": float(statistics["cycle"] / statistics["count"])}
        if float(statistics.get("pairs", 0)):
            found["error"] = float(statistics["error"] / statistics["pairs"])
        return found

    # What a person asks for.

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """image_b: translations [B, *shape]; back: those translated back; cycle: how far they are off, L1 [B]."""
        fake_b = self.to_b(batch["image_a"])
        back = self.to_a(fake_b)
        return {"image_b": fake_b, "back": back, "cycle": _off(back, batch["image_a"])}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        columns = (batch["image_a"], predicted["image_b"], predicted["back"])

        def picture_of(number: int) -> Callable[[str], Any]:
            return lambda title: _rows(*(column[number : number + 1] for column in columns))

        return [
            Answer(f"there and back: L1 {off:.3f} of 2", {"cycle": off}, picture_of(number))
            for number, off in enumerate(predicted["cycle"].tolist())
        ]

    def sample(self, count: int, *, image_a: Image | None = None, image_b: Image | None = None) -> Batch:
        """The image of one side, translated to the other."""
        if (image_a is None) == (image_b is None):
            raise UserError("dlx sample: translates an image: --given image_a=FILE or --given image_b=FILE")
        if image_a is not None:
            return {"image_b": self.to_b(image_a)}
        return {"image_a": self.to_a(image_b)}

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """Rows of an image, its translation and that translated back; the truth is last where it is known."""
        a, b = batch["image_a"][:SHOWN], batch["image_b"][:SHOWN]
        fake_b, fake_a = self.to_b(a), self.to_a(b)
        there, back = [a, fake_b, self.to_a(fake_b)], [b, fake_a, self.to_b(fake_a)]
        if self.is_matched and torch.equal(batch["match_a"][:SHOWN], batch["match_b"][:SHOWN]):
            there, back = [*there, b], [*back, a]
        return {"a_to_b": _rows(*there), "b_to_a": _rows(*back)}


def _rows(*columns: Tensor) -> Any:
    """Images in [-1, 1] side by side as pixels, a row for each sample."""
    x = torch.stack([column.expand(-1, 3, -1, -1) for column in columns], 1).flatten(0, 1)
    return grid(Image(channels=3, height=1, width=1, mean=(0.5,) * 3, std=(0.5,) * 3).draw(x), len(columns))


def _off(x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
    """The mean absolute difference of each sample, float64 [B]."""
    return (x_BCHW - y_BCHW).abs().flatten(1).double().mean(1)
