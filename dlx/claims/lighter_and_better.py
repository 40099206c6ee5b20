"""From AlexNet to DenseNet: parameters, operations, and what each reaches under one budget."""

from __future__ import annotations

import torch

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, mean_and_error, plus_minus
from dlx.config import Config, build, compose
from dlx.config.checks import at_least
from dlx.tasks.spec import Image, Label, LabeledImages
from dlx.tasks.summary import summarize

# The paper's network of each model, and the top-5 accuracy on ImageNet, one crop, of torchvision's weights
# IMAGENET1K_V1 for it.
NETWORKS = {
    "alexnet": ("model.variant=torchvision", 79.07),
    "vgg": ("model.depth=16 model.batch_norm=false", 90.38),
    "googlenet": ("model.aux_heads=false", 89.53),
    "resnet": ("model.depth=50", 92.86),
    "densenet": ("model.depth=121", 91.97),
}
IMAGENET = LabeledImages(
    image=Image(channels=3, height=224, width=224, mean=(0.0,) * 3, std=(1.0,) * 3),
    label=Label(classes=tuple(map(str, range(1000)))),
)


class LighterAndBetter(Claim):
    """epochs: epochs of each network in its small form, on images of 8x8. seeds: trainings of each network."""

    claim = "Networks became lighter and better at once: AlexNet, VGG, GoogLeNet, ResNet, DenseNet"
    size = (12, 4.5)

    def __init__(self, *, epochs: int = 10, seeds: int = 2) -> None:
        at_least(1, epochs=epochs, seeds=seeds)
        self.epochs, self.seeds = epochs, seeds

    def variants(self, base: Config) -> Variants:
        return {name: [f"model={name}", f"trainer.epochs={self.epochs}"] for name in NETWORKS}

    def measure(self, base: Config, runs: Runs) -> Measured:
        found = {}
        for name, (options, top5) in NETWORKS.items():
            with torch.device("meta"):
                system = build(compose([f"model={name}", *options.split()], base=base), "model", spec=IMAGENET)
            summary = summarize(system)
            found[name] = {
                "parameters": summary.parameters,
                "flops": summary.flops,
                "imagenet_top5": top5,
                "here": finals(runs[name], "test/accuracy"),
                "here_parameters": finals(runs[name], "parameters")[:1],
                "here_seconds": finals(runs[name], "seconds"),
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        large, small = figure.subplots(1, 2)
        for name, found in measured.items():
            area = 20 + 40 * found["flops"] / 1e9
            large.scatter(found["parameters"] / 1e6, found["imagenet_top5"], s=area, alpha=0.6)
            large.annotate(name, (found["parameters"] / 1e6, found["imagenet_top5"]), fontsize=9)
            mean, error = mean_and_error(found["here"])
            small.errorbar(found["here_parameters"][0] / 1e3, mean, error, marker="o", capsize=3)
            small.annotate(name, (found["here_parameters"][0] / 1e3, mean), fontsize=9)
        for axes in (large, small):
            axes.margins(0.15)
        large.set(
            xscale="log", xlabel="million parameters", ylabel="top-5 accuracy, %", title="ImageNet (area: operations)"
        )
        small.set(
            xscale="log", xlabel="thousand parameters", ylabel="test accuracy (guessing: 0.1)",
            title=f"small forms on digits, {self.epochs} epochs, {self.seeds} seeds",
        )  # fmt: skip

    def verdict(self, measured: Measured) -> Verdict:
        first, last = measured["alexnet"], measured["densenet"]
        lighter = last["parameters"] < measured["resnet"]["parameters"] < first["parameters"]
        here = {name: mean_and_error(found["here"]) for name, found in measured.items()}
        older, newer = here["alexnet"], max(here["resnet"], here["densenet"])
        better = newer[0] >= older[0] and last["imagenet_top5"] > first["imagenet_top5"]
        sizes = ", ".join(f"{name} {found['parameters'] / 1e6:.1f}M" for name, found in measured.items())
        reached = ", ".join(f"{name} {plus_minus(pair)}" for name, pair in here.items())
        return Verdict(lighter and better, f"parameters at 224x224: {sizes}; digits, {self.epochs} epochs: {reached}")
