"""Discrete VAE (Ramesh et al. 2021, arXiv:2102.12092, section 2.1): an image becomes a grid of codes, each one of K.

log p(x) >= E_q(z|x) log p(x|z) - KL(q(z|x) | p(z)), with p(z) uniform, so that the KL of a code is ln K - H(q). A draw
of a code has no gradient; in training it is softmax((logits + Gumbel noise) / temperature), a mixture of codes that
becomes a single one as the temperature falls (Jang et al. 2016, arXiv:1611.01144).
Shapes: B batch, K codes, C channels, H height, W width, h and w of the grid.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.random import uniform_rows
from dlx.runs.media import grid
from dlx.tasks.answer import Answer
from dlx.tasks.judge import entropy
from dlx.tasks.latents import SHOWN, draw_pair
from dlx.tasks.spec import Images
from dlx.tasks.system import System

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlx.tasks.system import Batch, Objective, Statistics

MARGIN = 0.1  # pixels are in [0.1, 0.9]: the logit of 0 is not finite (appendix A.3)
IN_BOOK = 64  # codes of a picture


class Block(nn.Module):
    """x + gain * four convolutions of x, the inner ones a quarter as wide."""

    def __init__(self, inputs: int, outputs: int, kernels: tuple[int, ...], gain: float) -> None:
        super().__init__()
        widths = [inputs, *[outputs // 4] * 3, outputs]
        layers: list[nn.Module] = []
        for (before, after), kernel in zip(pairwise(widths), kernels, strict=True):
            layers += [nn.ReLU(), nn.Conv2d(before, after, kernel, padding=kernel // 2)]
        self.layers, self.gain = nn.Sequential(*layers), gain
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.skip(x_BCHW) + self.gain * self.layers(x_BCHW)


def make_encoder(channels: int, codes: int, width: int, levels: int, blocks: int) -> nn.Sequential:
    """From images [B, C, H, W] to logits [B, K, h, w]: each level but the last halves the side and doubles width."""
    gain = 1 / (levels * blocks) ** 2
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 7, padding=3)]
    before = width
    for level in range(levels):
        for _ in range(blocks):
            layers.append(Block(before, width * 2**level, (3, 3, 3, 1), gain))
            before = width * 2**level
        layers += [nn.MaxPool2d(2)] if level + 1 < levels else []
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(before, codes, 1))


def make_decoder(codes: int, outputs: int, width: int, levels: int, blocks: int, embedding: int) -> nn.Sequential:
    """From shares of codes [B, K, h, w] to maps [B, outputs, H, W]."""
    gain = 1 / (levels * blocks) ** 2
    layers: list[nn.Module] = [nn.Conv2d(codes, embedding, 1)]
    before = embedding
    for level in reversed(range(levels)):
        for _ in range(blocks):
            layers.append(Block(before, width * 2**level, (1, 3, 3, 3), gain))
            before = width * 2**level
        layers += [nn.Upsample(scale_factor=2, mode="nearest")] if level else []
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(before, outputs, 1))


def initialize(module: nn.Module) -> None:
    """Weights N(0, 1 / fan in), biases 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def gumbel(uniform: Tensor) -> Tensor:
    """Gumbel noise from numbers in [0, 1)."""
    return -(-uniform.clamp(1e-10, 1 - 1e-7).log()).log()


def kl_to_uniform(logits_BKhw: Tensor) -> Tensor:
    """KL(q | uniform) = ln K - H(q) of each code, nats, [B, h, w]."""
    log_q = logits_BKhw.log_softmax(1)
    return math.log(logits_BKhw.shape[1]) + (log_q.exp() * log_q).sum(1)


def logit_laplace(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """-log of the density of x in (0, 1) whose logit has a Laplace distribution (appendix A.3): ln(2b) + ln x(1 - x) +
    |logit x - mean| / b."""
    return (2 * scale).log() + x.log() + (1 - x).log() + (x.logit() - mean).abs() / scale


class DVAE(System):
    """codes: K. width: channels next to the image, which each of `levels` - 1 halvings of the side doubles; blocks: at
    each level; embedding: numbers of a code where the decoder begins.

    beta: weight of the KL, which rises from 0 over `warmup` of the training; temperature: of the Gumbel-softmax at the
    end of `anneal` of the training, to which it falls from 1 with half a cosine. likelihood: logit_laplace, with a
    scale for each pixel that is at least a level's width (of gray levels a density would have no bound), or mse, the
    squared error. The loss is -ELBO with that weight, over the number of values in an image.
    """

    def __init__(
        self,
        *,
        spec: Images,
        codes: int = 8192,
        width: int = 256,
        levels: int = 4,
        blocks: int = 2,
        embedding: int = 128,
        beta: float = 6.6,
        warmup: float = 0.0017,
        temperature: float = 1 / 16,
        anneal: float = 0.05,
        likelihood: Literal["logit_laplace", "mse"] = "logit_laplace",
    ) -> None:
        super().__init__()
        checks.at_least(2, codes=codes)
        checks.at_least(4, width=width)
        checks.at_least(1, levels=levels, blocks=blocks, embedding=embedding)
        checks.at_least(0, beta=beta)
        checks.between("[0, 1]", warmup=warmup, anneal=anneal)
        checks.between("(0, 1]", temperature=temperature)
        checks.one_of(("logit_laplace", "mse"), likelihood=likelihood)
        self.image = spec.image.in_range(0, 1)
        self.spec = Images(image=self.image)
        channels, height, width_of_image = self.image.shape
        side = 2 ** (levels - 1)
        if height % side or width_of_image % side:
            raise ValueError(f"levels must halve {height} x {width_of_image} pixels {levels - 1} times, got {levels}")
        self.codes, self.beta, self.warmup, self.likelihood = codes, beta, warmup, likelihood
        self.temperature, self.anneal = temperature, anneal
        self.grid = (height // side, width_of_image // side)
        self.values = channels * height * width_of_image
        outputs = 2 * channels if likelihood == "logit_laplace" else channels
        self.encoder = make_encoder(channels, codes, width, levels, blocks)
        self.decoder = make_decoder(codes, outputs, width, levels, blocks, embedding)
        self.apply(initialize)

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/hard", "min"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return "hard", "soft", "codes_used", "perplexity", "loss", "kl"

    # Codes and images.

    def encode(self, image: Tensor) -> Tensor:
        """The most probable codes of normalized images, int64 [B, h, w]."""
        return self.encoder(image).argmax(1)

    def decode(self, code_Bhw: Tensor) -> Tensor:
        """Images of codes, normalized, [B, C, H, W]."""
        first, *rest = self.decoder
        assert isinstance(first, nn.Conv2d)
        h = F.embedding(code_Bhw, first.weight.flatten(1).T).movedim(-1, 1)  # the convolution of a one-hot map
        if first.bias is not None:
            h = h + first.bias[:, None, None]
        return self.image_of(nn.Sequential(*rest)(h))

    def image_of(self, out: Tensor) -> Tensor:
        """The mean image of the decoder's maps."""
        if self.likelihood == "mse":
            return out
        mean = out.float().chunk(2, 1)[0]
        return ((mean.sigmoid() - MARGIN) / (1 - 2 * MARGIN)).clamp(0, 1)

    def nll(self, image: Tensor, out: Tensor) -> Tensor:
        """-log p(x|z) of each image, nats, [B]; of mse its squared error."""
        out = out.float()
        if self.likelihood == "mse":
            return (out - image).square().flatten(1).sum(1)
        mean, log_scale = out.chunk(2, 1)
        least = (1 - 2 * MARGIN) / (self.image.scale + 1)
        x = (1 - 2 * MARGIN) * image + MARGIN
        return logit_laplace(x, mean, least + log_scale.exp()).flatten(1).sum(1)

    def soften(self, logits: Tensor, uniform: Tensor, temperature: Tensor | float) -> Tensor:
        """Shares of the codes in a relaxed draw, [B, K, h, w]."""
        return ((logits.float() + gumbel(uniform)) / temperature).softmax(1)

    # Training.

    def weights(self, progress: Tensor) -> tuple[Tensor, Tensor]:
        """Temperature and weight of the KL at a share of the training, 0-d tensors."""
        done = (progress / self.anneal).clamp(max=1) if self.anneal else torch.ones_like(progress)
        temperature = self.temperature + (1 - self.temperature) * (1 + (math.pi * done).cos()) / 2
        beta = self.beta * ((progress / self.warmup).clamp(max=1) if self.warmup else torch.ones_like(progress))
        return temperature, beta

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.encoder(batch["image"])
        temperature, beta = self.weights(batch["progress"])
        shares = self.soften(logits, torch.rand_like(logits, dtype=torch.float32), temperature)
        nll = self.nll(batch["image"], self.decoder(shares)).mean() / self.values
        kl = kl_to_uniform(logits.float()).sum((1, 2)).mean()
        logs = {"nll": nll.detach(), "kl": kl.detach(), "temperature": temperature}
        return nll + beta * kl / self.values, logs

    # Evaluation, at the last temperature.

    def evaluate(self, batch: Batch) -> Statistics:
        image, logits = batch["image"], self.encoder(batch["image"])
        uniform = uniform_rows("dvae", batch["index"], *logits.shape[1:])
        soft = self.image_of(self.decoder(self.soften(logits, uniform, self.temperature)))
        code, drawn = logits.argmax(1), F.one_hot((logits + gumbel(uniform)).argmax(1), self.codes)
        kl_B = kl_to_uniform(logits.float()).sum((1, 2))
        nll_B = self.nll(image, self.decoder(drawn.movedim(-1, 1).to(logits.dtype)))
        return {
            "hard": (self.decode(code) - image).square().mean((1, 2, 3)).double().sum(),
            "soft": (soft - image).square().mean((1, 2, 3)).double().sum(),
            "kl": kl_B.double().sum(),
            "loss": (nll_B + kl_B).double().sum() / self.values,
            "used": torch.bincount(code.flatten(), minlength=self.codes),
            "count": torch.tensor(len(image), device=image.device),
        }

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        """hard, soft: mean squared error of images from single codes and from relaxed draws, of pixels in [0, 1];
        codes_used: share of the K; perplexity: exp of the entropy of how often each is used, at most K; kl: nats an
        image; loss: -ELBO over the values of an image, from draws of q."""
        count = int(statistics["count"])
        found = {name: float(statistics[name] / count) for name in ("hard", "soft", "loss", "kl")}
        found["codes_used"] = float((statistics["used"] > 0).double().mean())
        found["perplexity"] = math.exp(entropy(statistics["used"]))
        return found

    def remarks(self, metrics: Mapping[str, float]) -> list[str]:
        found = []
        if metrics.get("codes_used", 1.0) < 0.25:
            found.append(f"{metrics['codes_used']:.0%} of the codes are used: a smaller model.beta uses more of them")
        if metrics.get("hard", 0.0) > 1.1 * metrics.get("soft", math.inf):
            found.append(
                f"single codes rebuild worse than mixtures of them: {metrics['hard']:.4g}, {metrics['soft']:.4g}"
            )
        return found

    # What a person asks for.

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """codes int64 [B, h, w]; reconstruction [B, C, H, W], from them; error [B], its mean squared error."""
        code = self.encode(batch["image"])
        rebuilt = self.decode(code)
        error = (rebuilt - batch["image"]).square().mean((1, 2, 3))
        return {"codes": code, "reconstruction": rebuilt, "error": error}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        answers = [
            Answer(
                f"{len({*code.flatten().tolist()})} codes, squared error {error:.4g}",
                {"codes": code.tolist(), "error": error},
            )
            for code, error in zip(predicted["codes"], predicted["error"].tolist(), strict=True)
        ]
        return draw_pair(self.image, batch["image"], predicted["reconstruction"], answers)

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """Originals, under them images from single codes and from relaxed draws; and what each of the codes that are
        used most looks like alone."""
        image = batch["image"][:SHOWN]
        logits = self.encoder(image)
        soft = self.image_of(self.decoder(self.soften(logits, torch.rand_like(logits), self.temperature)))
        rows = [self.image.draw(part) for part in (image, self.decode(logits.argmax(1)), soft)]
        used_K = torch.bincount(self.encode(batch["image"]).flatten(), minlength=self.codes)
        most = used_K.argsort(descending=True)[: min(IN_BOOK, int((used_K > 0).sum()))]
        book = self.image.draw(self.decode(most[:, None, None].expand(-1, *self.grid)))
        return {"reconstructions": grid(torch.cat(rows), columns=len(image)), "codebook": grid(book)}
