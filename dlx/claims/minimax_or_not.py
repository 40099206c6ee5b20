"""The two losses of a GAN's generator: minimax, E ln(1 - D), and non-saturating, -E ln D (Goodfellow et al. 2014).

Both are least for the same samples, but by a sample's logit their slopes are D and 1 - D: where the discriminator is
sure that it sees a fake, the first gives the generator no gradient. That is measured on one generator, before any
training, while the discriminator alone learns (as in Arjovsky and Bottou 2017, arXiv:1701.04862, figure 2); what both
losses come to is measured by trainings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, mean_and_error, plus_minus
from dlx.config import Config, build
from dlx.config.checks import at_least
from dlx.random import reseed
from dlx.tasks.adversarial import LOSSES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {"minimax": "minimax", "non_saturating": "non-saturating"}
BATCH, LOOKS = 256, 30
SMALLER = 0.1  # the minimax gradient, as a share of the other


class MinimaxOrNot(Claim):
    """lead: turns that the discriminator takes alone. seeds: trainings with each loss."""

    claim = "Where the discriminator is sure, the minimax loss gives no gradient, and the non-saturating one does"
    size = (13, 4.0)

    def __init__(self, *, lead: int = 300, seeds: int = 2) -> None:
        at_least(2, lead=lead)
        at_least(1, seeds=seeds)
        self.lead, self.seeds = lead, seeds

    def variants(self, base: Config) -> Variants:
        return {loss: [f"model.loss={loss}"] for loss in NAMES}

    def measure(self, base: Config, runs: Runs) -> Measured:
        ends = {
            loss: {name: finals(runs[loss], f"test/{name}") for name in ("modes", "quality", "spread")}
            for loss in NAMES
        }
        return {"lead": lead(base, self.lead), "ends": ends}

    def draw(self, measured: Measured, figure: Figure) -> None:
        slope, norm, end = figure.subplots(1, 3)
        shares = [number / 100 for number in range(101)]
        slope.plot(shares, shares, label="minimax: D")
        slope.plot(shares, [1 - share for share in shares], label="non-saturating: 1 - D")
        slope.set(xlabel="D(G(z)), how real a sample looks", ylabel="slope of the loss by the logit", title="theory")
        found = measured["lead"]
        for loss, name in NAMES.items():
            norm.plot(found["turns"], found[loss], label=name)
        norm.plot(found["turns"], found["D"], color="0.5", linestyle="--", linewidth=1, label="D(G(z)) on average")
        norm.set(xlabel="turns of the discriminator alone", ylabel="norm of the generator's gradient", yscale="log")
        norm.set_title("measured, on an untrained generator")
        for number, found in enumerate(measured["ends"].values()):
            for place, metric in enumerate(("modes", "quality")):
                values = found[metric]
                end.scatter([place + 0.16 * (number - 0.5)] * len(values), values, color=f"C{number}", s=40, alpha=0.8)
        end.set_xticks([0, 1], ["modes found", "samples near a mode"])
        end.set(xlim=(-0.5, 1.5), ylim=(-0.03, 1.05), ylabel="share, test", title="after a training, each seed a point")
        slope.legend(frameon=False, fontsize=8)
        norm.legend(frameon=False, fontsize=8)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where, once the discriminator led, the minimax gradient is below a tenth of the other."""
        found = measured["lead"]
        minimax, other = (found[loss][-1] for loss in NAMES)
        each = "; ".join(
            f"{NAMES[loss]}: modes {plus_minus(mean_and_error(end['modes']), 2)}, "
            f"near one {plus_minus(mean_and_error(end['quality']), 2)}"
            for loss, end in measured["ends"].items()
        )
        line = (
            f"D(G(z)) is {found['D'][-1]:.2g} after {found['turns'][-1]} turns of D alone, the generator's gradient "
            f"{minimax:.2g} by minimax, {other:.2g} non-saturating; trained, {each}"
        )
        return Verdict(minimax < SMALLER * other, line)


def lead(base: Config, turns: int) -> dict[str, Any]:
    """Norms of the gradient that each loss gives the generator of a new system, on the same latents, while the
    discriminator alone takes turns; and what it says of the generator's samples, on average."""
    dataset = build(base, "dataset")
    reseed(base["seed"], "minimax_or_not")
    system = build(base, "model", spec=dataset.spec)
    source = dataset.splits()["train"]
    turn, _ = system.objectives()
    optimizer = torch.optim.Adam(turn.params, lr=1e-3)
    z_BZ, own = system.draw_latent(BATCH), list(system.generator.parameters())
    found: dict[str, Any] = {"turns": [], "D": [], **{loss: [] for loss in NAMES}}
    for step in range(turns + 1):
        if step % max(1, turns // LOOKS) == 0 or step == turns:
            logits = system.discriminate(system.generate(z_BZ))
            found["turns"].append(step)
            found["D"].append(float(logits.detach().sigmoid().mean()))
            for loss in NAMES:
                slopes = torch.autograd.grad(LOSSES[loss].generator(logits), own, retain_graph=True)
                found[loss].append(float(torch.cat([slope.flatten() for slope in slopes]).norm()))
        batch = source.take(torch.randint(len(source), (BATCH,)))
        optimizer.zero_grad()
        system.training_loss({**batch, "index": torch.arange(BATCH)}, turn)[0].backward()
        optimizer.step()
    return found
