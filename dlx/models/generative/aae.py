"""Adversarial autoencoder (Makhzani et al. 2015, arXiv:1511.05644): codes get the distribution of any prior.

Where a VAE has KL(q(z|x) | p(z)), which needs the prior's density, a discriminator tells draws of the prior from codes,
and the encoder learns to fool it: the aggregate of the codes becomes the prior, of which draws are enough. Three turns:
reconstruct (encoder, decoder), discriminate (discriminator), regularize (encoder).
Shapes: B batch, N samples of a split, Z of the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.models.generative.coder import Activation, Network, check_networks, dense, make_decoder, make_encoder
from dlx.models.generative.priors import PRIORS, check_prior
from dlx.random import normal_rows, uniform_rows
from dlx.runs.media import grid
from dlx.tasks.adversarial import discriminator_loss, generator_loss
from dlx.tasks.answer import Answer
from dlx.tasks.density import SHOWN, draw_points, is_binary
from dlx.tasks.latents import PRIOR_DRAWS, complete_half, draw_pair, latent_pictures
from dlx.tasks.spec import Image, Images, Points
from dlx.tasks.system import Objective, System
from dlx.tasks.two_sample import mmd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlx.tasks.system import Batch, Statistics

MATCHED = 2000  # codes of a split, at most, that are compared with as many draws of the prior


class AAE(System):
    """prior: of the codes: gaussian, standard; mixture, eight Gaussians on a circle; swiss_roll, of two numbers.
    posterior: deterministic, or gaussian codes. network, hidden, activation: of the encoder, mirrored in the decoder.
    discriminator: its hidden layers.

    Reconstruction is the cross-entropy of binary images, in nats a sample, and the squared error of others, a mean over
    dimensions.
    """

    players = ("reconstruct", "discriminate", "regularize")
    film = True

    def __init__(
        self,
        *,
        spec: Images | Points,
        latent_dim: int = 2,
        prior: str = "gaussian",
        posterior: Literal["deterministic", "gaussian"] = "deterministic",
        network: Network = "mlp",
        hidden: tuple[int, ...] = (256,),
        activation: Activation = "relu",
        discriminator: tuple[int, ...] = (256, 256),
    ) -> None:
        super().__init__()
        ((self.input_name, entry),) = spec.inputs.items()
        if isinstance(entry, Image):
            entry = entry.in_range(0, 1)
            spec = Images(image=entry)
        self.spec, self.input = spec, entry
        checks.at_least(1, latent_dim=latent_dim)
        checks.one_of(("deterministic", "gaussian"), posterior=posterior)
        check_prior(prior, latent_dim)
        check_networks(entry.shape, network, hidden, activation)
        if not discriminator or any(width < 1 for width in discriminator):
            raise ValueError(f"discriminator must hold widths of at least 1, got {list(discriminator)}")
        self.latent_dim, self.prior, self.posterior = latent_dim, prior, posterior
        self.binary = isinstance(entry, Image) and is_binary(entry)
        codes = latent_dim if posterior == "deterministic" else 2 * latent_dim
        self.encoder = make_encoder(entry.shape, codes, network, hidden, activation)
        self.decoder = make_decoder(latent_dim, entry.shape, network, hidden, activation)
        self.discriminator = dense([latent_dim, *discriminator, 1], "relu")

    def objectives(self, stage: int = 0) -> list[Objective]:
        return [
            Objective.of("reconstruct", self.encoder, self.decoder),
            Objective.of("discriminate", self.discriminator),
            Objective.of("regularize", self.encoder),
        ]

    @property
    def monitor(self) -> tuple[str, str] | None:
        """None: the turns work against each other, and the weights of the best reconstruction are often those whose
        codes are far from the prior."""
        return None

    @property
    def metric_names(self) -> tuple[str, ...]:
        own = ("mean_error", "covariance_error") if self.prior == "gaussian" else ()
        return "reconstruction", "mmd", *own

    # Codes and samples.

    def encode(self, x: Tensor, noise_BZ: Tensor | None = None) -> Tensor:
        """Codes [B, Z]. noise: standard normal numbers for a gaussian posterior; None: its mean."""
        out = self.encoder(x)
        if self.posterior == "deterministic":
            return out
        mean_BZ, log_std_BZ = out.chunk(2, -1)
        return mean_BZ if noise_BZ is None else mean_BZ + log_std_BZ.exp() * noise_BZ

    def draw_code(self, x: Tensor) -> Tensor:
        return self.encode(x, torch.randn(len(x), self.latent_dim, device=x.device))

    def decode(self, z_BZ: Tensor) -> Tensor:
        """Normalized samples; of binary images the probability of 1."""
        out = self.decoder(z_BZ)
        return out.sigmoid() if self.binary else out

    def draw_prior(self, count: int) -> Tensor:
        """Codes [count, Z]."""
        normal_NZ = torch.randn(count, self.latent_dim, device=self.device)
        return PRIORS[self.prior](normal_NZ, torch.rand(count, device=self.device))

    # Training: three turns.

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        x = batch[self.input_name]
        if objective.name == "reconstruct":
            return self.errors(x, self.draw_code(x)).mean(), {}
        if objective.name == "regularize":
            return generator_loss(self.discriminator(self.draw_code(x))), {}
        with torch.no_grad():
            z_BZ = self.draw_code(x)
        real_B1, fake_B1 = self.discriminator(self.draw_prior(len(x))), self.discriminator(z_BZ)
        told = ((real_B1 > 0).float().mean() + (fake_B1 < 0).float().mean()) / 2
        return discriminator_loss(real_B1, fake_B1), {"discriminate/accuracy": told}

    def errors(self, x: Tensor, z_BZ: Tensor) -> Tensor:
        """The reconstruction error of each sample, [B]."""
        out = self.decoder(z_BZ).float()
        if self.binary:
            return F.binary_cross_entropy_with_logits(out, x, reduction="none").flatten(1).sum(1)
        return (out - x).square().flatten(1).mean(1)

    # Evaluation.

    def evaluate(self, batch: Batch) -> Statistics:
        x, index_B = batch[self.input_name], batch["index"]
        z_BZ = self.encode(x, normal_rows("aae/code", index_B, self.latent_dim))
        return {
            "reconstruction": self.errors(x, z_BZ).double().sum(),
            "count": torch.tensor(len(x), device=x.device),
            "codes": list(zip(index_B.tolist(), z_BZ.float().cpu().unbind(), strict=True)),
        }

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        """reconstruction; mmd: the squared maximum mean discrepancy of the codes and draws of the prior (its unbiased
        estimate; the kernel is that of dlx/tasks/two_sample.py); of a gaussian prior mean_error, the length of the
        codes' mean over sqrt(Z), and covariance_error, the Frobenius norm of their covariance less the unit matrix,
        over Z."""
        codes_NZ = torch.stack([code for _, code in sorted(statistics["codes"], key=lambda pair: pair[0])])[:MATCHED]
        found = {"reconstruction": float(statistics["reconstruction"] / statistics["count"])}
        if len(codes_NZ) < 2:
            return found
        found["mmd"] = mmd(codes_NZ, self.fixed_prior(len(codes_NZ)))
        if self.prior == "gaussian":
            codes_NZ = codes_NZ.double()
            excess_ZZ = codes_NZ.T.cov().view(self.latent_dim, -1) - torch.eye(self.latent_dim, dtype=torch.float64)
            found["mean_error"] = float(codes_NZ.mean(0).square().mean().sqrt())
            found["covariance_error"] = float(excess_ZZ.norm() / self.latent_dim)
        return found

    def fixed_prior(self, count: int) -> Tensor:
        """Draws of the prior that are the same each time, [count, Z], on the CPU."""
        index_N = torch.arange(count)
        normal_NZ = normal_rows("aae/normal", index_N, self.latent_dim)
        return PRIORS[self.prior](normal_NZ, uniform_rows("aae/uniform", index_N))

    # What a person asks for.

    def log_prob(self, batch: Batch) -> Tensor:
        """Raises UserError: there is none."""
        raise UserError("AAE has no log p(x): it can only be sampled (model=vae has a bound of it)")

    def embed(self, batch: Batch) -> Tensor:
        return self.encode(batch[self.input_name])

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """error [B], and reconstruction [B, *shape]."""
        z_BZ = self.embed(batch)
        return {"error": self.errors(batch[self.input_name], z_BZ), "reconstruction": self.decode(z_BZ)}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        unit = "nats" if self.binary else "squared error"
        answers = [
            Answer(f"reconstruction {error:.4g} {unit}", {"reconstruction": error})
            for error in predicted["error"].tolist()
        ]
        return draw_pair(self.input, batch[self.input_name], predicted["reconstruction"], answers)

    def sample(self, count: int, *, half: Path | None = None, steps: int = 50) -> Batch | Iterator[Batch]:
        """Decoded draws of the prior. half: an image of the data's size whose upper half is kept; the lower one is what
        encoding and decoding in turn comes to, for `steps` turns."""
        if half is not None:
            return complete_half(self.input, self.input_name, half, count, steps, self._again, self.device)
        return {self.input_name: self.decode(self.draw_prior(count))}

    def _again(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.decode(self.draw_code(x))
        return torch.bernoulli(mean) if self.binary else mean, mean

    def showcase(self, batch: Batch) -> dict[str, Any]:
        x, prior_NZ = batch[self.input_name], self.draw_prior(PRIOR_DRAWS)
        made = self.decode(prior_NZ)
        if isinstance(self.input, Image):
            samples = grid(self.input.draw(made[:SHOWN]))
        else:
            samples = draw_points(x, made[: len(x)])
        pictures = latent_pictures(self.input, x, self.embed(batch), prior_NZ, self.decode)
        return {"samples": samples, **pictures}
