"""Boosting: members one after another, each trained on the mistakes of those before it; together they predict.

Classifiers: SAMME (Zhu, Zou, Rosset and Hastie 2009), which is AdaBoost (Freund and Schapire 1997) for K classes. A
member's weight is alpha = ln((1 - err) / err) + ln(K - 1), err being its weighted error on the training samples; its
mistakes are then weighted e^alpha times as much. Regressors: each member is fitted to the residual of the sum of those
before it (Friedman 2001, gradient boosting of the squared error), beginning with the targets' mean.
Shapes: N samples of a split, K classes, D target dimensions.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from dlx.config import Config, compose
from dlx.config.checks import above, at_least
from dlx.config.errors import ConfigError, Problem
from dlx.data.splits import class_labels
from dlx.methods.ensemble import ENSEMBLE_NOTE, write_ensemble
from dlx.runs.draw import Figure, subplots
from dlx.runs.files import inside, write_atomic
from dlx.runs.folder import RunFolder
from dlx.sweeps.method import Method, MethodResult, check_supervised
from dlx.tasks.supervised import Supervised
from dlx.tasks.system import System
from dlx.training.prepare import Prepared, prepare
from dlx.training.trained import open_run

Array = np.ndarray[Any, Any]
SPLITS = ("train", "val", "test")
TINY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Chain:
    """The state of a chain. weights: of each member's prediction; a member after the last of them is discarded.
    errors: of each member, weighted (SAMME), or the mean square that it left of its residual. offset: added to the
    weighted sum (regression). ended: why it cannot go on; None where it can."""

    weights: list[float]
    errors: list[float]
    offset: list[float]
    ended: str | None = None


class Boosting(Method):
    """members: most members, each from a seed of its own. learning_rate: scales each member's weight; a smaller one
    needs more members."""

    is_chain: ClassVar[bool] = True

    def __init__(self, *, members: int = 10, learning_rate: float = 1.0) -> None:
        at_least(1, members=members)
        above(0, learning_rate=learning_rate)
        self.count, self.learning_rate = members, learning_rate
        self._prepared: Prepared | None = None
        self._outputs: dict[tuple[Path, str], Array] = {}  # used again after each member

    def check(self, base: Config, system: System) -> None:
        if "weight" not in check_supervised("boosting", system).takes:
            raise ConfigError([Problem("method", f"boosting weighs samples, which {type(system).__name__} does not")])

    def members(self, base: Config, done: Mapping[str, RunFolder], folder: Path) -> dict[str, Config]:
        runs, name = list(done.values()), f"member-{len(done):03d}"
        if len(runs) >= self.count:
            return {}
        own = compose([f"seed={base['seed'] + len(runs)}"], base=base)  # with one seed, networks would err alike
        if self._classes(base):
            if not runs:
                return {name: own}
            chain, weight_N = self._samme(base, runs)
            if chain.ended:
                return {}
            train = self._data(base).splits["train"]
            numbers = np.zeros(len(train.source))
            numbers[train.index.numpy()] = weight_N
            return {name: _with_file(own, "weights", folder, name, numbers)}
        return {name: _with_file(own, "targets", folder, name, self._residuals(base, runs))}

    def aggregate(self, base: Config, runs: Mapping[str, RunFolder], folder: Path) -> MethodResult:
        classes = self._classes(base)
        members = list(runs.values())
        chain = self._samme(base, members)[0] if classes else self._additive(base, members)
        kept = dict(islice(runs.items(), len(chain.weights)))
        staged: dict[str, list[float]] = {split: [] for split in SPLITS}
        metrics: dict[str, float] = {}
        for split in SPLITS:
            truth = self._truth(base, split)
            for output in self._staged(base, members, chain, split):
                wrong = (output.argmax(1) != truth) if classes else np.square(output - truth)
                staged[split].append(float(wrong.mean()))
            if split != "train":
                if classes:
                    scores = {"accuracy": 1 - staged[split][-1]}
                else:
                    system = self._system(base)
                    truths = {system.target_name: torch.from_numpy(truth)}
                    scores = system.target.metrics(system.target.statistics(torch.from_numpy(output), truths))
                metrics |= {f"{split}/{name}": value for name, value in scores.items()}
        together = {"vote": "majority"} if classes else {"vote": "sum", "offset": chain.offset}
        write_ensemble(base, kept, folder, weights=chain.weights, **together)
        what = "error" if classes else "mean squared error"
        test = staged["test"]
        details = {
            "boosting": f"test {what} {test[-1]:.4f} of {len(kept)} together, {test[0]:.4f} after the first alone",
            **({"ended": chain.ended} if chain.ended else {}),
            "ensemble": ENSEMBLE_NOTE,
            # The ensemble is a weighted vote, or offset + the sum of weight times output (regressors).
            "weights": dict(zip(kept, chain.weights, strict=True)),
            "offset": chain.offset,
            "member_errors": chain.errors,
            "staged": staged,
        }
        guess = 1 - 1 / classes if classes else None
        return MethodResult(metrics, details, {"boosting": partial(_draw, staged, chain.errors, what, guess)})

    # The data, which all members share, and the predictions of members on them.

    def _data(self, base: Config) -> Prepared:
        if self._prepared is None:
            self._prepared = prepare(base)
        return self._prepared

    def _classes(self, base: Config) -> int:
        """The number of classes; 0 for real targets."""
        system = self._system(base)
        return system.num_outputs if system.is_classifier else 0

    def _system(self, base: Config) -> Supervised:
        return check_supervised("boosting", self._data(base).system)

    def _truth(self, base: Config, split: str) -> Array:
        """Labels int64 [N] or targets float64 [N, D] of a split, in its order."""
        part = self._data(base).splits[split]
        if self._classes(base):
            return class_labels(part.source)[part.index].numpy()  # reads no images
        return part.source.take(part.index)[self._system(base).target_name].double().numpy()

    def _weight(self, base: Config) -> Array:
        """The training samples' weights before boosting, [N]."""
        train = self._data(base).splits["train"]
        return np.ones(len(train)) if train.weight is None else train.weight[train.index].double().numpy()

    @torch.no_grad()
    def _output(self, base: Config, run: RunFolder, split: str) -> Array:
        """A member's labels int64 [N] or values float64 [N, D] on a split, in its order."""
        key = run.path, split
        if key not in self._outputs:
            system, loader = open_run(run, split, trust=base.trust)
            parts = [system.predict(batch) for batch in loader.eval_batches()]
            name = "label" if "label" in parts[0] else "target"
            output = torch.cat([part[name] for part in parts]).cpu()
            self._outputs[key] = output.double().numpy() if output.is_floating_point() else output.numpy()
        return self._outputs[key]

    # Classifiers.

    def _samme(self, base: Config, runs: Sequence[RunFolder]) -> tuple[Chain, Array]:
        label_N = self._truth(base, "train")
        missed = [self._output(base, run, "train") != label_N for run in runs]
        return samme(missed, self._weight(base), self._classes(base), self.learning_rate)

    # Regressors.

    def _additive(self, base: Config, runs: Sequence[RunFolder]) -> Chain:
        weight_N, target_ND = self._weight(base), self._truth(base, "train")
        offset = (weight_N @ target_ND / weight_N.sum()).tolist()
        chain = Chain([self.learning_rate for _ in runs], [], offset)
        left_ND = target_ND - offset
        for run in runs:
            output_ND = self._output(base, run, "train")
            chain.errors.append(float(np.average(np.square(left_ND - output_ND).mean(1), weights=weight_N)))
            left_ND = left_ND - self.learning_rate * output_ND
        return chain

    def _residuals(self, base: Config, runs: Sequence[RunFolder]) -> Array:
        """The residuals of the training source's targets: of train, and of every split that is cut from it, so that a
        member is validated on the same task."""
        splits, target = self._data(base).splits, self._system(base).target_name
        source, chain = splits["train"].source, self._additive(base, runs)
        left = source.take(torch.arange(len(source)))[target].double().numpy() - chain.offset
        for split, part in splits.items():
            if part.source is source:
                *_, sum_ND = [np.array(chain.offset), *self._staged(base, runs, chain, split)]
                left[part.index.numpy()] = self._truth(base, split) - sum_ND
        return left

    # Both.

    def _staged(self, base: Config, runs: Sequence[RunFolder], chain: Chain, split: str) -> Iterator[Array]:
        """The prediction of the first member, of the first two together, ...: votes [N, K], or values [N, D]."""
        classes, total = self._classes(base), np.array(chain.offset or 0.0)
        for run, weight in zip(runs, chain.weights, strict=False):  # a discarded one has no weight
            output = self._output(base, run, split)
            total = total + weight * (np.eye(classes)[output] if classes else output)
            yield total


def samme(missed: Sequence[Array], weight_N: Array, classes: int, learning_rate: float) -> tuple[Chain, Array]:
    """The chain from members' mistakes on the training samples (bool [N] each), and the samples' weights after it.

    As in scikit-learn's AdaBoostClassifier, a member without mistakes ends the chain with weight 1, and one that is no
    better than a guess ends it and is discarded; the first is always kept, since one is needed to predict.
    """
    chain = Chain([], [], [])
    weight_N = weight_N / weight_N.sum()
    for number, miss_N in enumerate(missed):
        error = float(weight_N @ miss_N / weight_N.sum())
        guess = error >= 1 - 1 / classes
        if guess and number > 0:
            return Chain(chain.weights, chain.errors, [], f"member {number} was no better than a guess"), weight_N
        chain.errors.append(error)
        if error <= 0 or guess:
            chain.weights.append(1.0)
            why = "was no better than a guess" if guess else "made no mistake on the training samples"
            return Chain(chain.weights, chain.errors, [], f"member {number} {why}"), weight_N
        alpha = learning_rate * (math.log((1 - error) / error) + math.log(classes - 1))
        chain.weights.append(alpha)
        weight_N = weight_N * np.exp(alpha * miss_N)
        weight_N = np.where(weight_N > 0, np.maximum(weight_N / weight_N.sum(), TINY), 0.0)
    return chain, weight_N


def _with_file(base: Config, key: str, folder: Path, name: str, numbers: Array) -> Config:
    """Writes the numbers to folder/KEY/NAME.npy, and returns the configuration with that file as `dataset.KEY`."""
    content = io.BytesIO()
    np.save(content, numbers)
    home = inside(folder.absolute(), key)
    home.mkdir(exist_ok=True)
    write_atomic(home / f"{name}.npy", content.getvalue())
    return compose([f"dataset.{key}={home / name}.npy"], base=base)


def _draw(staged: Mapping[str, list[float]], errors: list[float], what: str, guess: float | None) -> Figure:
    """Left: the error of the first n members together. Right: each member's own, on what it was trained on."""
    figure, (together, alone) = subplots(1, 2, size=(9, 4))
    numbers = range(1, len(errors) + 1)
    for split, values in staged.items():
        together.plot(numbers, values, ".-", label=split)
    together.set(xlabel="members", ylabel=what, ylim=(0, None), title="together")
    own = "each member, as its samples weigh" if guess is not None else "each member, of its residual"
    alone.plot(numbers, errors, ".-", color="tab:purple", label=own)
    if guess is not None:
        alone.axhline(guess, color="0.6", linestyle="--", label="a guess")
    alone.set(xlabel="member", ylabel=what, ylim=(0, None), title="alone")
    for axes in (together, alone):
        axes.locator_params(axis="x", integer=True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)  # off the data
    return figure
