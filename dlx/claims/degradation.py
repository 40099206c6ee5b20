"""Degradation (He, Zhang, Ren, Sun 2015, arXiv:1512.03385, figure 6): deeper plain networks train worse."""

from __future__ import annotations

from itertools import product

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import curve, draw_guessing, guessing, legend_beside, mean_and_error, mean_curve
from dlx.config import Config
from dlx.config.checks import at_least

KINDS = {"plain": "none", "residual": "identity"}  # and their shortcuts


class Degradation(Claim):
    """depths: the shallower and the deeper network, each plain and residual. rates: learning rates at which all four
    are trained. seeds: trainings of each.
    """

    claim = "A deeper plain network has more training error than a shallower one; with shortcuts it has not"

    def __init__(
        self, *, depths: tuple[int, int] = (20, 56), rates: tuple[float, ...] = (0.01, 0.1), seeds: int = 2
    ) -> None:
        if not depths[0] < depths[1]:
            raise ValueError(f"depths must rise, got {list(depths)}")
        if not rates or min(rates) <= 0:
            raise ValueError(f"rates must be above 0, and at least one, got {list(rates)}")
        at_least(1, seeds=seeds)
        self.depths, self.rates, self.seeds = depths, rates, seeds

    def variants(self, base: Config) -> Variants:
        return {
            f"lr-{rate:g}-{kind}-{depth}": [
                f"optim.lr={rate}", f"model.depth={depth}", f"model.shortcut={KINDS[kind]}",
            ]
            for rate, kind, depth in product(self.rates, KINDS, self.depths)
        }  # fmt: skip

    def measure(self, base: Config, runs: Runs) -> Measured:
        found: Measured = {f"{rate:g}": {} for rate in self.rates}
        guess = guessing(base)
        for rate, kind, depth in product(found, KINDS, self.depths):
            of_network = runs[f"lr-{rate}-{kind}-{depth}"]
            found[rate][f"{kind} {depth}"] = {
                "loss": mean_curve(of_network, "train/loss"),
                "error": [1 - curve(run, "train/accuracy")[1][-1] for run in of_network],
                "guessing": guess,
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        figure.set_size_inches(6.8 * len(measured), 4.4)
        panels = figure.subplots(1, len(measured), sharey=True, squeeze=False)[0]
        for axes, (rate, networks) in zip(panels, measured.items(), strict=True):
            for name, found in networks.items():
                kind, depth = name.split()
                is_deep = int(depth) == self.depths[1]
                axes.plot(
                    found["loss"]["x"],
                    found["loss"]["y"],
                    color="tab:red" if kind == "plain" else "tab:blue",
                    linewidth=2.4 if is_deep else 1.2,
                    linestyle="-" if is_deep else "--",
                    label=f"{name}: {mean_and_error(found['error'])[0]:.1%}\ntraining error",
                )
            draw_guessing(axes, found["guessing"])
            axes.set(yscale="log", xlabel="epoch", title=f"training loss with lr {rate}")
            axes.locator_params(axis="x", integer=True)
            legend_beside(axes)
        panels[0].set_ylabel("training loss")

    def verdict(self, measured: Measured) -> Verdict:
        """Each network is judged at the rate that leaves it the least loss: no network at a rate that suits another."""
        errors = {
            rate: {name: mean_and_error(found["error"])[0] for name, found in networks.items()}
            for rate, networks in measured.items()
        }
        last = {
            name: {rate: networks[name]["loss"]["y"][-1] for rate, networks in measured.items()}
            for name in next(iter(measured.values()))
        }
        best = {name: min(by_rate, key=by_rate.__getitem__) for name, by_rate in last.items()}
        error = {name: errors[rate][name] for name, rate in best.items()}
        shallow, deep = self.depths
        rise = {kind: error[f"{kind} {deep}"] - error[f"{kind} {shallow}"] for kind in KINDS}
        chosen = ", ".join(f"{name} {error[name]:.1%} (lr {rate})" for name, rate in best.items())
        each = "; ".join(
            f"at lr {rate} " + ", ".join(f"{name} {value:.1%}" for name, value in networks.items())
            for rate, networks in errors.items()
        )
        return Verdict(
            rise["plain"] > 0.05 and rise["residual"] < 0.01,
            f"training error in the last pass, each at its best rate: {chosen}; {each}",
        )
