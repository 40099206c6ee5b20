"""Bagging (Breiman 1996): members trained on bootstrap replicates predict together; left-out samples test them.

A replicate draws n of n samples with replacement; 1 - (1 - 1/n)^n, towards 0.632, of them are in it. A sample's
out-of-bag prediction is that of the members that did not draw it: an estimate of the test error that costs no data.
Shapes: M members, N samples of the training data, K outputs.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dlx.config import Config, build, build_shared, compose
from dlx.config.checks import at_least
from dlx.config.errors import ConfigError, Problem
from dlx.methods.ensemble import ENSEMBLE_NOTE, write_ensemble
from dlx.methods.predictions import Predictions, predict_split_by_member
from dlx.methods.spread import spread
from dlx.runs.draw import Figure, subplots
from dlx.runs.folder import RunFolder
from dlx.sweeps.method import Method, MethodResult, check_supervised, check_unset
from dlx.tasks.system import System
from dlx.tasks.vote import combine_votes
from dlx.training.session import val_and_test


class Bagging(Method):
    """members: number of trainings, each on a replicate and from a seed of its own. vote: average (of probabilities for
    classifiers) or majority."""

    def __init__(self, *, members: int = 10, vote: Literal["average", "majority"] = "average") -> None:
        at_least(1, members=members)
        self.count = members
        self.vote: Literal["average", "majority"] = vote

    def check(self, base: Config, system: System) -> None:
        is_classifier = check_supervised("bagging", system).is_classifier
        if self.vote == "majority" and not is_classifier:
            raise ConfigError([Problem("method.vote", "majority is of classes; real targets are averaged")])

    def members(self, base: Config, done: Mapping[str, RunFolder], folder: Path) -> dict[str, Config]:
        check_unset(base, "bootstrap")
        return {
            f"bag-{b}": compose([f"dataset.bootstrap={b}", f"seed={base['seed'] + b}"], base=base)
            for b in range(self.count)
        }

    def aggregate(self, base: Config, runs: Mapping[str, RunFolder], folder: Path) -> MethodResult:
        """The ensemble's metrics, the members' as `member/NAME` and the out-of-bag ones as `oob/NAME`."""
        ensemble = write_ensemble(base, runs, folder, vote=self.vote)
        alone, details = spread(runs)
        metrics = val_and_test(ensemble.summary())
        metrics |= {f"member/{name}": value for name, value in alone.items() if name.removesuffix("_std") in metrics}
        pool, test = (predict_split_by_member(ensemble, split, trust=base.trust) for split in ("train", "test"))
        drawn = [drawn_indices(run, base.trust) for run in runs.values()]
        left_out_MN = torch.stack([~torch.isin(pool.index, index) for index in drawn])
        bag = out_of_bag(pool, left_out_MN, self.vote)
        metrics |= {f"oob/{name}": value for name, value in bag.items() if name != "error"}
        distinct = [len(index.unique()) / len(index) for index in drawn]
        counts = f"{int(left_out_MN.any(0).sum())} of {len(pool.index)} samples"
        found = {
            "ensemble": ENSEMBLE_NOTE,
            "out of bag": f"{counts} were left out by at least one of {len(runs)} members",
            "distinct": f"{statistics.fmean(distinct):.4f} of the samples are in a replicate",
            "distinct_share": distinct,
            "test_error": growing_errors(test, test.output, self.vote),
            "member_test_error": [test.score(output, test.truth)["error"] for output in test.output],
            "oob_error": bag.get("error"),
            **details,
        }
        what = "error" if test.are_labels else "mean squared error"
        return MethodResult(metrics, found, {"members": partial(_draw, found, what)})


def drawn_indices(run: RunFolder, trust: tuple[str, ...]) -> Tensor:
    """Positions in the training source that a run was trained on, repeated as often as it drew them."""
    config = run.load_config(trust=trust)
    return build_shared(config, "dataset").split(build(config, "dataset"))["train"].index


def out_of_bag(pool: Predictions, left_out_MN: Tensor, vote: Literal["average", "majority"]) -> dict[str, float]:
    """Metrics of the training samples, predicted by the members that left them out; empty if none was left out."""
    some_N = left_out_MN.any(0)
    if not some_N.any():
        return {}
    weight_MN = left_out_MN[:, some_N].float()
    output_NK = combine_votes(pool.output[:, some_N], weight_MN, vote, classes=pool.are_labels)
    return pool.score(output_NK, pool.truth[some_N])


def growing_errors(samples: Predictions, output_MNK: Tensor, vote: Literal["average", "majority"]) -> list[float]:
    """The error of the first member, of the first two together, ..."""
    together = [
        combine_votes(output_MNK[:count], torch.ones(count), vote, classes=samples.are_labels)
        for count in range(1, len(output_MNK) + 1)
    ]
    return [samples.score(output, samples.truth)["error"] for output in together]


def _draw(found: Mapping[str, Any], what: str) -> Figure:
    figure, axes = subplots(size=(7.5, 4))
    alone, together = found["member_test_error"], found["test_error"]
    count = range(1, len(together) + 1)
    axes.plot(count, alone, "o", color="0.35", mfc="none", ms=9, zorder=3, label="each member")
    axes.axhline(statistics.fmean(alone), color="0.5", linestyle=":", label="their mean")
    axes.plot(count, together, "o-", color="tab:blue", label="the first n together")
    if found["oob_error"] is not None:
        axes.axhline(found["oob_error"], color="tab:orange", linestyle="--", label="out of bag, all members")
    axes.set(xlabel="members", ylabel=f"test {what}", ylim=(0, None))
    axes.locator_params(axis="x", integer=True)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)  # on the data it would hide them
    return figure
