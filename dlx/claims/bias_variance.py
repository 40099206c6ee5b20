"""Bias and variance over capacity (Geman, Bienenstock, Doursat 1992), on a function whose noise is known.

A polynomial's capacity is its degree, a network's its width. Each is trained on training sets that are drawn anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import legend_beside, mean_and_error
from dlx.config import Config
from dlx.config.checks import at_least, rising
from dlx.methods.bias_variance import noise_of, plot_fits
from dlx.methods.decomposition import measure_error, squared
from dlx.methods.predictions import predict_split_by_runs
from dlx.random import generator

FAMILIES = {"polynomial": "degree", "mlp": "width"}
DRAWN = 10  # fits, at every fifth test point
FLOOR = 1e-4  # an unbiased estimate of a bias of 0 may be negative, which has no logarithm


class BiasVarianceTradeoff(Claim):
    """degrees: degrees of polynomials. widths: units of a network's one hidden layer. replicates: trainings of each, on
    training sets of their own. mlp_samples: training samples of the network, which varies enough only with few."""

    claim = "With capacity bias² falls and variance grows, and the error is least in between"
    size = (12, 8)

    def __init__(
        self,
        *,
        degrees: tuple[int, ...] = (1, 2, 4, 6, 8, 10, 12, 14, 17),
        widths: tuple[int, ...] = (1, 2, 4, 8, 32),
        replicates: int = 20,
        mlp_samples: int = 40,
    ) -> None:
        rising(3, degrees=degrees, widths=widths)
        at_least(2, replicates=replicates)
        at_least(10, mlp_samples=mlp_samples)
        self.capacities = {"polynomial": degrees, "mlp": widths}
        self.seeds, self.mlp_samples = replicates, mlp_samples

    def variants(self, base: Config) -> Variants:
        degrees, widths = self.capacities.values()
        polynomials = {f"polynomial-{degree}": ["model=polynomial", f"model.degree={degree}"] for degree in degrees}
        networks = {f"mlp-{width}": [f"model.hidden=[{width}]", f"data.samples={self.mlp_samples}"] for width in widths}
        return polynomials | networks

    def repeat(self, name: str, seed: int) -> list[str]:
        return [f"data.data_seed={seed}", f"seed={seed}"]

    def measure(self, base: Config, runs: Runs) -> Measured:
        noise = noise_of(base)
        assert noise is not None
        found: Measured = {"noise": noise**2}
        for family, capacities in self.capacities.items():
            parts = found[family] = {}
            for capacity in capacities:
                test = predict_split_by_runs(runs[f"{family}-{capacity}"], "test", trust=base.trust)
                _, bias2_N, variance_N = squared(test.output, test.truth)
                rng = generator(base["seed"], "test_noise", capacity)
                error, rest, standard_error = measure_error(test.output, test.truth, noise, rng)
                distance_M = (test.output - test.truth).double().square().mean((1, 2))
                parts[str(capacity)] = {
                    "bias2": float(bias2_N.mean()),
                    "variance": float(variance_N.mean()),
                    "error": error,
                    "off": rest / standard_error if noise else 0.0,
                    "expected": (distance_M + noise**2).tolist(),
                    "fits": test.output[:DRAWN, ::5, 0].tolist(),
                    "mean": test.output[:, ::5, 0].mean(0).tolist(),
                }
                found |= {"x": test.inputs[::5, 0].tolist(), "truth": test.truth[::5, 0].tolist()}
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        halves: Any = figure.subfigures(2, 1, height_ratios=[1.3, 1])
        above, below = halves
        panels = above.subplots(1, 2, sharey=True)
        for axes, family in zip(panels, FAMILIES, strict=True):
            self._draw_parts(axes, family, measured)
        panels[0].set_ylim(0.7 * FLOOR, None)  # of both panels, after the curves
        degrees = list(measured["polynomial"])
        errors = [mean(part) for part in measured["polynomial"].values()]
        shown = [degrees[0], degrees[errors.index(min(errors))], degrees[-1]]
        for axes, degree in zip(below.subplots(1, 3, sharey=True), shown, strict=True):
            part = measured["polynomial"][degree]
            plot_fits(axes, measured["x"], part["fits"], truth=measured["truth"], mean=part["mean"])
            axes.set_title(f"fits of degree {degree}")
        legend_beside(axes)

    def _draw_parts(self, axes: Any, family: str, measured: Measured) -> None:
        at = [int(capacity) for capacity in measured[family]]
        parts = list(measured[family].values())
        bias2 = [part["bias2"] for part in parts]
        axes.plot(at, [max(value, FLOOR) for value in bias2], "o-", color="tab:blue", label="bias²")
        below = [capacity for capacity, value in zip(at, bias2, strict=True) if value < FLOOR]
        axes.plot(
            below, [FLOOR] * len(below), "o", color="tab:blue", markerfacecolor="white", zorder=3,
            label=f"bias² below {FLOOR:g}",
        )  # fmt: skip
        axes.plot(at, [part["variance"] for part in parts], "o-", color="tab:orange", label="variance")
        axes.axhline(measured["noise"], color="0.6", linestyle="--", label="noise")
        axes.plot(at, [mean(part) for part in parts], "-", color="black", linewidth=2, label="their sum")
        axes.plot(at, [part["error"] for part in parts], "x", color="tab:red", label="error that was measured")
        axes.set(yscale="log", xlabel=FAMILIES[family], title=family)
        if family == "mlp":
            axes.set_xscale("log", base=2)
        axes.set_xticks(at, [str(capacity) for capacity in at])
        axes.minorticks_off()
        if family == "polynomial":
            axes.set(ylabel="mean squared error")
        else:
            legend_beside(axes)

    def verdict(self, measured: Measured) -> Verdict:
        verdicts = {family: family_verdict(measured[family]) for family in FAMILIES}
        off = max(abs(part["off"]) for family in FAMILIES for part in measured[family].values())
        lines = [f"{family}: {verdict.line}" for family, verdict in verdicts.items()]
        return Verdict(
            all(verdict.held for verdict in verdicts.values()) and off < 4,
            f"{'; '.join(lines)}; bias² + variance + noise is the measured error everywhere, "
            f"at most {off:.1f} standard errors off",
        )


def mean(part: Mapping[str, Any]) -> float:
    """bias² + variance + noise: the mean of the expected errors of the trainings."""
    return mean_and_error(part["expected"])[0]


def family_verdict(parts: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """held: bias² falls, variance grows, and both ends of the capacities are worse than the best, on the mean and on
    three quarters of the training sets (a few that end in a wild fit make the mean's error large)."""
    capacities, found = list(parts), list(parts.values())
    best = min(range(len(found)), key=lambda n: mean(found[n]))
    bias2, variance = ([part[name] for part in found] for name in ("bias2", "variance"))
    held, ends = _rises([-value for value in bias2]) and _rises(variance), []
    for end in (0, -1):
        above = [a - b for a, b in zip(found[end]["expected"], found[best]["expected"], strict=True)]
        distance, often = mean_and_error(above)[0], sum(value > 0 for value in above) / len(above)
        held &= distance > 0 and often >= 0.75
        ends.append(f"{distance:+.4f} at {capacities[end]} (worse on {often:.0%} of the training sets)")
    return Verdict(
        held,
        f"bias² {bias2[0]:.4f} to {bias2[-1]:.4f}, variance {variance[0]:.4f} to {variance[-1]:.4f}, error least at "
        f"{capacities[best]} ({mean(found[best]):.4f}), {' and '.join(ends)}",
    )


def _rises(values: Sequence[float]) -> bool:
    """True if values rise from the first to the last, and at more than half of the steps between."""
    steps = [after - before for before, after in pairwise(values)]
    return values[-1] > values[0] and sum(step > 0 for step in steps) > len(steps) / 2
