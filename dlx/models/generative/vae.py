"""Variational autoencoder (Kingma & Welling 2013, arXiv:1312.6114): a latent model that is trained by a lower bound.

log p(x) >= ELBO = E_q(z|x) log p(x|z) - KL(q(z|x) | p(z)), with q(z|x) and p(z) normal and z = mean + std * noise.
log p(x) is an integral over z that has no formula, so that there are bounds of it: the ELBO, and the
importance-weighted one, log of the mean over K draws of p(x, z) / q(z|x) (Burda et al. 2016, arXiv:1509.00519), which
rises with K to log p(x).
Shapes: B batch, C channels, H height, W width, D dimensions, Z of the code, K draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.generative.coder import Activation, Network, check_networks, make_decoder, make_encoder
from dlx.models.generative.priors import PRIORS
from dlx.random import normal_rows, uniform_rows
from dlx.tasks.density import Density, is_binary, levels_of
from dlx.tasks.latents import PRIOR_DRAWS, complete_half, draw_pair, latent_pictures
from dlx.tasks.spec import Image, Images, Points

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlx.tasks.answer import Answer
    from dlx.tasks.system import Batch, Objective, Statistics

AT_A_TIME = 8  # draws that are decoded together, whatever the batch: memory does not grow with `draws`
LOG_2PI = math.log(2 * math.pi)


class VAE(Density):
    """likelihood: bernoulli for binary images; gaussian, with one learned variance of the noise for all dimensions;
    null: whichever suits the data. network, hidden, activation: of the encoder, mirrored in the decoder; no hidden
    layer is a linear model, whose best is probabilistic PCA (Tipping & Bishop 1999).

    beta: weight of the KL term (Higgins et al. 2017). free_bits: nats that each number of the code has for nothing
    (Kingma et al. 2016, arXiv:1606.04934). warmup: share of the training over which the weight of the KL term rises
    from 0. draws: K of the importance-weighted bound.

    Of images of K levels the gaussian is of v = (level + u) / K with u uniform in (0, 1) (Theis et al. 2016,
    arXiv:1511.01844): log p(levels) >= E_u log N(v) - D ln K, since the mean of log N over a level's cell is at most
    the logarithm of the cell's mass. So `nll` compares with that of models of levels. Of points it is a density's.
    """

    def __init__(
        self,
        *,
        spec: Images | Points,
        latent_dim: int = 8,
        likelihood: Literal["bernoulli", "gaussian"] | None = None,
        network: Network = "mlp",
        hidden: tuple[int, ...] = (256,),
        activation: Activation = "relu",
        beta: float = 1.0,
        free_bits: float = 0.0,
        warmup: float = 0.0,
        draws: int = 64,
        prior: str = "gaussian",
    ) -> None:
        super().__init__(spec=spec)
        checks.at_least(1, latent_dim=latent_dim, draws=draws)
        checks.at_least(0, beta=beta, free_bits=free_bits)
        checks.between("[0, 1]", warmup=warmup)
        checks.one_of(("bernoulli", "gaussian"), likelihood=likelihood)
        check_networks(self.input.shape, network, hidden, activation)
        if prior in PRIORS and prior != "gaussian":
            raise ValueError(f"prior {prior} can only be drawn from, and the KL of a VAE needs its density: model=aae")
        if prior != "gaussian":
            raise ValueError(f"prior must be gaussian, got {prior!r}")
        binary = isinstance(self.input, Image) and is_binary(self.input)
        if likelihood == "bernoulli" and not binary:
            raise ValueError(
                "likelihood bernoulli is for binary images, as the cross-entropy of gray values is no density: "
                "gaussian, or data=binary_digits"
            )
        self.likelihood = likelihood or ("bernoulli" if binary else "gaussian")
        self.latent_dim, self.beta, self.free_bits, self.warmup, self.draws = latent_dim, beta, free_bits, warmup, draws
        self.levels = levels_of(self.input) if isinstance(self.input, Image) else 0
        self.encoder = make_encoder(self.input.shape, 2 * latent_dim, network, hidden, activation)
        self.decoder = make_decoder(latent_dim, self.input.shape, network, hidden, activation)
        if self.likelihood == "gaussian":
            self.log_std = nn.Parameter(torch.full((), -1.0))

    @property
    def whole_batch(self) -> bool:  # type: ignore[override]
        """Free bits are those of a batch's mean."""
        return self.free_bits > 0

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/loss", "min"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return "loss", "nll", "bpd", "reconstruction", "kl"

    # The model: p(z), q(z|x), p(x|z).

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the standard deviation of q(z|x), both [B, Z]."""
        mean_BZ, log_std_BZ = self.encoder(x).chunk(2, -1)
        return mean_BZ, log_std_BZ

    def decode(self, z: Tensor) -> Tensor:
        """Logits of p(x|z), or its mean, [..., *shape] from codes [..., Z]."""
        return self.decoder(z.flatten(0, -2)).unflatten(0, z.shape[:-1])

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats, [..., B], of samples [B, *shape] and codes [..., B, Z], or [..., 1, Z], one for all."""
        out = self.decode(z)
        out = out.to(torch.promote_types(out.dtype, x.dtype))  # also under autocast: a sum over many dimensions
        axes = tuple(range(-len(self.input.shape), 0))
        if self.likelihood == "bernoulli":
            out, x = torch.broadcast_tensors(out, x)
            return -F.binary_cross_entropy_with_logits(out, x, reduction="none").sum(axes)
        squares = ((x - out) * (-self.log_std).exp()).square().sum(axes)
        return -0.5 * squares - self.dimensions * (self.log_std + 0.5 * LOG_2PI + math.log(self.levels or 1))

    def observed(self, batch: Batch, *, fixed: bool) -> Tensor:
        """What p(x|z) is a model of: binary images and points as they are, levels of others with uniform noise.

        fixed: noise by the samples' index.
        """
        x = batch[self.input_name]
        if self.likelihood == "bernoulli" or not self.levels:
            return x
        u = uniform_rows("vae/levels", batch["index"], *self.input.shape) if fixed else torch.rand_like(x)
        return (x * (self.levels - 1) + u) / self.levels

    def mean_of(self, z: Tensor) -> Tensor:
        """E(x|z) as normalized samples, [..., *shape]."""
        out = self.decode(z)
        if self.likelihood == "bernoulli":
            return out.sigmoid()
        return (out * self.levels - 0.5) / (self.levels - 1) if self.levels else out

    # Training, and bounds.

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.observed(batch, fixed=False)
        mean_BZ, log_std_BZ = self.encode(x)
        z_BZ = mean_BZ + log_std_BZ.exp() * torch.randn_like(mean_BZ)
        reconstruction = self.weighted_mean(-self.log_likelihood(x, z_BZ), batch)
        kl_BZ = kl_to_standard(mean_BZ, log_std_BZ)
        if "weight" in batch:
            kl_BZ = kl_BZ * batch["weight"].unsqueeze(-1)
        kl_Z = kl_BZ.mean(0)
        weight = self.beta * (batch["progress"] / self.warmup).clamp(max=1) if self.warmup else self.beta
        loss = reconstruction + weight * kl_Z.clamp(min=self.free_bits).sum()
        return loss, {"reconstruction": reconstruction.detach(), "kl": kl_Z.sum().detach()}

    def draw_weights(self, batch: Batch, draws: int) -> Iterator[tuple[Tensor, Tensor]]:
        """log p(x|z) and log p(x, z) / q(z|x) of draws of q(z|x) by the samples' index, float64 [K, B] each, some draws
        at a time. More draws begin with the same ones."""
        x = self.observed(batch, fixed=True)
        mean_BZ, log_std_BZ = self.encode(x)
        for start in range(0, draws, AT_A_TIME):
            shape = (min(AT_A_TIME, draws - start), self.latent_dim)
            noise_KBZ = normal_rows(f"vae/{start}", batch["index"], *shape).transpose(0, 1)
            z_KBZ = mean_BZ + log_std_BZ.exp() * noise_KBZ
            log_likelihood_KB = self.log_likelihood(x, z_KBZ).double()
            log_prior_to_q_KB = (0.5 * (noise_KBZ.square() - z_KBZ.square()) + log_std_BZ).sum(-1)
            yield log_likelihood_KB, log_likelihood_KB + log_prior_to_q_KB

    def bounds(self, batch: Batch, draws: int | None = None) -> dict[str, Tensor]:
        """Of each sample, float64 [B] in nats: `log_prob`, the importance-weighted bound; `reconstruction`, the mean of
        -log p(x|z) over the same draws; `kl`. The ELBO is -reconstruction - kl."""
        draws = draws or self.draws
        kl_B = kl_to_standard(*self.encode(self.observed(batch, fixed=True))).sum(-1).double()
        total_B, reconstruction_B = torch.full_like(kl_B, -torch.inf), torch.zeros_like(kl_B)
        for log_likelihood_KB, log_weight_KB in self.draw_weights(batch, draws):
            total_B = torch.logaddexp(total_B, log_weight_KB.logsumexp(0))
            reconstruction_B = reconstruction_B - log_likelihood_KB.sum(0)
        return {"log_prob": total_B - math.log(draws), "reconstruction": reconstruction_B / draws, "kl": kl_B}

    def log_prob(self, batch: Batch) -> Tensor:
        """The importance-weighted bound of `draws` draws, [B]."""
        return self.bounds(batch)["log_prob"]

    def evaluate(self, batch: Batch) -> Statistics:
        """loss: -ELBO, whatever beta and free_bits are; nll: by the importance-weighted bound."""
        found = self.bounds(batch)
        return {
            "loss": (found["reconstruction"] + found["kl"]).sum(),
            "nll": -found["log_prob"].sum(),
            "reconstruction": found["reconstruction"].sum(),
            "kl": found["kl"].sum(),
            "count": torch.tensor(len(found["kl"]), device=found["kl"].device),
        }

    # What a person asks for.

    def embed(self, batch: Batch) -> Tensor:
        return self.encode(self.observed(batch, fixed=True))[0]

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """log_prob [B]: the bound; reconstruction [B, *shape]: of the mean code."""
        return {"log_prob": self.log_prob(batch), "reconstruction": self.mean_of(self.embed(batch))}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        return draw_pair(
            self.input, batch[self.input_name], predicted["reconstruction"], super().answer(batch, predicted)
        )

    def sample(
        self, count: int, *, half: Path | None = None, steps: int = 50, noise: bool | None = None
    ) -> Batch | Iterator[Batch]:
        """Samples of p(z) p(x|z). noise: whether x is drawn, or is the mean; null: the mean of images.

        half: an image of the data's size whose upper half is kept; the lower one is drawn by pseudo-Gibbs steps, encode
        and decode in turn (Rezende et al. 2014, arXiv:1401.4082, appendix F).
        """
        if half is not None:
            return complete_half(self.input, self.input_name, half, count, steps, self._again, self.device)
        z_BZ = torch.randn(count, self.latent_dim, device=self.device)
        drawn = not isinstance(self.input, Image) if noise is None else noise
        return {self.input_name: self._draw(z_BZ) if drawn else self.mean_of(z_BZ)}

    def _draw(self, z: Tensor) -> Tensor:
        """x ~ p(x|z); levels of images."""
        if self.likelihood == "bernoulli":
            return torch.bernoulli(self.decode(z).sigmoid())
        mean = self.decode(z)
        x = mean + self.log_std.exp() * torch.randn_like(mean)
        return (x * self.levels).floor().clamp(0, self.levels - 1) / (self.levels - 1) if self.levels else x

    def _again(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A draw of p(x'|z) with z ~ q(z|x), and its mean."""
        index = torch.arange(len(x), device=x.device)
        mean_BZ, log_std_BZ = self.encode(self.observed({self.input_name: x, "index": index}, fixed=False))
        z_BZ = mean_BZ + log_std_BZ.exp() * torch.randn_like(mean_BZ)
        return self._draw(z_BZ), self.mean_of(z_BZ)

    def showcase(self, batch: Batch) -> dict[str, Any]:
        codes_BZ = self.embed(batch)
        prior_NZ = torch.randn(PRIOR_DRAWS, self.latent_dim, device=self.device)
        pictures = latent_pictures(self.input, batch[self.input_name], codes_BZ, prior_NZ, self.mean_of)
        return {**super().showcase(batch), **pictures}


def kl_to_standard(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std^2) | N(0, 1)) of each number, nats."""
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1) - log_std
