"""Gradient descent with one sample, a mini-batch and the full batch a step."""

from __future__ import annotations

from itertools import pairwise

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import curve, draw_guessing, guessing, legend_beside, ordered_colors
from dlx.config import Config, build, build_shared
from dlx.config.checks import at_least

LABELS = {"one": "one sample a step", "mini_batch": "mini-batches of 32", "full_batch": "the full batch"}


class GradientDescent(Claim):
    """passes: epochs of each training. lr: learning rates for one sample, a mini-batch of 32 and the full batch."""

    claim = "One sample a step is noisy and fast per pass, the full batch smooth and slow; mini-batches lie between"

    def __init__(self, *, passes: int = 20, lr: tuple[float, float, float] = (0.01, 0.1, 0.2)) -> None:
        at_least(1, passes=passes)
        self.passes, self.lr = passes, lr

    def variants(self, base: Config) -> Variants:
        full = len(build_shared(base, "dataset").split(build(base, "dataset"))["train"])
        return {
            name: [
                f"data.batch_size={size}", f"optim.lr={lr}", f"trainer.epochs={self.passes}",
                f"trainer.validate_every={max(1, full // size // 10)}", "trainer.log_every=1",
            ]
            for name, size, lr in zip(LABELS, (1, 32, full), self.lr, strict=True)
        }  # fmt: skip

    def measure(self, base: Config, runs: Runs) -> Measured:
        found, guess = {}, guessing(base)
        for name, lr in zip(LABELS, self.lr, strict=True):
            (run,) = runs[name]
            passes, losses = curve(run, "probe/loss")
            rises = [after > before for before, after in pairwise(losses)]
            summary = run.summary()
            found[name] = {
                "passes": passes,
                "losses": losses,
                "rises": sum(rises) / max(len(rises), 1),
                "steps": summary.get("steps"),
                "seconds": summary.get("seconds"),
                "lr": lr,
                "guessing": guess,
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        whole, first = panels = figure.subplots(1, 2)
        for (name, found), color in zip(measured.items(), ordered_colors(len(measured)), strict=True):
            label = f"{LABELS[name]}, lr {found['lr']:.4g}:\n{found['steps']:,} steps, {found['seconds']:.3g} s"
            marker = "." if name == "full_batch" else None
            for axes in panels:
                axes.plot(found["passes"], found["losses"], label=label, color=color, marker=marker)
        for axes in panels:
            draw_guessing(axes, found["guessing"])
        whole.set(
            yscale="log", xlabel="passes over the data", ylabel="loss on training samples",
            title=f"all {self.passes} passes",
        )  # fmt: skip
        first.set(xlim=(0, min(3, self.passes)), xlabel="passes over the data", title="the first passes")
        legend_beside(first)

    def verdict(self, measured: Measured) -> Verdict:
        last = {name: found["losses"][-1] for name, found in measured.items()}
        rises = {name: found["rises"] for name, found in measured.items()}
        held = (
            rises["full_batch"] == 0
            and rises["one"] > rises["full_batch"]
            and max(last["one"], last["mini_batch"]) < last["full_batch"]
        )
        each = "; ".join(
            f"{name.replace('_', ' ')} loss {last[name]:.4f}, up at {rises[name]:.0%} of looks" for name in measured
        )
        return Verdict(
            held, f"after {self.passes} passes, and the share of looks at which the loss had gone up: {each}"
        )
