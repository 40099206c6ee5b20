"""SplitSettings: which samples of a dataset a run trains on, is validated on and is tested on.

The test split depends on `split_seed` alone, never on the run's seed, subset, fold or bootstrap. All draws are
functions of `split_seed`, so that runs with different seeds are trained and evaluated on the same samples.

A source in a fixed file has a stratified draw by position, exact in its shares. Samples with names (files in a folder,
`Source.keys`) are drawn each by a hash of its own name: one file more or less moves no other across the splits.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dlx.config import checks
from dlx.config.errors import UserError
from dlx.data.dataset import Unpaired
from dlx.data.proposals import Proposer, proposed, with_proposals
from dlx.random import generator
from dlx.tasks.spec import Label

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlx.data.dataset import Dataset, Source
    from dlx.tasks.spec import Spec

PARTS = {"test": 5, "val": 10}  # a fifth of the data, a tenth of the rest


@dataclass(frozen=True, eq=False)
class Split:
    """Positions in a source (int64, repeats allowed) and, where samples are weighted, a weight for each of its samples.

    `weight` is float32 [len(source)], with mean 1 over the split.
    """

    source: Source
    index: Tensor
    weight: Tensor | None = None

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, eq=False)
class UnpairedSplit:
    """Two splits whose samples do not belong together; `index` is the first one's."""

    source: Unpaired
    a: Split
    b: Split

    weight = None

    @property
    def index(self) -> Tensor:
        return self.a.index

    def __len__(self) -> int:
        return max(len(self.a), len(self.b))


AnySplit = Split | UnpairedSplit
Keys = Sequence[str] | None


class SplitSettings:
    """The keys that every dataset has.

    batch_size: the effective one; accumulation splits it; None suits the number of samples.
    eval_batch_size: samples that are evaluated at a time; None is 256, or fewer large ones.
    subset: that many samples to train and validate on, or a fraction of them (1.0: all).
    classes: only samples of these classes, by name or number, in every split.
    fold, folds: validation is fold `fold` (from 0) of a stratified k-fold, also where the dataset gives its own.
    bootstrap: a replicate's number; train is then drawn anew with replacement.
    split_seed: draws all of these, and the test split where the dataset gives none.
    weights: a .npy file with one weight per sample of the training source.
    targets: a .npy file with real targets that stand in for those of the training source, in its order: for train, and
        for what else is cut from it (a val or test split that the dataset gives keeps its own).
    proposals: what proposes regions of images, by option, for systems that read them.
    workers: processes that load; 0 keeps what fits in memory on the device.
    timeout: seconds that a batch of the workers may take; 0 is for ever.
    drop_last: training drops the last partial batch.
    """

    def __init__(
        self,
        *,
        batch_size: int | None = 128,
        eval_batch_size: int | None = None,
        subset: int | float | None = None,
        classes: Sequence[str | int] | None = None,
        fold: int | None = None,
        folds: int | None = None,
        bootstrap: int | None = None,
        split_seed: int = 0,
        weights: Path | None = None,
        targets: Path | None = None,
        proposals: Proposer | None = None,
        workers: int = 0,
        timeout: float = 600.0,
        drop_last: bool = True,
    ) -> None:
        checks.at_least(0, bootstrap=bootstrap, workers=workers, timeout=timeout)
        checks.at_least(1, batch_size=batch_size, eval_batch_size=eval_batch_size)
        checks.at_least(2, folds=folds)
        if subset is not None and not (0 < subset <= 1 if isinstance(subset, float) else subset >= 2):
            raise ValueError(f"subset must be a number of samples (at least 2) or a fraction in (0, 1], got {subset}")
        if fold is not None and folds is None:
            raise ValueError("fold needs folds, the number of parts")
        if folds is not None and fold is None:
            raise ValueError("folds needs fold, the part to validate on")
        if fold is not None and folds is not None and not 0 <= fold < folds:
            raise ValueError(f"fold must be in 0..{folds - 1}, got {fold}")
        self.batch_size: int = batch_size or 0  # 0 until `prepare` knows the number of samples
        self.eval_batch_size = eval_batch_size
        if classes is not None and not classes:
            raise ValueError("classes must name at least one class, got none")
        self.subset, self.classes, self.fold, self.folds = subset, classes, fold, folds
        self.bootstrap, self.split_seed = bootstrap, split_seed
        self.weights, self.targets, self.proposals = weights, targets, proposals
        self.workers, self.timeout, self.drop_last = workers, timeout, drop_last

    def split(self, dataset: Dataset) -> dict[str, AnySplit]:
        """train, val and test. Raises UserError naming the key that asks for more than there is, or that the dataset
        has no use for."""
        self._check_kind(dataset)
        kept = self._kept_classes(dataset.spec)
        given, targets = dataset.sources, dataset.spec.targets
        if self.proposals is not None:
            given = proposed(dataset, self.proposals)
        if not isinstance(given["train"], Unpaired):
            return {name: _only_classes(part, kept) for name, part in self._split(given, targets, kept).items()}
        if self.weights is not None or self.targets is not None:
            raise UserError("dataset.weights, dataset.targets: are of one source, and these data are unpaired")
        a, b = (self._split({name: getattr(pair, side) for name, pair in given.items()}, ()) for side in ("a", "b"))
        for name, side in ((name, side) for parts in (a, b) for name, side in parts.items()):
            if not len(side):
                raise UserError(f"dataset: a side of {name} has no samples")
            if name == "train" and len(side) < self.batch_size:
                raise UserError(f"dataset.batch_size: {self.batch_size} is more than the {len(side)} samples of a side")
        return {name: UnpairedSplit(given.get(name, given["train"]), a[name], b[name]) for name in a}

    def spec(self, dataset: Dataset) -> Spec:
        """The dataset's, with what is added here. Raises UserError."""
        return with_proposals(dataset.spec, self.proposals)

    def _kept_classes(self, spec: Spec) -> Tensor | None:
        """The numbers of `classes`, None for all. Raises UserError."""
        if self.classes is None:
            return None
        labels = list(spec.of_kind(Label).values())
        if len(labels) != 1:
            raise UserError("dataset.classes: these data have no class labels, or several")
        return torch.cat([_class_number(labels[0], name) for name in self.classes])

    def _check_kind(self, dataset: Dataset) -> None:
        if not dataset.acts:
            return
        for key in ("subset", "classes", "fold", "bootstrap", "weights", "targets", "workers"):
            value = getattr(self, key)
            if value is not None and (key, value) != ("workers", 0):
                raise UserError(f"dataset.{key}: must not be set, got {value}: this dataset is an environment")

    def _split(
        self, given: Mapping[str, Source], targets: Sequence[str], kept: Tensor | None = None
    ) -> dict[str, Split]:
        source = given["train"]
        labels = class_labels(source)
        if self.targets is not None:
            source = self._retarget(source, targets, self.targets)
        pool, keys = torch.arange(len(source)), getattr(source, "keys", None)
        if "test" in given:
            test = _whole(given["test"])
        else:
            test_index, pool = self._hold_out(pool, labels, keys, "test")
            test = Split(source, test_index)
        if kept is not None:
            pool = pool[torch.isin(labels[pool], kept)]
        pool = self._take_subset(pool, labels, keys)
        if self.folds is not None:
            if self.folds > len(pool):
                raise UserError(f"dataset.folds: {self.folds} folds of {len(pool)} samples")
            fold = assign_folds(labels[pool], self.folds, *_order(pool, keys, self.split_seed, "folds"))
            val, train_index = Split(source, pool[fold == self.fold]), pool[fold != self.fold]
        elif "val" in given:
            val, train_index = _whole(given["val"]), pool
        else:
            val_index, train_index = self._hold_out(pool, labels, keys, "val")
            val = Split(source, val_index)
        size = len(train_index)
        if size == 0:
            raise UserError(f"dataset: {len(source)} samples are too few to split")
        if self.bootstrap is not None:
            drawn = torch.randint(size, (size,), generator=generator(self.split_seed, "bootstrap", self.bootstrap))
            train_index = train_index[drawn]
        return {"train": Split(source, train_index, self._read_weights(source, train_index)), "val": val, "test": test}

    def _hold_out(self, pool: Tensor, labels: Tensor, keys: Keys, scope: str) -> tuple[Tensor, Tensor]:
        """A stratified part of the pool and the rest, each in the source's order."""
        own = None if keys is None else [keys[n] for n in pool.tolist()]
        held = held_out(labels[pool], own, self.split_seed, scope)
        return pool[held], pool[~held]

    def _take_subset(self, pool: Tensor, labels: Tensor, keys: Keys) -> Tensor:
        if self.subset is None:
            return pool
        count = self.subset if isinstance(self.subset, int) else round(self.subset * len(pool))
        least = max(2, len(labels[pool].unique()))
        if not least <= count <= len(pool):
            raise UserError(
                f"dataset.subset: {self.subset} of {len(pool)} samples; "
                f"from {least} (one of each class) to all of them can be taken"
            )
        return pool[stratified_sample(labels[pool], count, *_order(pool, keys, self.split_seed, "subset"))]

    def _retarget(self, source: Source, targets: Sequence[str], name: Path | str) -> Source:
        tensors = getattr(source, "tensors", {})
        key = targets[0] if len(targets) == 1 else ""
        before = tensors.get(key)
        if before is None or not before.is_floating_point():
            raise UserError("dataset.targets: stand in for real targets that are kept in memory; these data have none")
        after = _read_numbers("targets", name, tuple(before.shape))
        changed = copy.copy(source)
        changed.tensors = {**tensors, key: after.to(before.dtype)}  # type: ignore[attr-defined]
        return changed

    def _read_weights(self, source: Source, train_index: Tensor) -> Tensor | None:
        if self.weights is None:
            return None
        weight = _read_numbers("weights", self.weights, (len(source),))
        if (weight < 0).any():
            raise UserError(f"dataset.weights: {self.weights}: must not be negative")
        mean = weight[train_index].mean()
        if mean.isinf():
            raise UserError(f"dataset.weights: {self.weights}: too large, their sum is not finite")
        if mean == 0:
            raise UserError(f"dataset.weights: {self.weights}: all training samples have weight 0")
        return (weight / mean).float()


def held_out(labels: Tensor, keys: Keys, split_seed: int, scope: str) -> Tensor:
    """Which samples are held out as `test` (of all) or `val` (of the rest), by class labels [N] and names, bool [N].

    Of samples with names those whose number is below the part; else the part is exact, rounded up. A dataset that
    learns something from its texts leaves the test split out by the same call, with the split_seed that it is given.
    """
    rng, hashed = _order(torch.arange(len(labels)), keys, split_seed, scope)
    if hashed is not None:
        return below(labels, hashed, 1 / PARTS[scope])
    return stratified_sample(labels, -(-len(labels) // PARTS[scope]), rng)


def _read_numbers(key: str, name: Path | str, shape: tuple[int, ...]) -> Tensor:
    """The finite numbers of a .npy file, float64. Raises UserError naming `dataset.KEY` where it holds others."""
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f"dataset.{key}: {path}: there is no such file")
    try:
        # "same_kind" refuses text and complex numbers.
        numbers = np.asarray(np.load(path, allow_pickle=False)).astype(np.float64, casting="same_kind")
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise UserError(f"dataset.{key}: {path}: not a .npy file of numbers ({error})") from error
    if numbers.shape != shape:
        wanted = " x ".join(str(size) for size in shape)
        each = "one number" if len(shape) == 1 else "one row"
        raise UserError(
            f"dataset.{key}: {path}: must be {wanted} numbers, {each} for each sample of the whole source, before val "
            f"and test are cut from it; got shape {numbers.shape}"
        )
    if not np.isfinite(numbers).all():
        raise UserError(f"dataset.{key}: {path}: must be finite")
    return torch.from_numpy(numbers)


def train_probe(train: AnySplit, size: int, split_seed: int) -> AnySplit:
    """A stratified part of the training split, fixed by `split_seed`, at most `size` samples, without weights."""
    if isinstance(train, UnpairedSplit):
        a, b = (train_probe(side, size, split_seed) for side in (train.a, train.b))
        assert isinstance(a, Split)
        assert isinstance(b, Split)
        return UnpairedSplit(train.source, a, b)
    labels = class_labels(train.source)[train.index]
    order = _order(train.index, getattr(train.source, "keys", None), split_seed, "probe")
    taken = stratified_sample(labels, min(size, len(train)), *order)
    return Split(train.source, train.index[taken])


def _order(pool: Tensor, keys: Keys, split_seed: int, scope: str) -> tuple[torch.Generator, Tensor | None]:
    """What draws, and of samples with names a number in [0, 1) for each of the pool."""
    hashed = None if keys is None else hash_keys([keys[n] for n in pool.tolist()], split_seed, scope)
    return generator(split_seed, scope), hashed


def _class_number(entry: Label, name: str | int) -> Tensor:
    try:
        return entry.read(str(name))
    except UserError as error:
        raise UserError(f"dataset.classes: {error}") from None


def _only_classes(split: Split, kept: Tensor | None) -> Split:
    if kept is None:
        return split
    return replace(split, index=split.index[torch.isin(class_labels(split.source)[split.index], kept)])


def _whole(source: Source) -> Split:
    return Split(source, torch.arange(len(source)))


def hash_keys(keys: Sequence[str], split_seed: int, scope: str) -> Tensor:
    """A number in [0, 1) for each name, float64 [N]: a function of the seed, the scope and the name alone."""
    start = hashlib.blake2b(f"{split_seed} {scope}\0".encode(), digest_size=8)
    numbers = []
    for key in keys:
        digest = start.copy()
        digest.update(key.encode(errors="surrogateescape"))
        numbers.append(int.from_bytes(digest.digest(), "big") >> 11)  # 53 bits: what a float64 holds
    return torch.tensor(numbers, dtype=torch.float64) / (1 << 53)


def below(labels: Tensor, hashed: Tensor, share: float) -> Tensor:
    """A mask of the samples whose number is below a share. A class left without any gives its lowest, and one that
    would give all keeps its highest; a class of one sample keeps it."""
    mask = hashed < share
    for label in labels.unique().tolist():
        own = (labels == label).nonzero().flatten()
        if len(own) == 1:
            mask[own] = False
        elif not mask[own].any():
            mask[own[hashed[own].argmin()]] = True
        elif mask[own].all():
            mask[own[hashed[own].argmax()]] = False
    return mask


def class_labels(source: Source) -> Tensor:
    """Class labels of a source, int64 [N]: its tensor `label`, or its attribute `labels`. Zeros where it has none."""
    labels = known_labels(source)
    return torch.zeros(len(source), dtype=torch.int64) if labels is None else labels


def known_labels(source: Source) -> Tensor | None:
    """As `class_labels`; None where the source has none: real targets, or labels that are drawn with the samples."""
    labels = getattr(source, "tensors", {}).get("label", getattr(source, "labels", None))
    return None if labels is None or labels.dim() != 1 or labels.is_floating_point() else labels.long()


def _by_class(labels: Tensor, rng: torch.Generator, hashed: Tensor | None = None) -> Tensor:
    """Positions grouped by class, in random order within each, or in the order of their numbers."""
    shuffled = torch.randperm(len(labels), generator=rng) if hashed is None else hashed.argsort(stable=True)
    return shuffled[labels[shuffled].argsort(stable=True)]


def stratified_sample(labels: Tensor, count: int, rng: torch.Generator, hashed: Tensor | None = None) -> Tensor:
    """A mask of `count` random samples, or of those with the lowest numbers. Each class gets its share, rounded up or
    down (largest remainders go up)."""
    _, class_of, sizes = labels.unique(return_inverse=True, return_counts=True)
    quota, remainder = sizes * count // len(labels), sizes * count % len(labels)
    quota[remainder.argsort(descending=True, stable=True)[: count - int(quota.sum())]] += 1
    by_class = _by_class(labels, rng, hashed)
    rank = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[by_class] = rank < quota[class_of[by_class]]
    return mask


def assign_folds(labels: Tensor, folds: int, rng: torch.Generator, hashed: Tensor | None = None) -> Tensor:
    """The fold (0..folds-1) of each sample, dealt out like cards class by class.

    Folds differ by at most one sample, overall and in each class.
    """
    fold = torch.empty(len(labels), dtype=torch.int64)
    fold[_by_class(labels, rng, hashed)] = torch.arange(len(labels)) % folds
    return fold
