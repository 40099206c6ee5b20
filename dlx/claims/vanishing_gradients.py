"""Gradients through time (Hochreiter 1991; Bengio, Simard, Frasconi 1994): what is left of h_0 in h_t.

dh_t/dh_0 is a product of t matrices. A sigmoid's slope is at most 1/4, so that it vanishes; ReLU's is 1, so that it
explodes where the matrix stretches; a gate near 1 keeps it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.claims.claim import Claim, Measured, Runs, Verdict
from dlx.claims.common import legend_beside
from dlx.config import Config, build, compose
from dlx.config.checks import above, at_least
from dlx.random import generator, reseed
from dlx.tasks.spec import Reals, RealSequence, RegressionSequences

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RNNS = ("sigmoid", "tanh", "relu")
STYLE = {"sigmoid": "tab:blue", "tanh": "tab:orange", "relu": "tab:red", "lstm": "tab:green", "gru": "tab:purple"}


class VanishingGradients(Claim):
    """steps: t at the end. hidden: units. gain: of the matrix between an RNN's states. keep: where the bias begins of
    the gates that keep the state; drawn beside those of the models' own beginning. seeds: networks of each kind, whose
    geometric mean is shown."""

    claim = "Through time the gradient vanishes with sigmoid and explodes with ReLU; LSTM and GRU keep it"
    size = (9, 4.6)

    def __init__(
        self, *, steps: int = 50, hidden: int = 64, gain: float = 2.0, keep: float = 4.0, seeds: int = 3
    ) -> None:
        at_least(2, steps=steps)
        at_least(1, hidden=hidden, seeds=seeds)
        above(0, gain=gain)
        self.steps, self.hidden, self.gain, self.keep, self.repeats = steps, hidden, gain, keep, seeds

    def networks(self) -> dict[str, list[str]]:
        """Overrides by name."""
        return {
            **{name: ["model=rnn", f"model.activation={name}", f"model.gain={self.gain}"] for name in RNNS},
            "lstm": ["model=lstm", f"model.forget_bias={self.keep}"],
            "gru": ["model=gru", f"model.keep_bias={self.keep}"],
            "lstm, as it begins": ["model=lstm"],
            "gru, as it begins": ["model=gru"],
        }

    def measure(self, base: Config, runs: Runs) -> Measured:
        found: Measured = {}
        for name, words in self.networks().items():
            config = compose([*words, f"model.hidden={self.hidden}", "model.fused=false"], base=base)
            logs_ST = []
            for seed in range(self.repeats):
                reseed(base["seed"] + seed, "vanishing_gradients")
                x_1TF = torch.rand(1, self.steps, 2, generator=generator(base["seed"] + seed, "vanishing_gradients"))
                spec = RegressionSequences(sequence=RealSequence(length=self.steps, size=2), target=Reals())
                logs_ST.append(jacobian_norms(build(config, "model", spec=spec), x_1TF).clamp_min(1e-300).log())
            found[name] = torch.stack(logs_ST).mean(0).exp().tolist()
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        axes = figure.subplots()
        for name, norms in measured.items():
            kind, *own = name.split(", ")
            axes.plot(range(1, len(norms) + 1), norms, ":" if own else "-", color=STYLE[kind], label=name)
        axes.axhline(1, color="0.5", linestyle="--", linewidth=1)
        lowest = min(1e-12, *(min(norms) for name, norms in measured.items() if name != "sigmoid"))
        axes.set(
            yscale="log", xlabel="steps t", ylabel="‖dh_t/dh_0‖ / √H", title="gradient through time", xlim=(0, None)
        )
        axes.set_ylim(bottom=lowest)  # the sigmoid leaves the picture
        legend_beside(axes)

    def verdict(self, measured: Measured) -> Verdict:
        """A gradient vanishes where less than a millionth is left, explodes above a hundred times."""
        last = {name: norms[-1] for name, norms in measured.items()}
        kept = all(0.01 < last[name] < 100 for name in ("lstm", "gru"))
        each = ", ".join(f"{name} {value:.2g}" for name, value in last.items() if "," not in name)
        own = ", ".join(f"{name.partition(',')[0]} {value:.2g}" for name, value in last.items() if "," in name)
        return Verdict(
            last["sigmoid"] < 1e-6 and last["relu"] > 100 and kept,
            f"‖dh_t/dh_0‖ / √H after {len(measured['relu'])} steps: {each}; with the gates as they begin: {own}",
        )


def jacobian_norms(model: Any, x_1TF: Tensor) -> Tensor:
    """‖dh_t/dh_0‖ / √H at each step of a recurrent layer, float64 [T]; other states begin with zeros."""
    cell = model.double().eval().cells[0]

    def outputs(h_H: Tensor) -> Tensor:
        zeros = {f"{name}.0": torch.zeros_like(h_H).unsqueeze(0) for name in cell.states}
        h_TH: Tensor = model.features(x_1TF.double(), {**zeros, "h.0": h_H.unsqueeze(0)})[0]
        return h_TH

    jacobian_THH = torch.func.jacrev(outputs)(torch.zeros(cell.width, dtype=torch.float64))
    return jacobian_THH.flatten(1).norm(dim=1) / math.sqrt(cell.width)
