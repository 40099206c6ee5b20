"""Long memory: what networks recall over T steps, by the adding and the copying problem (Hochreiter, Schmidhuber 1997).

Adding: the sum of two marked numbers, one in each half. Copying: ten symbols, T blanks, then the symbols again.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

from dlx.claims.claim import Claim, Measured, Runs, Variants, Verdict
from dlx.claims.common import finals, legend_beside, mean_and_error
from dlx.config import Config
from dlx.config.checks import at_least, rising

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASKS = ("adding", "copy")
LENGTH = {"adding": "length", "copy": "delay"}  # the setting of each dataset


class LongMemory(Claim):
    """lengths: T. models: options of the group model that read sequences. hidden: units of rnn, lstm and gru. samples:
    to train on. seeds: trainings of each.

    What is shown is the share of what there is to know: 1 - error / error without memory, which is the variance 1/6 of
    the sum, or 10 ln 8 / (T + 20) nats a position where the symbols are guessed.
    """

    claim = "Over long distances LSTM and GRU recall what the vanilla RNN forgets"

    def __init__(
        self,
        *,
        lengths: tuple[int, ...] = (10, 25, 50),
        models: tuple[str, ...] = ("rnn", "lstm", "gru", "gpt"),
        hidden: int = 64,
        samples: int = 20_000,
        seeds: int = 1,
    ) -> None:
        rising(1, lengths=lengths)
        at_least(2, lengths=lengths[0])
        if not {"rnn", "lstm", "gru"} <= set(models):
            raise ValueError(f"models must hold rnn, lstm and gru, which are compared, got {list(models)}")
        at_least(1, hidden=hidden, samples=samples, seeds=seeds)
        self.lengths, self.models, self.hidden, self.samples, self.seeds = lengths, models, hidden, samples, seeds

    def variants(self, base: Config) -> Variants:
        return {
            f"{task}-{model}-{length}": [
                f"data={task}", f"data.{LENGTH[task]}={length}", f"data.samples={self.samples}", f"model={model}",
                *([f"model.hidden={self.hidden}"] if model in ("rnn", "lstm", "gru") else []),
            ]
            for task, model, length in product(TASKS, self.models, self.lengths)
        }  # fmt: skip

    def measure(self, base: Config, runs: Runs) -> Measured:
        found: Measured = {}
        for task, model in product(TASKS, self.models):
            found.setdefault(task, {})[model] = {
                str(length): [
                    1 - loss / (1 / 6 if task == "adding" else 10 * math.log(8) / (length + 20))
                    for loss in finals(runs[f"{task}-{model}-{length}"], "test/loss")
                ]
                for length in self.lengths
            }
        return found

    def draw(self, measured: Measured, figure: Figure) -> None:
        panels = figure.subplots(1, len(TASKS), sharey=True)
        for axes, task in zip(panels, TASKS, strict=True):
            for model, by_length in measured[task].items():
                points = [(int(length), *mean_and_error(shares)) for length, shares in by_length.items() if shares]
                if points:
                    length, mean, error = zip(*points, strict=True)
                    axes.errorbar(length, mean, error, marker="o", capsize=3, label=model)
            axes.axhline(0, color="0.5", linestyle="--", linewidth=1, label="no memory")
            axes.set(xlabel="length T", title=task, ylim=(-0.15, 1.05))
        panels[0].set_ylabel("share of what there is to know")
        legend_beside(panels[-1])

    def verdict(self, measured: Measured) -> Verdict:
        """At the greatest length, on adding, LSTM and GRU know more than 0.9 and the RNN less than half; on copying
        both know more than the RNN."""
        longest = str(self.lengths[-1])
        share = {
            task: {model: mean_and_error(by_length[longest])[0] for model, by_length in models.items()}
            for task, models in measured.items()
        }
        adding, copying = share["adding"], share["copy"]
        held = (
            min(adding["lstm"], adding["gru"]) > 0.9
            and adding["rnn"] < 0.5
            and min(copying["lstm"], copying["gru"]) > copying["rnn"]
        )
        each = "; ".join(
            f"{task}: " + ", ".join(f"{model} {value:.2f}" for model, value in models.items())
            for task, models in share.items()
        )
        return Verdict(held, f"share of what there is to know at T = {longest}: {each}")
