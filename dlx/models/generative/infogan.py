"""InfoGAN (Chen et al. 2016, arXiv:1606.03657): a GAN whose samples tell of the code that they were made of.

The generator reads noise and a code: categories, and numbers in (-1, 1). A network Q on the discriminator's trunk reads
the code back from a sample. L_I = E ln Q(c|G(z, c)) + H(c), a lower bound of the mutual information of code and sample,
is added to the aims of both players, and the code comes to mean something: of digits which one it is, slant, thickness.
Shapes: B batch, Z of the latent (noise and code), U uniform numbers that a latent is made of, K categories of a code,
C of the code (all categories and numbers), N numbers of the code, F features of the trunk.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.models.generative.dcgan import initialize, make_trunk, sides
from dlx.random import uniform_rows
from dlx.runs.draw import subplots
from dlx.runs.media import grid
from dlx.tasks.adversarial import PLOTTED, SHOWN, Adversarial, outputs_log
from dlx.tasks.answer import Answer
from dlx.tasks.spec import Image, Images, Points
from dlx.tasks.system import Objective

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlx.runs.draw import Figure
    from dlx.tasks.system import Batch, Statistics

ACROSS = 10  # samples of a row in a picture of the code
IGNORED = 0.5  # L_I below this share of H(c): the code says little


class InfoGAN(Adversarial):
    """noise_dim: uniform numbers in (-1, 1) that mean nothing. categories: of each categorical code, drawn with equal
    probability. continuous: how many numbers the code has, uniform in (-1, 1).

    weight: of the bound in both losses (lambda). std: of Q's Gaussian for the numbers; it is fixed, since a learned one
    would shrink without end. network: mlp, dense layers of `hidden`, mirrored in the discriminator; conv, the paper's,
    with `units` in a dense layer and `width` channels next to the image, doubled at each halving of the side.
    code_units: of Q's hidden layer. slope: of the leaky ReLUs of trunk and Q.
    """

    def __init__(
        self,
        *,
        spec: Images | Points,
        noise_dim: int = 62,
        categories: tuple[int, ...] = (10,),
        continuous: int = 2,
        weight: float = 1.0,
        std: float = 1.0,
        network: Literal["mlp", "conv"] = "conv",
        hidden: tuple[int, ...] = (128, 128),
        width: int = 64,
        units: int = 1024,
        code_units: int = 128,
        slope: float = 0.1,
        loss: Literal["non_saturating", "minimax", "least_squares"] = "non_saturating",
    ) -> None:
        super().__init__(spec=spec)
        checks.at_least(1, noise_dim=noise_dim, width=width, units=units, code_units=code_units)
        checks.at_least(0, continuous=continuous, weight=weight)
        checks.above(0, std=std)
        checks.between("[0, 1)", slope=slope)
        checks.one_of(("mlp", "conv"), network=network)
        checks.one_of(("non_saturating", "minimax", "least_squares"), loss=loss)
        if not categories or min(categories) < 2:
            raise ValueError(f"categories must hold numbers of at least 2, got {list(categories)}")
        if network == "mlp" and (not hidden or min(hidden) < 1):
            raise ValueError(f"hidden must hold widths of at least 1, got {list(hidden)}")
        if network == "conv" and not isinstance(self.input, Image):
            raise ValueError("network conv needs images; points have network=mlp")
        self.choose_loss(loss)
        self.noise_dim, self.categories, self.continuous = noise_dim, tuple(categories), continuous
        self.weight, self.std = weight, std
        self.entropy = sum(math.log(K) for K in categories)  # H(c) of the categorical codes, nats
        code = sum(categories) + continuous
        self.latent_dim = noise_dim + code
        shape = self.input.shape
        if network == "conv":
            self.generator = make_generator(self.latent_dim, shape, width, units)
            convolutions, features = make_trunk(shape, width, slope)
            flat = nn.Linear(math.prod(features), units, bias=False)
            self.trunk = nn.Sequential(convolutions, nn.Flatten(), flat, nn.BatchNorm1d(units), nn.LeakyReLU(slope))
        else:
            is_image = isinstance(self.input, Image)
            self.generator = make_dense_generator(self.latent_dim, shape, hidden, is_image=is_image)
            units = hidden[0]
            layers: list[nn.Module] = [nn.Flatten()]
            for inputs, outputs in pairwise((math.prod(shape), *reversed(hidden))):
                layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(slope)]
            self.trunk = nn.Sequential(*layers)
        self.discriminator = nn.Linear(units, 1)
        self.recognition = nn.Sequential(  # Q
            nn.Linear(units, code_units, bias=False), nn.BatchNorm1d(code_units), nn.LeakyReLU(slope),
            nn.Linear(code_units, code),
        )  # fmt: skip
        if network == "conv":
            self.apply(initialize)

    def objectives(self, stage: int = 0) -> list[Objective]:
        """The bound moves trunk and Q in the discriminator's turn, and the generator in its own."""
        return [
            Objective.of("discriminator", self.trunk, self.discriminator, self.recognition),
            Objective.of("generator", self.generator),
        ]

    # Latents: noise, then the categories as 0 and 1, then the numbers.

    def latent_of(self, uniform_BU: Tensor) -> Tensor:
        """From numbers in (0, 1), one for each number and each categorical code, [B, Z]."""
        noise_BN, *category, numbers_BN = uniform_BU.split(
            [self.noise_dim, *[1] * len(self.categories), self.continuous], 1
        )
        codes = [
            one_of_k((u_B1[:, 0] * K).long().clamp(max=K - 1), K)
            for u_B1, K in zip(category, self.categories, strict=True)
        ]
        return torch.cat([2 * noise_BN - 1, *codes, 2 * numbers_BN - 1], 1)

    @property
    def uniforms(self) -> int:
        return self.noise_dim + len(self.categories) + self.continuous

    def draw_latent(self, count: int) -> Tensor:
        return self.latent_of(torch.rand(count, self.uniforms, device=self.device))

    def latent_rows(self, index_B: Tensor) -> Tensor:
        return self.latent_of(uniform_rows("latent", index_B, self.uniforms))

    def code_of(self, z_BZ: Tensor) -> Tensor:
        """The first categorical code, int64 [B]."""
        return z_BZ[:, self.noise_dim : self.noise_dim + self.categories[0]].argmax(1)

    # The bound.

    def discriminate(self, x: Tensor) -> Tensor:
        said: Tensor = self.discriminator(self.trunk(x))
        return said

    def read(self, features_BF: Tensor) -> list[Tensor]:
        """Q's answer: ln Q [B, K] of each categorical code, then the means of the numbers, [B, N]."""
        *logits, mean_BN = self.recognition(features_BF).float().split([*self.categories, self.continuous], 1)
        return [*(logits_BK.log_softmax(1) for logits_BK in logits), mean_BN]

    def information(self, features_BF: Tensor, z_BZ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ln Q(c) + H(c) in nats, [B], of the categorical codes and of the numbers, and the squared error of these."""
        *log_q, mean_BN = self.read(features_BF)
        *category, numbers_BN = z_BZ[:, self.noise_dim :].split([*self.categories, self.continuous], 1)
        categorical_B = self.entropy + sum((c_BK * q_BK).sum(1) for c_BK, q_BK in zip(category, log_q, strict=True))
        square_BN = (numbers_BN - mean_BN).square()
        constant = math.log(2) - math.log(self.std * math.sqrt(2 * math.pi))  # H of a uniform number in (-1, 1) is ln 2
        return categorical_B, (constant - square_BN / (2 * self.std**2)).sum(1), square_BN

    # Training: two turns.

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        real = batch[self.input_name]
        z_BZ = self.draw_latent(len(real))
        if objective.name == "generator":
            features_BF = self.trunk(self.generate(z_BZ))
            categorical_B, numbers_B, _ = self.information(features_BF, z_BZ)
            loss = self.loss.generator(self.discriminator(features_BF))
            bound = (categorical_B + numbers_B).mean()
            return loss - self.weight * bound, {"generator/information": categorical_B.detach().mean()}
        with torch.no_grad():
            fake = self.generate(z_BZ)
        on_real, features_BF = self.discriminate(real), self.trunk(fake)
        on_fake = self.discriminator(features_BF)
        categorical_B, numbers_B, _ = self.information(features_BF, z_BZ)
        loss = self.loss.discriminator(on_real, on_fake) - self.weight * (categorical_B + numbers_B).mean()
        return loss, outputs_log("discriminator", on_real, on_fake)

    # Evaluation.

    @property
    def metric_names(self) -> tuple[str, ...]:
        return "information", *(["code_error"] if self.continuous else []), *super().metric_names

    def evaluate(self, batch: Batch) -> Statistics:
        z_BZ = self.latent_rows(batch["index"])
        categorical_B, _, square_BN = self.information(self.trunk(self.generate(z_BZ)), z_BZ)
        found = {"information": categorical_B.double().sum(), "square": square_BN.double().sum()}
        return {**super().evaluate(batch), **found}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        """information: L_I of the categorical codes in nats, at most H(c), ln 10 = 2.303 for one of ten. code_error:
        the root mean squared error of Q's reading of the numbers; 0.577 is that of a guess."""
        count = int(statistics["fake_count"])
        found = {"information": float(statistics["information"] / count)}
        if self.continuous:
            found["code_error"] = math.sqrt(float(statistics["square"] / (count * self.continuous)))
        return {**found, **super().metrics(statistics)}

    def remarks(self, metrics: Mapping[str, float]) -> list[str]:
        known = metrics.get("information", self.entropy)
        lines = super().remarks(metrics)
        if known < IGNORED * self.entropy:
            lines.append(f"the samples tell {max(0.0, known):.2f} of {self.entropy:.2f} nats of their code")
        return lines

    # What a person asks for.

    def embed(self, batch: Batch) -> Tensor:
        """The trunk's features."""
        features: Tensor = self.trunk(batch[self.input_name])
        return features

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """What Q reads: code, the first category, int64 [B]; probability [B, K] of each; numbers [B, N]."""
        log_q_BK, *_, mean_BN = self.read(self.embed(batch))
        return {"code": log_q_BK.argmax(1), "probability": log_q_BK.exp(), "numbers": mean_BN}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        rows = zip(*(predicted[name].tolist() for name in ("code", "probability", "numbers")), strict=True)
        return [
            Answer(
                f"code {code} ({probability[code]:.2f})" + "".join(f" {number:+.2f}" for number in numbers),
                {"code": code, "probability": probability, "numbers": numbers},
            )
            for code, probability, numbers in rows
        ]

    def sample(self, count: int, *, code: int | None = None, numbers: tuple[float, ...] | None = None) -> Batch:
        """code: the first category. numbers: all of the code's numbers. What is not given is drawn. The batch has
        `code`, int64 [count], beside the samples."""
        z_BZ, K = self.draw_latent(count), self.categories[0]
        if code is not None:
            if not 0 <= code < K:
                raise UserError(f"--given code: must be from 0 to {K - 1}, got {code}")
            z_BZ[:, self.noise_dim : self.noise_dim + K] = one_of_k(torch.tensor([code], device=self.device), K)
        if numbers is not None:
            if len(numbers) != self.continuous:
                raise UserError(f"--given numbers: must hold {self.continuous}, got {len(numbers)}")
            z_BZ[:, self.latent_dim - self.continuous :] = torch.tensor(numbers, device=self.device)
        return {self.input_name: self.generate(z_BZ), "code": self.code_of(z_BZ)}

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """Samples; of images also a row for each category, with other noise and numbers in each column, and for
        each number a picture in which it goes from -1 to 1 in a row."""
        if not isinstance(self.input, Image):
            z_BZ = self.draw_latent(PLOTTED)
            return {"samples": draw_coded(batch[self.input_name][:PLOTTED], self.generate(z_BZ), self.code_of(z_BZ))}
        pictures = {"samples": grid(self.input.draw(self.generate(self.draw_latent(SHOWN))))}
        K, first = self.categories[0], self.latent_dim - self.continuous
        z_BZ = self.draw_latent(ACROSS).repeat(K, 1)  # a row after the other
        each_KK = one_of_k(torch.arange(K, device=self.device), K)
        z_BZ[:, self.noise_dim : self.noise_dim + K] = each_KK.repeat_interleave(ACROSS, 0)
        pictures["codes"] = grid(self.input.draw(self.generate(z_BZ)), columns=ACROSS)
        z_BZ[:, : self.noise_dim] = z_BZ[0, : self.noise_dim]
        z_BZ[:, first:] = 0
        for number in range(self.continuous):
            swept_BZ = z_BZ.clone()
            swept_BZ[:, first + number] = torch.linspace(-1, 1, ACROSS, device=self.device).repeat(K)
            pictures[f"number-{number + 1}"] = grid(self.input.draw(self.generate(swept_BZ)), columns=ACROSS)
        return pictures


def one_of_k(index_B: Tensor, K: int) -> Tensor:
    """1 at the index, else 0, float32 [B, K]."""
    return (index_B.unsqueeze(1) == torch.arange(K, device=index_B.device)).float()


def make_generator(latent_dim: int, shape: tuple[int, ...], width: int, units: int) -> nn.Sequential:
    """From latents [B, Z] to images [B, C, H, W] in [-1, 1]: two dense layers, then transposed convolutions."""
    maps = sides(shape)
    channels = [width * 2**level for level in reversed(range(len(maps) - 1))]
    size = channels[0] * math.prod(maps[-1])
    layers: list[nn.Module] = [nn.Linear(latent_dim, units), nn.BatchNorm1d(units), nn.ReLU()]
    layers += [nn.Linear(units, size), nn.BatchNorm1d(size), nn.ReLU(), nn.Unflatten(1, (channels[0], *maps[-1]))]
    for before, after in pairwise(channels):
        layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels[-1], shape[0], 4, stride=2, padding=1), nn.Tanh())


def make_dense_generator(
    latent_dim: int, shape: tuple[int, ...], hidden: tuple[int, ...], *, is_image: bool
) -> nn.Sequential:
    """From latents [B, Z] to samples [B, *shape], of images in [-1, 1]."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((latent_dim, *hidden)):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    layers += [nn.Linear(hidden[-1], math.prod(shape)), *([nn.Tanh()] if is_image else [])]
    return nn.Sequential(*layers, nn.Unflatten(1, shape))


def draw_coded(data_BF: Tensor, made_BF: Tensor, code_B: Tensor) -> Figure:
    """The first two columns of the data, and beside them those of samples, coloured by their code."""
    figure, axes = subplots(1, 2, size=(7.5, 3.8), sharex=True, sharey=True)
    colours = ["0.6", [f"C{code % 10}" for code in code_B.tolist()]]
    for axis, points, colour in zip(axes, (data_BF, made_BF), colours, strict=True):
        axis.scatter(*points[:, :2].float().cpu().T.numpy(), s=6, c=colour, alpha=0.7, linewidths=0)
        axis.set_aspect("equal")
    axes[0].set_title("data")
    axes[1].set_title("samples, coloured by their code")
    return figure
