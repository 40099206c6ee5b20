"""What each kind of model can answer: log p(x) exactly, by a bound, or not at all; all of them can be sampled.

An explicit model has a density. A chain of conditionals computes it exactly. A VAE has one too, p(x) = the integral of
p(z) p(x|z), which it can only bound; with two latent numbers a sum over a grid of codes shows what is bounded. An
implicit model, such as an AAE or a GAN, is only a way to draw samples.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals
from dlx.config import Config
from dlx.config.checks import at_least, rising
from dlx.config.errors import UserError
from dlx.runs.media import grid
from dlx.training.trained import open_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

SAMPLES = 8
REACH = 5.0  # of the grid of codes, in standard deviations of the prior
AT_A_TIME = 512  # codes


class ExplicitVsImplicit(Claim):
    """exact: a model whose log p(x) is exact. draws: of the VAE's importance-weighted bound. side: codes on a side of
    the grid that p(x) is summed over."""

    claim = "A chain of conditionals has log p(x) exactly, a VAE a lower bound of it, an AAE only samples"
    size = (12, 5)

    def __init__(
        self,
        *,
        exact: str = "nade",
        draws: tuple[int, ...] = (1, 4, 16, 64, 256, 1024),
        side: int = 161,
    ) -> None:
        rising(2, draws=draws)
        at_least(2, side=side)
        self.exact, self.draws, self.side = exact, draws, side

    def variants(self, base: Config) -> Variants:
        return {
            "exact": [f"model={self.exact}"],
            "vae": ["model=vae", "model.latent_dim=2"],
            "aae": ["model=aae", "model.latent_dim=2"],
        }

    def measure(self, base: Config, runs: Runs) -> Measured:
        opened = {name: open_run(of_model[0], "test", trust=base.trust) for name, of_model in runs.items()}
        vae: Any
        vae, loader = opened["vae"]
        batches = list(loader.eval_batches())
        with torch.no_grad():
            bounds = {
                draws: torch.cat([vae.bounds(batch, draws)["log_prob"] for batch in batches]) for draws in self.draws
            }
            integral = torch.cat([quadrature(vae, batch, self.side) for batch in batches])
            samples = {name: drawn_samples(system) for name, (system, _) in opened.items()}
        aae: Any = opened["aae"][0]
        refused = None
        try:
            aae.log_prob(batches[0])
        except UserError as error:
            refused = str(error)
        return {
            "exact": {"nll": finals(runs["exact"], "test/nll")[0]},
            "vae": {
                "elbo": finals(runs["vae"], "test/loss")[0],
                "bounds": {str(draws): float(-bound_N.mean()) for draws, bound_N in bounds.items()},
                "integral": float(-integral.mean()),
            },
            "aae": {"refused": refused, "mmd": finals(runs["aae"], "test/mmd")[0]},
            "samples": samples,
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        grid = figure.add_gridspec(2, 2, width_ratios=[1.15, 1], height_ratios=[1, 1.1])
        table, pictures, axes = (figure.add_subplot(place) for place in (grid[0, 0], grid[1, 0], grid[:, 1]))
        vae = measured["vae"]
        last = str(self.draws[-1])
        rows = [
            [self.exact, "exactly", f"{measured['exact']['nll']:.2f}"],
            ["vae", "a bound: the ELBO", f"at most {vae['elbo']:.2f}"],
            ["", f"a bound of {last} draws", f"at most {vae['bounds'][last]:.2f}"],
            ["aae", "no" if measured["aae"]["refused"] else "?", "none"],
        ]
        table.set_axis_off()
        drawn = table.table(
            cellText=rows, colLabels=["model", "log p(x)", "-log p(x), nats, test"], loc="center", cellLoc="left"
        )
        drawn.auto_set_font_size(False)
        drawn.set_fontsize(9)
        drawn.scale(1, 1.45)
        names = {"exact": self.exact, "vae": "vae", "aae": "aae"}
        rows_NHW = torch.tensor([measured["samples"][name] for name in names])
        rows_NHW = torch.nn.functional.pad(rows_NHW, (0, 0, 0, 1), value=255)  # white between the rows
        height = rows_NHW.shape[1]
        pictures.imshow(rows_NHW.flatten(0, 1)[:-1].numpy(), cmap="gray", vmin=0, vmax=255)
        pictures.set(xticks=[], title="all of them can be sampled")
        pictures.set_yticks([height * (row + 0.5) - 1 for row in range(3)], list(names.values()))
        pictures.tick_params(length=0)
        for side in ("left", "bottom"):
            pictures.spines[side].set_visible(False)
        axes.plot(
            self.draws, [vae["bounds"][str(draws)] for draws in self.draws], "o-", label="importance-weighted bound"
        )
        axes.axhline(vae["elbo"], color="tab:orange", label="-ELBO")
        axes.axhline(vae["integral"], color="0.3", linestyle="--", label="-log p(x), by a sum over codes")
        axes.set(
            xscale="log",
            xlabel="draws of the bound",
            ylabel="nats an image, test",
            title="what a VAE can say of log p(x)",
        )
        axes.legend(frameon=False)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where -ELBO is above the bounds, which fall with the draws to the integral, and the AAE refuses."""
        vae = measured["vae"]
        bounds = list(vae["bounds"].values())
        falls = all(more < fewer + 0.01 for fewer, more in pairwise(bounds))
        held = falls and vae["elbo"] > bounds[-1] > vae["integral"] - 0.01 and measured["aae"]["refused"] is not None
        line = (
            f"nats an image, test: {self.exact} {measured['exact']['nll']:.2f} exactly; "
            f"vae at most {vae['elbo']:.2f} by the ELBO, {bounds[-1]:.2f} by {self.draws[-1]} draws, "
            f"{vae['integral']:.2f} by a sum over codes; aae {'refuses' if measured['aae']['refused'] else 'answers'}"
        )
        return Verdict(held, line)


def drawn_samples(system: Any) -> list[list[int]]:
    """A row of samples as gray pixels, white between them, [H, W * SAMPLES + SAMPLES - 1]."""
    made = system.sample(SAMPLES)
    if not isinstance(made, dict):
        *_, made = made
    pixels = grid(system.input.draw(made[system.input_name]), columns=SAMPLES)
    return pixels[..., 0].tolist()


def quadrature(vae: Any, batch: Any, side: int = 161) -> Tensor:
    """log p(x) of a VAE of two latent numbers, nats [B]: a sum over a grid of codes."""
    axis = torch.linspace(-REACH, REACH, side, device=vae.device)
    x = vae.observed(batch, fixed=True)
    total_B = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
    for z_G2 in torch.cartesian_prod(axis, axis).split(AT_A_TIME):
        log_p_GB = vae.log_likelihood(x, z_G2.unsqueeze(1)).double()
        log_prior_G1 = -0.5 * z_G2.double().square().sum(-1, keepdim=True) - math.log(2 * math.pi)
        total_B = torch.logaddexp(total_B, (log_p_GB + log_prior_G1).logsumexp(0))
    return total_B + 2 * math.log(2 * REACH / (side - 1))
