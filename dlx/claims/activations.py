"""Vanishing gradients: what a sigmoid's slope of at most 1/4 does to a deep network (Hochreiter 1991; Glorot, Bengio
2010), and what ReLU does instead (Glorot, Bordes, Bengio 2011).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from dlx.claims.claim import Experiment, Verdict
from dlx.claims.drawing import draw_guessing, guessing, legend_beside
from dlx.claims.reading import curve, mean_and_error, mean_curve, of_seeds, variants
from dlx.config import Config, build, compose, settings
from dlx.random import reseed
from dlx.tasks.spec import normalize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlx.runs.folder import RunFolder
    from dlx.tasks.system import System

NAMES = ("relu", "tanh", "sigmoid")
BATCH = 256  # samples on which gradients are looked at


class Activations(Experiment):
    """depth: hidden layers. width: of each. seeds: networks with each activation."""

    claim = "With sigmoid the gradient vanishes towards the input and a deep network does not train; with ReLU it does"

    def __init__(self, *, depth: int = 8, width: int = 64, seeds: int = 3) -> None:
        for name, value in {"depth": depth, "width": width, "seeds": seeds}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.depth, self.width, self.seeds = depth, width, seeds

    def members(self, base: Config) -> dict[str, Config]:
        return variants(base, {name: self.overrides(name) for name in NAMES}, self.seeds)

    def overrides(self, name: str) -> list[str]:
        return [f"model.activation={name}", f"model.hidden=[{','.join([str(self.width)] * self.depth)}]"]

    def measure(self, base: Config, runs: Mapping[str, RunFolder]) -> dict[str, Any]:
        found, guess = {}, guessing(base)
        for name in NAMES:
            of_name = of_seeds(runs, name)
            config = compose(self.overrides(name), base=base)
            norms = [gradient_norms(config, seed) for seed in range(self.seeds)]
            found[name] = {
                # The geometric mean over seeds of each layer's.
                "gradient": [math.exp(sum(map(math.log, layer)) / len(layer)) for layer in zip(*norms, strict=True)],
                "curve": mean_curve(of_name, "probe/loss"),
                "accuracy": [curve(run, "probe/accuracy")[1][-1] for run in of_name],
                "guessing": guess,
            }
        return found

    def figure(self, measured: Mapping[str, Any]) -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 4.2), layout="constrained")
        gradients, losses = figure.subplots(1, 2)
        for name, found in measured.items():
            layers = range(1, len(found["gradient"]) + 1)
            gradients.plot(layers, found["gradient"], "o-")
            losses.plot(found["curve"]["x"], found["curve"]["y"], label=name)
        gradients.set(
            yscale="log", xlabel="layer, from the input to the output", ylabel="norm of the gradient of its weights",
            title="gradients before training", xticks=layers,
        )  # fmt: skip
        draw_guessing(losses, found["guessing"])
        losses.set(
            yscale="log",
            xlabel="epoch",
            ylabel="loss on training samples",
            title=f"training, {self.depth} hidden layers",
        )
        legend_beside(losses)
        return figure

    def verdict(self, measured: Mapping[str, Any]) -> Verdict:
        kept = {name: found["gradient"][0] / found["gradient"][-1] for name, found in measured.items()}
        accuracy = {name: mean_and_error(found["accuracy"])[0] for name, found in measured.items()}
        held = kept["sigmoid"] < 1e-3 < kept["relu"] and accuracy["sigmoid"] < 0.5 and accuracy["relu"] > 0.9
        each = "; ".join(f"{name} ratio {kept[name]:.1g}, accuracy {accuracy[name]:.1%}" for name in measured)
        return Verdict(
            held,
            f"ratio of the first layer's gradient to the last one's before training, and training accuracy at the end: "
            f"{each}",
        )


def gradient_norms(config: Config, seed: int) -> list[float]:
    """The norm of the loss's gradient with respect to each layer's weights, at the start of a run with this seed."""
    dataset = build(config, "dataset")
    split = settings(config, "dataset").split(dataset)["train"]
    spec, index = dataset.spec, split.index[:BATCH]
    batch = normalize(spec.entries, {**split.source.take(index), "index": index}, tuple(spec.entries))
    reseed(seed, "init")
    system = cast("System", build(config, "model", spec=spec))
    (objective,) = system.objectives()
    loss, _ = system.training_loss(batch, objective)
    weights = [module.weight for module in system.modules() if isinstance(module, nn.Linear)]
    return [float(gradient.norm()) for gradient in torch.autograd.grad(loss, weights)]
