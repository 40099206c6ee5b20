"""Bias and variance of a training (Geman et al. 1992; 0-1 loss: Domingos 2000), from several trainings.

The error is the distance of the mean prediction (bias), the spread of predictions over training sets and first weights
(variance), and what cannot be predicted (noise). Shapes: M replicates, N test samples, D target dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor

from dlx.config import Config, build, compose
from dlx.config.checks import at_least
from dlx.config.errors import ConfigError, Problem
from dlx.methods.decomposition import measure_error, squared, zero_one
from dlx.methods.predictions import Predictions, predict_split_by_runs
from dlx.methods.spread import spread
from dlx.random import generator
from dlx.runs.draw import Axes, Figure, subplots
from dlx.runs.folder import RunFolder
from dlx.sweeps.method import Method, MethodResult, check_supervised, check_unset
from dlx.tasks.system import System


class BiasVariance(Method):
    """replicates: trainings, each from a seed of its own. resample: `data` draws a new training set for each (by
    `dataset.data_seed`), `bootstrap` resamples the one training set; None is data where the dataset can."""

    def __init__(self, *, replicates: int = 20, resample: Literal["data", "bootstrap"] | None = None) -> None:
        at_least(2, replicates=replicates)
        self.replicates, self.resample = replicates, resample

    def check(self, base: Config, system: System) -> None:
        check_supervised("bias_variance", system)

    def members(self, base: Config, done: Mapping[str, RunFolder], folder: Path) -> dict[str, Config]:
        first = base["dataset"].get("data_seed")
        if self.resample == "data" and first is None:
            name = base.choices["dataset"]
            raise ConfigError([Problem("method.resample", f"data needs a dataset with data_seed, {name} has none")])
        fresh = first is not None and self.resample != "bootstrap"
        if not fresh:
            check_unset(base, "bootstrap")
        keys = ("dataset.data_seed", first) if fresh else ("dataset.bootstrap", 0)
        return {
            f"replicate-{n}": compose([f"{keys[0]}={keys[1] + n}", f"seed={base['seed'] + n}"], base=base)
            for n in range(self.replicates)
        }

    def aggregate(self, base: Config, runs: Mapping[str, RunFolder], folder: Path) -> MethodResult:
        if len(runs) < 2:
            return MethodResult({}, {"decomposition": "fewer than two trainings finished, so there is no variance"})
        samples = predict_split_by_runs(runs.values(), "test", trust=base.trust)
        if samples.are_labels:
            metrics, text = of_labels(samples.output.argmax(-1), samples.truth)
        else:
            metrics, text = of_targets(samples.output, samples.truth, noise_of(base), base["seed"])
        figures: dict[str, Callable[[], Figure]] = {"decomposition": partial(_bars, metrics)}
        if samples.inputs.shape[1:] == (1,) and samples.truth.shape[1:] == (1,):
            figures["fits"] = partial(_draw_fits, samples)
        metrics = {f"test/{name}": value for name, value in metrics.items()}
        return MethodResult(metrics, {"decomposition": text, **spread(runs)[1]}, figures)


def noise_of(base: Config) -> float | None:
    """The standard deviation of the noise if the dataset knows it: its test targets are then without noise."""
    return getattr(build(base, "dataset"), "noise", None)


def of_targets(output_MND: Tensor, target_ND: Tensor, noise: float | None, seed: int) -> tuple[dict[str, float], str]:
    """bias2, variance, noise (sigma^2) and error, with the standard error of the error (of its test noise); where the
    noise is not known it is in `bias2_noise`, and all add up exactly."""
    error, bias2, variance = (float(part_N.mean()) for part_N in squared(output_MND, target_ND))
    if noise is None:
        text = f"bias² and noise {bias2:.4g} + variance {variance:.4g} = error {error:.4g}"
        return {"bias2_noise": bias2, "variance": variance, "error": error}, text
    error, _, standard_error = measure_error(output_MND, target_ND, noise, generator(seed, "test_noise"))
    total = bias2 + variance + noise**2
    text = (
        f"bias² {bias2:.4g} + variance {variance:.4g} + noise {noise**2:.4g} = {total:.4g}; "
        f"measured error {error:.4g} ± {standard_error:.2g} (standard error)"
    )
    parts = {"bias2": bias2, "variance": variance, "noise": noise**2}
    return {**parts, "error": error, "error_standard_error": standard_error}, text


def of_labels(label_MN: Tensor, truth_N: Tensor) -> tuple[dict[str, float], str]:
    metrics = {name: float(part_N.mean()) for name, part_N in zero_one(label_MN, truth_N).items()}
    metrics["net_variance"] = metrics["variance_unbiased"] - metrics["variance_biased"]
    return metrics, (
        f"bias {metrics['bias']:.4f} + variance where it costs {metrics['variance_unbiased']:.4f} "
        f"- where it helps {metrics['variance_biased']:.4f} = error {metrics['error']:.4f}"
    )


def plot_fits(
    axes: Axes,
    x: Sequence[float],
    fits: Sequence[Sequence[float]],
    *,
    truth: Sequence[float],
    mean: Sequence[float],
) -> None:
    """The fit of each replicate, the truth and the mean of the fits, all at the points x."""
    for fit in fits:
        axes.plot(x, fit, color="tab:blue", alpha=0.3, linewidth=0.8)
    axes.plot(x, truth, color="black", linewidth=1.5, label="truth")
    axes.plot(x, mean, color="tab:orange", linewidth=3, label="mean of the fits")
    low, high = min(truth), max(truth)
    axes.set(xlabel="x", ylim=(low - (high - low), high + (high - low)))


def _draw_fits(samples: Predictions) -> Figure:
    order = samples.inputs[:, 0].argsort()
    x, truth = samples.inputs[order, 0].tolist(), samples.truth[order, 0].tolist()
    output_MN = samples.output[:, order, 0]
    figure, axes = subplots(size=(7.5, 4))
    plot_fits(axes, x, output_MN.tolist(), truth=truth, mean=output_MN.mean(0).tolist())
    axes.set(ylabel="y", title=f"{len(output_MN)} trainings")
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)  # on the data it would hide them
    return figure


TERMS = {
    "bias2": "bias²", "bias2_noise": "bias²\nand noise", "bias": "bias", "variance": "variance", "noise": "noise",
    "variance_unbiased": "variance\nwhere it costs", "variance_biased": "variance\nwhere it helps",
}  # fmt: skip


def _bars(metrics: Mapping[str, float]) -> Figure:
    """The terms stacked, beside the error that they add up to."""
    of_labels = "variance_unbiased" in metrics
    terms = [name for name in TERMS if name in metrics and not (of_labels and name == "variance")]
    figure, axes = subplots(size=(6, 3.5))

    def bar(value: float, bottom: float, color: str, span: float = 0.0) -> None:
        at = len(tops)
        axes.bar(at, value, bottom=bottom, yerr=span or None, capsize=4, color=color)
        tops.append(max(bottom, bottom + value) + span)
        axes.annotate(f"{value:.4g}", (at, tops[-1]), (0, 3), textcoords="offset points", ha="center")

    tops: list[float] = []
    levels = [0.0]
    for name in terms:
        value = -metrics[name] if name == "variance_biased" else metrics[name]
        bar(value, levels[-1], "tab:blue" if value >= 0 else "tab:green")
        levels.append(levels[-1] + value)
        axes.plot([len(tops) - 1.4, len(tops) + 0.4], levels[-1:] * 2, color="0.3", linewidth=0.8)
    bar(metrics["error"], 0.0, "tab:gray", metrics.get("error_standard_error", 0.0))
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.set_xticks(range(len(tops)), [*(TERMS[name] for name in terms), "test error"])
    axes.set(
        ylabel="0-1 loss" if of_labels else "mean squared error",
        ylim=(1.1 * min(levels), 1.15 * max(tops) or None),
        title="what the test error is made of",
    )
    return figure
