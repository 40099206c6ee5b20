"""A GAN that grows against one whose layers all train from the start, on the same number of images.

Small images are cheap and are learned first; the layers of larger ones then have less left to learn (Karras et al.
2017, arXiv:1710.10196, section 2).
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import torch

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals
from dlx.config import Config
from dlx.config.checks import at_least
from dlx.runs.media import grid
from dlx.tasks.two_sample import sliced_wasserstein
from dlx.training.trained import open_all

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from dlx.runs.folder import RunFolder

SHOWN = 36  # samples of a picture


class Growing(Claim):
    """seeds: trainings of each; the pictures are of the first."""

    claim = "A GAN that grows comes nearer to the data in less time than one whose layers all train from the start"

    def __init__(self, *, seeds: int = 3) -> None:
        at_least(1, seeds=seeds)
        self.seeds = seeds

    def variants(self, base: Config) -> Variants:
        return {"growing": ["model.grow=true"], "at-once": ["model.grow=false"]}

    def measure(self, base: Config, runs: Runs) -> Measured:
        found: Measured = {"samples": {}}
        for name, folders in runs.items():
            pairs = [real_and_made(folder, base) for folder in folders]
            distances = [sliced_wasserstein(made.flatten(1), real.flatten(1)) for real, made, _ in pairs]
            found[name] = {"distance": distances, "seconds": finals(folders, "seconds")}
            real, made, image = pairs[0]
            found["samples"][name] = grid(image.draw(made[:SHOWN])).tolist()
        half = len(real) // 2
        found["floor"] = sliced_wasserstein(real[:half].flatten(1), real[half : 2 * half].flatten(1))
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        axes, *pictures = figure.subplots(1, 3, width_ratios=[1.4, 1, 1])
        for name in ("growing", "at-once"):
            axes.scatter(measured[name]["seconds"], measured[name]["distance"], s=45, label=name)
        axes.axhline(measured["floor"], color="0.5", linestyle="--", linewidth=1, label="two halves of the data")
        axes.set(xlabel="training, seconds", ylabel="sliced Wasserstein distance", title="test images and samples")
        seconds, distances = ([*measured["growing"][key], *measured["at-once"][key]] for key in ("seconds", "distance"))
        axes.set(xlim=(0, 1.15 * max(seconds, default=1)), ylim=(0, 1.15 * max(distances)))
        axes.legend(frameon=False)
        for axis, (name, pixels) in zip(pictures, measured["samples"].items(), strict=True):
            shown = torch.tensor(pixels).numpy()
            axis.imshow(shown.squeeze(-1) if shown.shape[-1] == 1 else shown, cmap="gray", vmin=0, vmax=255)
            axis.set_title(name)
            axis.set_axis_off()

    def verdict(self, measured: Measured) -> Verdict:
        """It holds where the mean distance is smaller after less time."""
        distance, seconds = (
            {name: statistics.fmean(measured[name][what]) for name in ("growing", "at-once")}
            for what in ("distance", "seconds")
        )
        held = all(found["growing"] < found["at-once"] for found in (distance, seconds))
        each = ", ".join(f"{name} {distance[name]:.3g} in {seconds[name]:.3g} s" for name in distance)
        return Verdict(held, f"sliced Wasserstein distance to test images: {each} (floor {measured['floor']:.2g})")


@torch.no_grad()
def real_and_made(folder: RunFolder, base: Config) -> tuple[Tensor, Tensor, Any]:
    """The test images of a run, as many of its samples, [N, C, H, W] on the CPU, and their entry."""
    run: Any = open_all(folder, trust=base.trust)
    system, pairs = run.system, []
    for batch in run.loader("test").eval_batches():
        pairs.append((batch[system.input_name].cpu(), system.generate(system.latent_rows(batch["index"])).cpu()))
    real, made = (torch.cat(column) for column in zip(*pairs, strict=True))
    return real, made, system.input
