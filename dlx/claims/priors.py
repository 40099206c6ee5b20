"""An AAE's codes get the distribution of any prior that can be drawn from, also of those that a VAE cannot take.

A VAE's KL needs the prior's density; an AAE's discriminator needs draws of it (Makhzani et al. 2015, arXiv:1511.05644).
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import torch

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals
from dlx.config import Config, build, compose
from dlx.config.checks import at_least
from dlx.config.errors import UserError
from dlx.tasks.analyses import embedded
from dlx.tasks.spec import Label
from dlx.tasks.two_sample import mmd, permutation_test
from dlx.training.trained import open_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRIORS = ("gaussian", "mixture", "swiss_roll")
SHOWN = 600  # points of a panel


class Priors(Claim):
    """seeds: trainings with each prior; the figure is of the first."""

    claim = "The codes of an AAE get the distribution of priors that a VAE cannot take"
    size = (12, 4.6)

    def __init__(self, *, seeds: int = 2) -> None:
        at_least(1, seeds=seeds)
        self.seeds = seeds

    def variants(self, base: Config) -> Variants:
        return {prior: ["model.latent_dim=2", f"model.prior={prior}"] for prior in PRIORS}

    def measure(self, base: Config, runs: Runs) -> Measured:
        opened = {prior: open_all(runs[prior][0], trust=base.trust) for prior in PRIORS}
        codes: dict[str, Any] = {}
        for prior, run in opened.items():
            labels = run.dataset.spec.of_kind(Label)
            name = next(iter(labels), "index")
            codes[prior] = embedded(run.system, run.loader("test", {**run.system.spec.entries, **labels}), name)
        drawn: dict[str, Any] = {
            prior: run.system.fixed_prior(len(codes[prior][0]))  # type: ignore[operator]
            for prior, run in opened.items()
        }
        return {
            prior: {
                "mmd": finals(runs[prior], "test/mmd"),
                "reconstruction": finals(runs[prior], "test/reconstruction"),
                "to": {other: mmd(codes[prior][0], drawn[other]) for other in PRIORS},
                "p": permutation_test(codes[prior][0][:SHOWN], drawn[prior][:SHOWN]),
                "vae": refusal(base, prior, opened[prior].dataset.spec),
                "codes": codes[prior][0][:SHOWN].tolist(),
                "labels": codes[prior][1][:SHOWN].tolist(),
                "prior": drawn[prior][:SHOWN].tolist(),
            }
            for prior in PRIORS
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        panels = figure.subplots(1, len(measured))
        for axes, (prior, found) in zip(panels, measured.items(), strict=True):
            drawn, codes = torch.tensor(found["prior"]), torch.tensor(found["codes"])
            axes.scatter(*drawn.T.numpy(), s=14, color="0.82", linewidths=0, label="draws of the prior")
            colors = [f"C{label % 10}" for label in found["labels"]]
            axes.scatter(*codes.T.numpy(), s=9, c=colors, linewidths=0, label="codes, coloured by class")
            title = f"{prior}: MMD² {statistics.fmean(found['mmd']):.4f}, p {found['p']:.2f}"
            axes.set(title=title, aspect="equal", xlabel="z1")
            reach = 1.15 * float(drawn.abs().max())
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach))
        panels[0].set_ylabel("z2")
        figure.suptitle("codes of test images over draws of the prior")

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where the codes are ten times nearer to their own prior than to each other one, and a VAE refuses
        all but the gaussian."""
        near = all(
            statistics.fmean(found["mmd"]) < 0.1 * min(value for other, value in found["to"].items() if other != prior)
            for prior, found in measured.items()
        )
        refused = [prior for prior, found in measured.items() if found["vae"]]
        each = ", ".join(
            f"{prior} {statistics.fmean(found['mmd']):.4f} (to the next prior "
            f"{min(value for other, value in found['to'].items() if other != prior):.3f}; p {found['p']:.2f})"
            for prior, found in measured.items()
        )
        line = f"squared MMD of codes and prior, test: {each}; a VAE refuses {' and '.join(refused) or 'none'}"
        return Verdict(near and refused == list(PRIORS[1:]), line)


def refusal(base: Config, prior: str, spec: Any) -> str | None:
    """What a VAE says to a prior; None: it takes it."""
    try:
        config = compose(["model=vae", f"model.prior={prior}"], base=base)
        with torch.device("meta"):
            build(config, "model", spec=spec)
    except (UserError, ValueError) as error:
        return str(error)
    return None
