"""Adversarial learning: a generator against a discriminator. The losses that all such systems choose from, and the kind
of those that make samples from latent numbers.

Shapes: B batch, N samples of a split, Z of the latent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.random import normal_rows
from dlx.runs.media import grid
from dlx.tasks.density import draw_points
from dlx.tasks.spec import Image, Images, Points, Reals
from dlx.tasks.system import Objective, System

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch, Statistics

S = TypeVar("S", bound="Spec")

SHOWN = 64  # samples of a picture
PLOTTED = 1000  # points of one
WITHIN = 3.0  # standard deviations of a mode: what lies in them counts as a sample of it
COLLAPSED = 0.5  # a spread below this share of the data's is a collapse


# Losses, of the discriminator's outputs before any sigmoid, in any shape (a patch discriminator's are maps).


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """-E ln D(real) - E ln(1 - D(fake)) of logits (Goodfellow et al. 2014, arXiv:1406.2661); 2 ln 2 for D = 1/2."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """-E ln D(fake) of logits, the non-saturating loss; ln 2 for D = 1/2. Unlike E ln(1 - D) it has a slope where D is
    sure that it sees a fake."""
    return F.softplus(-fake).mean()


def saturating_loss(fake: Tensor) -> Tensor:
    """E ln(1 - D(fake)) of logits: the generator's side of the minimax game; -ln 2 for D = 1/2."""
    return -F.softplus(fake).mean()


def least_squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E (D(real) - 1)^2 / 2 + E D(fake)^2 / 2 (Mao et al. 2016, arXiv:1611.04076, equation 9)."""
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def least_squares_generator(fake: Tensor) -> Tensor:
    """E (D(fake) - 1)^2 / 2"""
    return (fake - 1).square().mean() / 2


def wasserstein_critic(real: Tensor, fake: Tensor) -> Tensor:
    """E D(fake) - E D(real) (Arjovsky et al. 2017, arXiv:1701.07875); the critic must have slopes of at most 1."""
    return fake.mean() - real.mean()


def wasserstein_generator(fake: Tensor) -> Tensor:
    return -fake.mean()


@dataclass(frozen=True)
class Loss:
    """discriminator: of outputs for real and fake samples. generator: of outputs for fakes."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


LOSSES = {
    "non_saturating": Loss(discriminator_loss, generator_loss),
    "minimax": Loss(discriminator_loss, saturating_loss),
    "least_squares": Loss(least_squares_discriminator, least_squares_generator),
    "wasserstein": Loss(wasserstein_critic, wasserstein_generator),
}


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, target: float = 1.0) -> Tensor:
    """E (|grad critic(x)| - target)^2 at x = u real + (1 - u) fake, one u in (0, 1) for each sample (Gulrajani et al.
    2017, arXiv:1704.00028, algorithm 1).

    critic: from samples [B, ...] to scores [B, ...]. It is computed in float32 also under autocast: a gradient of a
    gradient in half precision underflows.
    """
    with torch.autocast(real.device.type, enabled=False):
        real, fake = real.float(), fake.detach().float()
        u_B = torch.rand(len(real), device=real.device).view(-1, *[1] * (real.dim() - 1))
        x = (u_B * real + (1 - u_B) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(critic(x).float().sum(), x, create_graph=True)
        norm_B = (slope.flatten(1).square().sum(1) + 1e-12).sqrt()  # a root has no slope at 0
        return (norm_B - target).square().mean()


# Specs and pictures.


def in_sign_range(spec: S) -> S:
    """The spec with its images normalized to [-1, 1], the range of a tanh."""
    return replace(spec, **{name: image.in_range(-1, 1) for name, image in spec.of_kind(Image).items()})


def outputs_log(player: str, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """What the discriminator says of both, on average, to be logged."""
    return {f"{player}/real": real.detach().float().mean(), f"{player}/fake": fake.detach().float().mean()}


# How much samples differ, and which modes they cover.


def spread_sums(x: Tensor, name: str) -> Statistics:
    """Sums over samples [B, ...] from which `spread` comes."""
    x = x.flatten(1).double()
    return {
        f"{name}_sum": x.sum(0),
        f"{name}_squares": x.square().sum(),
        f"{name}_count": x.new_tensor(len(x), dtype=torch.int64),
    }


def spread(statistics: Statistics, name: str) -> float:
    """The root of the mean squared distance of two samples: sqrt(2 (E|x|^2 - |E x|^2))."""
    count = int(statistics[f"{name}_count"])
    mean = statistics[f"{name}_sum"] / count
    return math.sqrt(max(0.0, 2 * float(statistics[f"{name}_squares"] / count - mean.square().sum())))


def mode_counts(x_BF: Tensor, modes_MF: Tensor, std: float) -> Tensor:
    """How many points lie within WITHIN standard deviations of each mode, int64 [M]; each counts for its nearest."""
    distance_BM = torch.cdist(x_BF.float(), modes_MF)
    nearest = distance_BM.min(1)
    return torch.bincount(nearest.indices[nearest.values <= WITHIN * std], minlength=len(modes_MF))


class Adversarial(System):
    """Base of systems whose generator makes samples of latent numbers, and whose discriminator tells them from data.

    A subclass sets `generator`, `discriminator`, `latent_dim` and `loss`, and may override `draw_latent`,
    `latent_rows`, `generate` and `discriminate`. Evaluation tells `spread`, the root mean squared distance of two
    samples as a share of that of the data (1 is right; near 0 all samples are alike), and, where the modes of the data
    are known, `modes`, the share of them that samples cover, and `quality`, the share of samples within 3 standard
    deviations of one.
    """

    players = ("discriminator", "generator")
    film = True

    generator: nn.Module
    discriminator: nn.Module
    latent_dim: int
    loss: Loss
    penalty: float = 0.0
    critic_steps: int = 1

    def __init__(self, *, spec: Images | Points) -> None:
        super().__init__()
        self.spec = in_sign_range(spec)
        ((self.input_name, self.input),) = [
            (name, entry) for name, entry in self.spec.inputs.items() if isinstance(entry, Image | Reals)
        ]

    def choose_loss(self, loss: str, penalty: float = 0.0, critic_steps: int = 1) -> None:
        """Raises ValueError naming the argument. penalty: factor of the critic's gradient penalty, which torch.compile
        cannot follow. critic_steps: turns of the discriminator for one of the generator."""
        checks.one_of(LOSSES, loss=loss)
        checks.at_least(0, penalty=penalty)
        checks.at_least(1, critic_steps=critic_steps)
        self.loss, self.penalty, self.critic_steps = LOSSES[loss], penalty, critic_steps
        self.compiles = not penalty  # type: ignore[misc]

    def objectives(self, stage: int = 0) -> list[Objective]:
        return [
            Objective.of("discriminator", self.discriminator),
            Objective.of("generator", self.generator, every=self.critic_steps),
        ]

    def averaged(self) -> list[nn.Parameter]:
        return list(self.generator.parameters())

    # Latents and samples.

    def draw_latent(self, count: int) -> Tensor:
        """[count, Z], standard normal."""
        return torch.randn(count, self.latent_dim, device=self.device)

    def latent_rows(self, index_B: Tensor) -> Tensor:
        """The same latent for the same index, [B, Z]."""
        return normal_rows("latent", index_B, self.latent_dim)

    def generate(self, z_BZ: Tensor) -> Tensor:
        """Normalized samples [B, *shape]."""
        made: Tensor = self.generator(z_BZ)
        return made

    def discriminate(self, x: Tensor) -> Tensor:
        """Outputs before any sigmoid."""
        said: Tensor = self.discriminator(x)
        return said

    # Training: two turns.

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        real = batch[self.input_name]
        if objective.name == "generator":
            return self.loss.generator(self.discriminate(self.generate(self.draw_latent(len(real))))), {}
        with torch.no_grad():
            fake = self.generate(self.draw_latent(len(real)))
        # Real and fake apart: statistics of a batch norm over both would tell which is which (Radford et al. 2016).
        on_real, on_fake = self.discriminate(real), self.discriminate(fake)
        loss = self.loss.discriminator(on_real, on_fake)
        if self.penalty:
            loss = loss + self.penalty * gradient_penalty(self.discriminate, real, fake)
        return loss, outputs_log("discriminator", on_real, on_fake)

    # Evaluation.

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ("modes", "quality", "spread") if isinstance(self.input, Reals) and self.input.modes else ("spread",)

    def evaluate(self, batch: Batch) -> Statistics:
        fake = self.generate(self.latent_rows(batch["index"]))
        found = {**spread_sums(batch[self.input_name], "real"), **spread_sums(fake, "fake")}
        if isinstance(self.input, Reals) and self.input.modes:
            modes_MF = torch.tensor(self.input.modes, device=fake.device)
            found["near"] = mode_counts(fake, modes_MF, self.input.mode_std)
        return found

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        found = {"spread": spread(statistics, "fake") / max(spread(statistics, "real"), 1e-12)}
        if "near" in statistics:
            near_M = statistics["near"]
            found["modes"] = float((near_M > 0).double().mean())
            found["quality"] = float(near_M.sum() / statistics["fake_count"])
        return found

    def remarks(self, metrics: Mapping[str, float]) -> list[str]:
        return collapse_remarks(metrics)

    # What a person asks for.

    def sample(self, count: int) -> Batch:
        return {self.input_name: self.generate(self.draw_latent(count))}

    def showcase(self, batch: Batch) -> dict[str, Any]:
        if isinstance(self.input, Image):
            return {"samples": grid(self.input.draw(self.generate(self.draw_latent(SHOWN))))}
        x = batch[self.input_name][:PLOTTED]
        return {"samples": draw_points(x, self.generate(self.draw_latent(PLOTTED)))}


def collapse_remarks(metrics: Mapping[str, float]) -> list[str]:
    """A line where the samples are far more alike than the data."""
    spread = metrics.get("spread", 1.0)
    if spread >= COLLAPSED:
        return []
    return [f"samples are alike: they spread {spread:.2f} times as far as the data (collapsed, or trained too little)"]
