"""Puzzle-GAN (Lee et al. 2017, arXiv:1703.10730): a whole image from three key patches without their positions.

The patches are the boxes of the image with the most edges. Each is scaled to the image's size and encoded by one
network, and what is found is summed, so that their order does not matter. One decoder says where the parts belong, as a
mask; another makes the image, from noise too. The discriminator also sees real parts on another image's background and
another image's parts on the real one: parts and the rest have to fit.
Shapes: B batch, K patches, C channels, H height, W width, E of the embedding, Z of the latent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.models.generative.dcgan import initialize, sides
from dlx.random import uniform_rows
from dlx.runs.draw import subplots
from dlx.runs.media import grid
from dlx.tasks.adversarial import Adversarial, outputs_log, spread_sums
from dlx.tasks.answer import Answer
from dlx.tasks.patches import box_mask, candidate_boxes, crop_patches, key_boxes, overlaps
from dlx.tasks.spec import Image, Images
from dlx.tasks.system import Objective

if TYPE_CHECKING:
    from dlx.tasks.system import Batch, Statistics

PATCHES = 3  # K
WIDEST = 8  # times the first width
KNOWN = 16  # images that samples without an image begin with
ROWS = 6  # of the picture


def down(before: int, after: int, *, norm: bool) -> list[nn.Module]:
    """Halves the sides."""
    return [
        nn.Conv2d(before, after, 5, stride=2, padding=2, bias=not norm),
        *([nn.BatchNorm2d(after)] if norm else []),
        nn.LeakyReLU(0.2, inplace=True),
    ]


def up(before: int, after: int) -> nn.ConvTranspose2d:
    """Doubles the sides."""
    return nn.ConvTranspose2d(before, after, 5, stride=2, padding=2, output_padding=1, bias=False)


class Encoder(nn.Module):
    """From patches [B, K, C, H, W] to an embedding [B, E] and maps of all scales, the smallest first, each a sum over
    the patches."""

    def __init__(self, shape: tuple[int, ...], widths: list[int], embedding: int) -> None:
        super().__init__()
        pairs = list(pairwise([shape[0], *widths]))
        self.halvings = nn.ModuleList(nn.Sequential(*down(a, b, norm=n > 0)) for n, (a, b) in enumerate(pairs))
        self.last = nn.Conv2d(widths[-1], embedding, sides(shape)[-1])

    def forward(self, patches_BKCHW: Tensor) -> tuple[Tensor, list[Tensor]]:
        B, K = patches_BKCHW.shape[:2]
        x = patches_BKCHW.flatten(0, 1)
        maps: list[Tensor] = []
        for halving in self.halvings:
            x = halving(x)
            maps.insert(0, x.unflatten(0, (B, K)).sum(1))
        return self.last(x).flatten(1).unflatten(0, (B, K)).sum(1), maps


class Decoder(nn.Module):
    """From numbers [B, E] to [B, out, H, W]; at each scale maps of the same size are joined to its own. It also gives
    those joined maps, the smallest first. times: how wide the others are, in widths of its own."""

    def __init__(self, inputs: int, shape: tuple[int, ...], widths: list[int], out: int, times: int) -> None:
        super().__init__()
        self.first = nn.ConvTranspose2d(inputs, widths[-1], sides(shape)[-1], bias=False)
        back = widths[::-1]
        self.norms = nn.ModuleList(nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True)) for width in back)
        self.doublings = nn.ModuleList(up((1 + times) * a, b) for a, b in pairwise([*back, out]))

    def forward(self, code_BE: Tensor, others: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        x, joined = self.first(code_BE[:, :, None, None]), []
        for norm, doubling, other in zip(self.norms, self.doublings, others, strict=True):
            joined.append(torch.cat([norm(x), other], 1))
            x = doubling(joined[-1])
        return x, joined


class Generator(nn.Module):
    """From patches [B, K, C, H, W] and latents [B, Z] to the image in [-1, 1] and the mask [B, 1, H, W] in [0, 1]."""

    def __init__(self, shape: tuple[int, ...], widths: list[int], embedding: int, latent_dim: int) -> None:
        super().__init__()
        self.encoder = Encoder(shape, widths, embedding)
        self.mask = Decoder(embedding, shape, widths, 1, 1)
        self.image = Decoder(embedding + latent_dim, shape, widths, shape[0], 2)

    def forward(self, patches_BKCHW: Tensor, z_BZ: Tensor) -> tuple[Tensor, Tensor]:
        code_BE, maps = self.encoder(patches_BKCHW)
        mask, joined = self.mask(code_BE, maps)
        image, _ = self.image(torch.cat([code_BE, z_BZ], 1), joined)
        return image.tanh(), mask.sigmoid()


class PuzzleGAN(Adversarial):
    """width: channels of the first map; each halving of the side doubles them, up to 8 times. embedding, latent_dim: E
    and Z, the latent uniform in (-1, 1). weights: of the two L1 losses (of the mask, and of the image inside the mask,
    both sums over an image), at the start and at the end of the training, between which they fall geometrically.

    Metrics: iou, of the mask above 1/2 and the true one, a mean over images; l1, the mean absolute error inside the
    true mask, of values in [-1, 1]; spread, as of every GAN.
    """

    input: Image
    known_NCHW: Tensor
    boxes_N4: Tensor
    overlap_NN: Tensor

    def __init__(
        self,
        *,
        spec: Images,
        latent_dim: int = 128,
        embedding: int = 128,
        width: int = 64,
        weights: tuple[float, float] = (1e-2, 1e-4),
    ) -> None:
        super().__init__(spec=spec)
        checks.at_least(1, latent_dim=latent_dim, embedding=embedding, width=width)
        if not weights[0] >= weights[1] > 0:
            raise ValueError(f"weights must be two above 0, the first at least the second, got {list(weights)}")
        self.choose_loss("non_saturating")
        self.latent_dim, self.weights = latent_dim, weights
        shape = self.input.shape
        widths = [width * min(2**level, WIDEST) for level in range(len(sides(shape)) - 1)]
        self.generator = Generator(shape, widths, embedding, latent_dim)
        layers = [layer for n, (a, b) in enumerate(pairwise([shape[0], *widths])) for layer in down(a, b, norm=n > 0)]
        self.discriminator = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, sides(shape)[-1]), nn.Flatten(0))
        self.apply(initialize)
        boxes_N4 = candidate_boxes(shape[1], shape[2])
        self.register_buffer("boxes_N4", boxes_N4, persistent=False)
        self.register_buffer("overlap_NN", overlaps(boxes_N4), persistent=False)
        self.register_buffer("known_NCHW", torch.zeros(KNOWN, *shape))

    def objectives(self, stage: int = 0) -> list[Objective]:
        return [
            Objective.of("discriminator", self.discriminator),
            Objective.of("generator", self.generator, every=2),
        ]

    def draw_latent(self, count: int) -> Tensor:
        return 2 * torch.rand(count, self.latent_dim, device=self.device) - 1

    def latent_rows(self, index_B: Tensor) -> Tensor:
        return 2 * uniform_rows("latent", index_B, self.latent_dim) - 1

    @torch.no_grad()
    def puzzle(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The key patches of images, [B, K, C, H, W], and the mask of where they are, [B, 1, H, W]."""
        boxes_BK4 = self.boxes_N4[key_boxes(x_BCHW, self.boxes_N4, self.overlap_NN, PATCHES)]
        return crop_patches(x_BCHW, boxes_BK4), box_mask(boxes_BK4, *x_BCHW.shape[2:])

    # Training: two turns.

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        x = batch["image"]
        patches, mask = self.puzzle(x)
        z_BZ = self.draw_latent(len(x))
        if objective.name == "generator":
            made, made_mask = self.generator(patches, z_BZ)
            return self.generator_loss(x, mask, made, made_mask, batch["progress"])
        with torch.no_grad():
            fake, _ = self.generator(patches, z_BZ)
        other = x.roll(1, 0)
        foreign_parts, foreign_ground = torch.where(mask > 0, other, x), torch.where(mask > 0, x, other)
        on_real, on_fake = self.discriminate(x), self.discriminate(fake)
        loss = self.loss.discriminator(on_real, on_fake)
        for composite in (foreign_parts, foreign_ground):
            loss = loss + F.softplus(self.discriminate(composite)).mean()
        return loss, outputs_log("discriminator", on_real, on_fake)

    def generator_loss(
        self, x: Tensor, mask: Tensor, made: Tensor, made_mask: Tensor, progress: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        first, last = self.weights
        on_mask = (made_mask - mask).abs().flatten(1).sum(1).mean()
        on_parts = (made * made_mask - x * mask).abs().flatten(1).sum(1).mean()
        weight = first * (last / first) ** progress
        loss = self.loss.generator(self.discriminate(made)) + weight * (on_mask + on_parts)
        return loss, {"generator/mask": on_mask.detach(), "generator/parts": on_parts.detach()}

    # Evaluation.

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("iou", "l1", "spread")

    def before_evaluation(self, train: Any, dist: Any) -> None:
        """Keeps images whose patches samples begin with."""
        x = next(iter(train.eval_batches()))["image"]
        self.known_NCHW.copy_(x[torch.arange(KNOWN, device=x.device) % len(x)])

    def evaluate(self, batch: Batch) -> Statistics:
        x = batch["image"]
        patches, mask = self.puzzle(x)
        made, made_mask = self.generator(patches, self.latent_rows(batch["index"]))
        iou_B, l1_B = scores(x, mask, made, made_mask)
        return {
            **spread_sums(x, "real"),
            **spread_sums(made, "fake"),
            "iou": iou_B.double().sum(),
            "l1": l1_B.double().sum(),
            "count": torch.tensor(len(x), device=x.device),
        }

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        own = {name: float(statistics[name] / statistics["count"]) for name in ("iou", "l1")}
        return {**own, **super().metrics(statistics)}

    # What a person asks for.

    def sample(self, count: int, *, image: Image | None = None) -> Batch:
        """Images from the key patches of a file, which differ by their noise; without one, of training images."""
        x = self.known_NCHW[torch.arange(count, device=self.device) % KNOWN]
        if image is not None:
            x = image.to(self.device).expand(count, -1, -1, -1)  # type: ignore[attr-defined]
        elif not self.known_NCHW.any():
            raise UserError("--given image: needs an image, as this run has not kept any yet")
        return {"image": self.generator(self.puzzle(x)[0], self.draw_latent(count))[0]}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """From the key patches of images: image [B, C, H, W] and mask [B, 1, H, W]; iou and l1, [B], as the metrics."""
        x = batch["image"]
        patches, mask = self.puzzle(x)
        made, made_mask = self.generator(patches, self.latent_rows(batch["index"].to(self.device)))
        iou_B, l1_B = scores(x, mask, made, made_mask)
        return {"image": made, "mask": made_mask, "patches": patches, "true_mask": mask, "iou": iou_B, "l1": l1_B}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        """With a picture each: the patches, the mask, the image made of them, and the one that they are from."""
        images = [*predicted["patches"].unbind(1), predicted["image"], batch["image"]]
        columns = [self.input.draw(x) for x in images]
        columns.insert(PATCHES, self.draw_mask(predicted["mask"]))
        found = (predicted[name].tolist() for name in ("iou", "l1"))
        numbers = [dict(zip(("iou", "l1"), pair, strict=True)) for pair in zip(*found, strict=True)]

        def picture_of(parts: Tensor) -> Callable[[str], Any]:
            return lambda title: grid(parts, columns=len(columns))

        return [
            Answer(f"mask IoU {one['iou']:.3f}, L1 {one['l1']:.3f}", one, picture_of(parts))
            for one, parts in zip(numbers, torch.stack(columns, 1), strict=True)
        ]

    def draw_mask(self, mask: Tensor) -> Tensor:
        """In gray, uint8 [B, H, W, C]."""
        return self.input.draw((2 * mask - 1).expand(-1, self.input.channels, -1, -1))

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """A row for each image: its patches, what is made of them with two noises, and what is true."""
        x = batch["image"][:ROWS]
        patches, mask = self.puzzle(x)
        z_BZ = self.draw_latent(2 * len(x))
        made, made_mask = self.generator(patches, z_BZ[: len(x)])
        again, _ = self.generator(patches, z_BZ[len(x) :])
        columns = {f"patch {k + 1}": self.input.draw(patches[:, k]) for k in range(PATCHES)}
        columns |= {"made mask": self.draw_mask(made_mask), "true mask": self.draw_mask(mask)}
        columns |= {name: self.input.draw(y) for name, y in {"made": made, "made again": again, "truth": x}.items()}
        figure, axes = subplots(1, len(columns), size=(9.0, 1.1 * len(x) + 0.4), squeeze=False)
        for axis, (name, column) in zip(axes.flat, columns.items(), strict=True):
            axis.imshow(grid(column, columns=1).squeeze(), cmap="gray", vmin=0, vmax=255)
            axis.set_title(name, fontsize=9)
            axis.axis("off")
        return {"samples": grid(columns["made"]), "puzzles": figure}


def scores(x: Tensor, mask: Tensor, made: Tensor, made_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union of the masks, and the mean absolute error of the image inside the true one, both [B]."""
    said = made_mask > 0.5
    iou_B = (said & (mask > 0)).flatten(1).sum(1) / (said | (mask > 0)).flatten(1).sum(1)
    error_B = ((made - x).abs() * mask).flatten(1).sum(1) / (mask.flatten(1).sum(1) * x.shape[1])
    return iou_B, error_B
