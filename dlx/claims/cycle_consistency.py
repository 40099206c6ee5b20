"""What the cycle is for: without it a generator must make images of the other side, but not of the same scene.

Both trainings are of one CycleGAN (Zhu et al. 2017, arXiv:1703.10593), on sides whose true translation is known.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, mean_curve
from dlx.config import Config
from dlx.config.checks import above, at_least
from dlx.runs.media import grid
from dlx.training.trained import open_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.runs.folder import RunFolder

NAMES = {"with": "with the cycle", "without": "without"}
SHOWN = 4  # images of the figure


class CycleConsistency(Claim):
    """weight: of the cycle, against 0. seeds: trainings of each; the figure's images are of the first."""

    claim = "Without the cycle a translation is of the other side, but of another scene"
    size = (12, 4.4)

    def __init__(self, *, weight: float = 10.0, seeds: int = 2) -> None:
        above(0, weight=weight)
        at_least(1, seeds=seeds)
        self.weight, self.seeds = weight, seeds

    def variants(self, base: Config) -> Variants:
        weights = {"with": self.weight, "without": 0.0}
        return {name: [f"model.cycle={weight}", "model.identity=0"] for name, weight in weights.items()}

    def measure(self, base: Config, runs: Runs) -> Measured:
        return {
            name: {
                "error": finals(runs[name], "test/error"),
                "cycle": finals(runs[name], "test/cycle"),
                "curve": mean_curve(runs[name], "val/error"),
                "images": translated(runs[name][0], base.trust),
            }
            for name in NAMES
        }

    def draw(self, measured: Measured, figure: Figure) -> None:
        curves, *panels = figure.subplots(1, 1 + len(NAMES))
        for (name, text), axes in zip(NAMES.items(), panels, strict=True):
            curves.plot(measured[name]["curve"]["x"], measured[name]["curve"]["y"], marker="o", label=text)
            axes.imshow(np.asarray(measured[name]["images"], np.uint8))
            axes.set_axis_off()
            axes.set_title(f"{text}: side a, its translation,\nback again, the truth", fontsize=10)
        curves.set(xlabel="epoch", ylabel="L1 to the truth, validation", title="translations of unpaired training")
        curves.set_ylim(bottom=0)
        curves.legend(frameon=False)

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where the error against the truth is smaller with the cycle, at each seed."""
        pairs = zip(measured["with"]["error"], measured["without"]["error"], strict=True)
        held = all(with_it < without for with_it, without in pairs)
        each = ", ".join(
            f"{text} {statistics.fmean(measured[name]['error']):.3f} to the truth and "
            f"{statistics.fmean(measured[name]['cycle']):.3f} there and back"
            for name, text in NAMES.items()
        )
        return Verdict(held, f"L1 of test images, of 2: {each}")


def translated(run: RunFolder, trust: Any) -> list[Any]:
    """Test images, their translations, those translated back, and the truth: rows of pixels."""
    opened = open_all(run, trust=trust)
    batch = next(iter(opened.loader("test", opened.system.spec.entries).eval_batches()))
    a, b = batch["image_a"][:SHOWN], batch["image_b"][:SHOWN]
    with torch.no_grad():
        found = opened.system.predict({"image_a": a})
    rows = torch.stack([a, found["image_b"], found["back"], b], 1).flatten(0, 1)
    return grid(opened.system.spec.image_a.draw(rows), 4).tolist()  # type: ignore[attr-defined]
