"""View: which samples of a dataset a run trains on, is validated on and is tested on.

The test split depends on `split_seed` alone, never on the run's seed, subset, fold or bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dlx.config.errors import UserError
from dlx.random import generator

if TYPE_CHECKING:
    from dlx.data.dataset import Dataset, Source

TEST_SHARE, VAL_SHARE = 0.2, 0.1


@dataclass(frozen=True, eq=False)
class Split:
    """Positions in a source (int64, repeats allowed) and, where samples are weighted, a weight for each of its samples."""

    source: Source
    index: Tensor
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)


def stratified_order(labels: Tensor, rng: torch.Generator) -> Tensor:
    """A random order in which every prefix holds each class in its share, to within one sample per class."""
    shuffled = torch.randperm(len(labels), generator=rng)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = labels.bincount()
    counts = counts[counts > 0]
    rank = torch.cat([(torch.arange(int(n)) + 0.5) / n for n in counts])
    return by_class[rank.argsort(stable=True)]


def deal(labels: Tensor, folds: int, rng: torch.Generator) -> Tensor:
    """The fold (0..folds-1) of each sample: classes are dealt out like cards, so sizes differ by at most one."""
    shuffled = torch.randperm(len(labels), generator=rng)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    fold = torch.empty(len(labels), dtype=torch.int64)
    fold[by_class] = torch.arange(len(labels)) % folds
    return fold


class View:
    """The keys that every dataset has.

    batch_size: the effective one; accumulation splits it. subset: that many training samples, or a fraction of them.
    fold, folds: validation is fold `fold` of a stratified k-fold. bootstrap: replicate number; train is drawn with
    replacement. weights: a .npy file with one weight per training sample. workers: processes that load; 0 keeps what
    fits in memory. drop_last: training drops the last partial batch.
    """

    def __init__(
        self,
        *,
        batch_size: int = 128,
        subset: int | float | None = None,
        fold: int | None = None,
        folds: int | None = None,
        bootstrap: int | None = None,
        split_seed: int = 0,
        weights: str | None = None,
        workers: int = 0,
        drop_last: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if workers < 0:
            raise ValueError(f"workers must be at least 0, got {workers}")
        if subset is not None and (subset <= 0 or (isinstance(subset, float) and subset > 1)):
            raise ValueError(f"subset must be a number of samples or a fraction in (0, 1], got {subset}")
        if (fold is None) != (folds is None):
            raise ValueError("fold and folds must be given together")
        if folds is not None and folds < 2:
            raise ValueError(f"folds must be at least 2, got {folds}")
        if fold is not None and folds is not None and not 0 <= fold < folds:
            raise ValueError(f"fold must be in 0..{folds - 1}, got {fold}")
        self.batch_size, self.subset, self.fold, self.folds = batch_size, subset, fold, folds
        self.bootstrap, self.split_seed, self.weights = bootstrap, split_seed, weights
        self.workers, self.drop_last = workers, drop_last

    def split(self, dataset: Dataset) -> dict[str, Split]:
        """train, val and test. Raises UserError naming the key that asks for more than there is."""
        given = dataset.splits()
        source = given["train"]
        labels = _strata(source)
        pool = torch.arange(len(source))
        if "test" in given:
            test = Split(given["test"], torch.arange(len(given["test"])))
        else:
            test_index, pool = self._hold_out(pool, labels, TEST_SHARE, "test")
            test = Split(source, test_index)
        pool = self._take_subset(pool, labels)
        if self.folds is not None:
            if self.folds > len(pool):
                raise UserError(f"dataset.folds: {self.folds} folds of {len(pool)} samples")
            fold = deal(labels[pool], self.folds, generator(self.split_seed, "folds"))
            val = Split(source, pool[fold == self.fold])
            train_index = pool[fold != self.fold]
        elif "val" in given:
            val, train_index = Split(given["val"], torch.arange(len(given["val"]))), pool
        else:
            val_index, train_index = self._hold_out(pool, labels, VAL_SHARE, "val")
            val = Split(source, val_index)
        if self.bootstrap is not None:
            rng = generator(self.split_seed, "bootstrap", self.bootstrap)
            train_index = train_index[torch.randint(len(train_index), (len(train_index),), generator=rng)]
        if len(train_index) < self.batch_size and self.drop_last:
            raise UserError(
                f"dataset.batch_size: {self.batch_size} is more than the {len(train_index)} training samples"
            )
        return {"train": Split(source, train_index, self._read_weights(source, train_index)), "val": val, "test": test}

    def _hold_out(self, pool: Tensor, labels: Tensor, share: float, scope: str) -> tuple[Tensor, Tensor]:
        """A stratified share of the pool, and the rest; each in the source's order."""
        order = pool[stratified_order(labels[pool], generator(self.split_seed, scope))]
        count = max(1, round(share * len(pool)))
        return order[:count].sort().values, order[count:].sort().values

    def _take_subset(self, pool: Tensor, labels: Tensor) -> Tensor:
        if self.subset is None:
            return pool
        count = self.subset if isinstance(self.subset, int) else round(self.subset * len(pool))
        if not 2 <= count <= len(pool):
            raise UserError(f"dataset.subset: {self.subset} of {len(pool)} training samples; 2 to {len(pool)} can be taken")
        order = stratified_order(labels[pool], generator(self.split_seed, "subset"))
        return pool[order[: int(count)]].sort().values

    def _read_weights(self, source: Source, train_index: Tensor) -> Tensor | None:
        if self.weights is None:
            return None
        path = Path(self.weights).expanduser()
        if not path.is_file():
            raise UserError(f"dataset.weights: {path}: there is no such file")
        try:
            weight = torch.from_numpy(np.load(path, allow_pickle=False)).float()
        except ValueError as error:
            raise UserError(f"dataset.weights: {path}: {error}") from None
        if weight.shape != (len(source),) or not torch.isfinite(weight).all() or (weight < 0).any():
            raise UserError(f"dataset.weights: {path}: must be {len(source)} finite numbers of at least 0")
        mean = weight[train_index].mean()
        if mean == 0:
            raise UserError(f"dataset.weights: {path}: all training samples have weight 0")
        return weight / mean


def _strata(source: Source) -> Tensor:
    """Class labels of a source; one stratum for real targets."""
    tensors = getattr(source, "tensors", {})
    labels = tensors.get("label", getattr(source, "labels", None))
    return torch.zeros(len(source), dtype=torch.int64) if labels is None else torch.as_tensor(labels)
