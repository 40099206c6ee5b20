"""Vanishing gradients: what a sigmoid's slope of at most 1/4 does to a deep network (Hochreiter 1991; Glorot, Bengio
2010), and what ReLU does instead (Glorot, Bordes, Bengio 2011).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import curve, draw_guessing, guessing, legend_beside, mean_and_error, mean_curve
from dlx.config import Config, build, build_shared, compose
from dlx.config.checks import at_least
from dlx.random import reseed
from dlx.tasks.spec import normalize
from dlx.tasks.system import System

BATCH = 256  # samples whose gradients are measured


class Activations(Claim):
    """depth: number of hidden layers. width: units of each layer. seeds: trainings with each activation."""

    claim = "With sigmoid the gradient vanishes towards the input and a deep network does not train; with ReLU it does"

    def __init__(self, *, depth: int = 8, width: int = 64, seeds: int = 3) -> None:
        at_least(1, depth=depth, width=width, seeds=seeds)
        self.depth, self.width, self.seeds = depth, width, seeds

    def variants(self, base: Config) -> Variants:
        hidden = f"model.hidden=[{','.join([str(self.width)] * self.depth)}]"
        return {name: [f"model.activation={name}", hidden] for name in ("relu", "tanh", "sigmoid")}

    def measure(self, base: Config, runs: Runs) -> Measured:
        found, guess = {}, guessing(base)
        for name, words in self.variants(base).items():
            config = compose(words, base=base)
            norms = [gradient_norms(config, seed) for seed in range(self.seeds)]
            found[name] = {
                # The geometric mean over seeds of each layer's.
                "gradient": [math.exp(sum(map(math.log, layer)) / len(layer)) for layer in zip(*norms, strict=True)],
                "curve": mean_curve(runs[name], "probe/loss"),
                "accuracy": [curve(run, "probe/accuracy")[1][-1] for run in runs[name]],
                "guessing": guess,
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
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
            yscale="log", xlabel="epoch", ylabel="loss on training samples",
            title=f"training, {self.depth} hidden layers",
        )  # fmt: skip
        legend_beside(losses)

    def verdict(self, measured: Measured) -> Verdict:
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
    split = build_shared(config, "dataset").split(dataset)["train"]
    spec, index = dataset.spec, split.index[:BATCH]
    batch = normalize(spec.entries, {**split.source.take(index), "index": index}, tuple(spec.entries))
    reseed(seed, "init")
    system: System = build(config, "model", spec=spec)
    (objective,) = system.objectives()
    loss, _ = system.training_loss(batch, objective)
    weights = [module.weight for module in system.modules() if isinstance(module, nn.Linear)]
    return [float(gradient.norm()) for gradient in torch.autograd.grad(loss, weights)]
