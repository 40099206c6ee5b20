"""The bootstrap (Efron 1979): the share of samples in a replicate, and the 0.632 estimate of the error (Efron 1983).

A sample is in a replicate of n draws with probability 1 - (1 - 1/n)^n, towards 1 - 1/e = 0.632. The error on the
samples that a replicate left out is that of training on fewer; the training error is far too small; 0.368 of the one
and 0.632 of the other is between. 0.632+ (Efron, Tibshirani 1997) moves the weights by how much the training overfits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlx.claims.claim import Claim, Figure, Measured, Runs, Variants, Verdict
from dlx.claims.common import legend_beside, mean_and_error, plus_minus
from dlx.config import Config
from dlx.config.checks import at_least
from dlx.methods.bagging import drawn_indices
from dlx.methods.predictions import predict_split
from dlx.random import generator

SIZES = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
DRAWS = 5000
KEPT = 1 - math.exp(-1)
NAMES = {"train": "training error", "oob": "left-out samples", "632": "0.632", "632+": "0.632+"}


class Bootstrap(Claim):
    """replicates: trainings on replicates of each training set. sets: training sets, each with its own test set."""

    claim = "A replicate holds 0.632 of the samples; 0.368 training + 0.632 left-out error is nearer the test error"
    size = (12.5, 4.4)

    def __init__(self, *, replicates: int = 10, sets: int = 8) -> None:
        at_least(2, replicates=replicates, sets=sets)
        self.replicates, self.sets = replicates, sets

    def variants(self, base: Config) -> Variants:
        found = {}
        for number in range(self.sets):
            found[f"set-{number}"] = words = [f"data.split_seed={number}", f"seed={number}"]
            for b in range(self.replicates):
                found[f"set-{number}-bootstrap-{b}"] = [*words, f"data.bootstrap={b}"]
        return found

    def measure(self, base: Config, runs: Runs) -> Measured:
        sizes = {str(n): mean_and_error(replicate_shares(n, DRAWS)) for n in SIZES}
        errors: list[dict[str, float]] = []
        of_replicates = []
        for number in range(self.sets):
            (whole,) = runs[f"set-{number}"]
            train, test = (predict_split(whole, split, trust=base.trust) for split in ("train", "test"))
            wrong, left_out = [], []
            for b in range(self.replicates):
                (run,) = runs[f"set-{number}-bootstrap-{b}"]
                drawn = drawn_indices(run, base.trust)
                of_replicates.append(len(drawn.unique()) / len(drawn))
                label_N = predict_split(run, "train", trust=base.trust, of=whole).output.argmax(1)
                wrong.append(label_N != train.truth)
                left_out.append(~torch.isin(train.index, drawn))
            training = train.score(train.output, train.truth)["error"]
            oob = left_out_error(torch.stack(wrong), torch.stack(left_out))
            guess = no_information(train.truth, train.output.argmax(1))
            errors.append(
                {
                    "train": training,
                    "oob": oob,
                    "632": 0.368 * training + 0.632 * oob,
                    "632+": estimate_632_plus(training, oob, guess),
                    "test": test.score(test.output, test.truth)["error"],
                }
            )
        estimates = {name: [of_set[name] for of_set in errors] for name in errors[0]}
        return {"sizes": sizes, "share": mean_and_error(of_replicates), "n": len(train.index), **estimates}

    def draw(self, measured: Measured, figure: Figure) -> None:
        shares, errors = figure.subplots(1, 2)
        sizes, line = [int(n) for n in measured["sizes"]], range(1, SIZES[-1] + 1)
        shares.plot(line, [1 - (1 - 1 / n) ** n for n in line], color="0.6", label="1 - (1 - 1/n)^n")
        shares.plot(sizes, [mean for mean, _ in measured["sizes"].values()], "o", label=f"{DRAWS} replicates")
        shares.errorbar(
            [measured["n"]], [measured["share"][0]], yerr=[2 * measured["share"][1]], fmt="s", color="tab:orange",
            capsize=3, label="the ones that were trained on",
        )  # fmt: skip
        shares.axhline(KEPT, color="black", linestyle="--", linewidth=0.8, label="1 - 1/e")
        shares.set(
            xscale="log", xlabel="samples", ylabel="share of them in a replicate", title="what a replicate holds"
        )
        legend_beside(shares)
        for at, name in enumerate(NAMES):
            off = [a - b for a, b in zip(measured[name], measured["test"], strict=True)]
            errors.plot([at] * len(off), off, "o", color="0.5", alpha=0.4)
            errors.errorbar([at], [mean_and_error(off)[0]], yerr=[2 * mean_and_error(off)[1]], fmt="s", capsize=4)
        errors.axhline(0, color="black", linewidth=0.8)
        errors.set(
            ylabel="estimate - test error",
            xlim=(-0.5, len(NAMES) - 0.5),
            title=f"{self.sets} training sets; mean and two standard errors",
        )
        errors.set_xticks(range(len(NAMES)), list(NAMES.values()))

    def verdict(self, measured: Measured) -> Verdict:
        right = all(
            abs(mean - (1 - (1 - 1 / int(n)) ** int(n))) <= 4 * error for n, (mean, error) in measured["sizes"].items()
        )
        off = {
            name: mean_and_error([abs(a - b) for a, b in zip(measured[name], measured["test"], strict=True)])
            for name in NAMES
        }
        nearer = off["632"][0] < min(off["train"][0], off["oob"][0])
        errors = ", ".join(f"{label} {mean_and_error(measured[name])[0]:.4f}" for name, label in NAMES.items())
        return Verdict(
            right and nearer,
            f"replicates of {measured['n']} hold {plus_minus(measured['share'])} of the samples; test error "
            f"{mean_and_error(measured['test'])[0]:.4f}, estimated by {errors}; mean distance to it "
            + ", ".join(f"{label} {plus_minus(off[name])}" for name, label in NAMES.items()),
        )


def replicate_shares(n: int, draws: int) -> list[float]:
    """The share of n samples that is in each of `draws` replicates."""
    drawn = torch.randint(n, (draws, n), generator=generator(0, "bootstrap_shares", n)).sort(1).values
    return ((1 + (drawn.diff(dim=1) > 0).sum(1)) / n).tolist()


def left_out_error(wrong_MN: Tensor, left_out_MN: Tensor) -> float:
    """Efron's leave-one-out bootstrap: of each sample the mean over the replicates that left it out, then over samples
    (those that none left out are not counted)."""
    count_N = left_out_MN.sum(0)
    wrong_N = (wrong_MN & left_out_MN).sum(0)
    return float((wrong_N[count_N > 0] / count_N[count_N > 0]).double().mean())


def no_information(label_N: Tensor, predicted_N: Tensor) -> float:
    """The error of these predictions if they had nothing to do with the labels."""
    classes = int(max(label_N.max(), predicted_N.max())) + 1
    true_K, predicted_K = (
        torch.bincount(labels, minlength=classes).double() / len(labels) for labels in (label_N, predicted_N)
    )
    return 1 - float(true_K @ predicted_K)


def estimate_632_plus(training: float, oob: float, guess: float) -> float:
    """The 0.632+ estimate: the weight of the left-out error is 0.632 / (1 - 0.368 R), R in [0, 1] the relative
    overfitting (oob - training) / (guess - training)."""
    oob = min(oob, guess)
    overfitting = (oob - training) / (guess - training) if guess > training and oob > training else 0.0
    weight = 0.632 / (1 - 0.368 * overfitting)
    return (1 - weight) * training + weight * oob
