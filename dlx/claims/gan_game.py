"""The game of a GAN at its best discriminator: D = p / (p + q), and the game is worth 2 JSD(p, q) - ln 4.

Goodfellow et al. 2014 (arXiv:1406.2661), proposition 1 and theorem 1, on Gaussians in one dimension, whose densities
are known: a small network is trained on draws of p (data) and q (the generator's), for several distances of q from p.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlx.claims.claim import Claim, Measured, Runs, Verdict
from dlx.claims.common import ordered_colors
from dlx.config import Config
from dlx.config.checks import at_least, between
from dlx.random import reseed
from dlx.tasks.adversarial import discriminator_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REACH, POINTS = 12.0, 4801  # of the grid on which densities are integrated
SUPPORT = 1e-2  # D is compared where (p + q) / 2 is above this
BATCH = 512
CURVE = 61  # distances at which the theory is drawn
NEAR = 0.03  # of D to p / (p + q)
SAME = 0.02  # nats, of values


class GANGame(Claim):
    """distances: of the mean of q = N(distance, 1) from that of p = N(0, 1), with 0 first. steps: of each
    discriminator's training, with new draws in each."""

    claim = "The best discriminator is p / (p + q); the game is then worth 2 JSD(p, q) - ln 4, which is least at p = q"

    def __init__(self, *, distances: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0), steps: int = 1000) -> None:
        if len(distances) < 2 or distances[0] != 0 or list(distances) != sorted(set(distances)):
            raise ValueError(f"distances must be 0 and then rising, got {list(distances)}")
        between("[0, 6]", **{"distances": distances[-1]})
        at_least(1, steps=steps)
        self.distances, self.steps = distances, steps

    def measure(self, base: Config, runs: Runs) -> Measured:
        games = {f"{distance:g}": self._game(distance, base["seed"]) for distance in self.distances}
        line = torch.linspace(0, self.distances[-1], CURVE).tolist()
        return {"games": games, "distances": line, "theory": [least_value(distance) for distance in line]}

    def _game(self, distance: float, seed: int) -> Measured:
        x_N, p_N, q_N = densities(distance)
        logit_N = trained(distance, self.steps, seed, x_N)
        shown_N = (p_N + q_N) / 2 > SUPPORT
        return {
            "x": x_N[shown_N].tolist()[::20],
            "D": logit_N.sigmoid()[shown_N].tolist()[::20],
            "best D": (p_N / (p_N + q_N))[shown_N].tolist()[::20],
            "p": p_N[shown_N].tolist()[::20],
            "q": q_N[shown_N].tolist()[::20],
            "error": float((logit_N.sigmoid() - p_N / (p_N + q_N))[shown_N].abs().max()),
            "value": game_value(x_N, p_N, q_N, logit_N),
            "theory": least_value(distance),
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        games = measured["games"]
        colors = ordered_colors(len(games))
        for (distance, found), color in zip(games.items(), colors, strict=True):
            left.plot(found["x"], found["best D"], color=color, linestyle="--", linewidth=1)
            left.plot(found["x"], found["D"], color=color, label=f"q = N({distance}, 1)")
        left.plot([], [], color="0.4", linestyle="--", linewidth=1, label="p / (p + q)")
        left.set(xlabel="x", ylabel="D(x)", title="what a trained discriminator says; p = N(0, 1)", ylim=(-0.02, 1.02))
        left.legend(frameon=False, fontsize=8)
        right.plot(measured["distances"], measured["theory"], color="0.6", label="2 JSD(p, q) - ln 4")
        values = [found["value"] for found in games.values()]
        right.scatter([float(distance) for distance in games], values, c=colors, zorder=3, label="trained D")
        right.axhline(-math.log(4), color="0.4", linestyle="--", linewidth=1, label="-ln 4 = -1.386")
        right.axhline(0, color="0.4", linestyle=":", linewidth=1, label="0: D is never wrong")
        right.set(xlabel="distance of the means", ylabel="E ln D + E ln(1 - D), nats", title="what the game is worth")
        right.legend(frameon=False, fontsize=8)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where D is within 0.03 of p / (p + q) wherever there are data, and each value within 0.02 nats of
        2 JSD - ln 4."""
        games = measured["games"]
        error = max(found["error"] for found in games.values())
        off = max(abs(found["value"] - found["theory"]) for found in games.values())
        least = games["0"]["value"]
        first = least == min(found["value"] for found in games.values())
        held = error < NEAR and off < SAME and first
        line = (
            f"|D - p / (p + q)| at most {error:.3f}; value within {off:.4f} nats of 2 JSD - ln 4; at p = q it is "
            f"{least:.4f} (-ln 4 = {-math.log(4):.4f})"
        )
        return Verdict(held, line)


def density(x_N: Tensor) -> Tensor:
    """Of N(0, 1)."""
    return (-x_N.square() / 2).exp() / math.sqrt(2 * math.pi)


def densities(distance: float) -> tuple[Tensor, Tensor, Tensor]:
    """A grid, and p and q on it, float64."""
    x_N = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    return x_N, density(x_N), density(x_N - distance)


def least_value(distance: float) -> float:
    """2 JSD(p, q) - ln 4 in nats."""
    return 2 * divergence(*densities(distance)) - math.log(4)


def divergence(x_N: Tensor, p_N: Tensor, q_N: Tensor) -> float:
    """The Jensen-Shannon divergence in nats, at most ln 2, of densities on a grid."""
    middle_N = (p_N + q_N) / 2
    return float(torch.trapezoid(torch.xlogy(p_N, p_N / middle_N) + torch.xlogy(q_N, q_N / middle_N), x_N)) / 2


def game_value(x_N: Tensor, p_N: Tensor, q_N: Tensor, logit_N: Tensor) -> float:
    """E ln D under p + E ln(1 - D) under q, of densities on a grid."""
    ln_d, ln_not = nn.functional.logsigmoid(logit_N), nn.functional.logsigmoid(-logit_N)
    return float(torch.trapezoid(p_N * ln_d + q_N * ln_not, x_N))


def trained(distance: float, steps: int, seed: int, x_N: Tensor) -> Tensor:
    """The logits on a grid of a discriminator that was trained on draws."""
    reseed(seed, "gan_game")
    network = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        real_B1, fake_B1 = torch.randn(BATCH, 1), torch.randn(BATCH, 1) + distance
        optimizer.zero_grad()
        discriminator_loss(network(real_B1), network(fake_B1)).backward()
        optimizer.step()
    with torch.no_grad():
        return network(x_N.float().unsqueeze(1))[:, 0].double()
