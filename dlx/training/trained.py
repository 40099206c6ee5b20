"""Opens trained runs: the system with its best weights, and the data it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from dlx.config import Config, build, build_shared, compose
from dlx.config.errors import UserError
from dlx.config.screen import note
from dlx.data.fingerprint import changes, check_classes, check_same, fingerprint
from dlx.data.loader import make_loader
from dlx.data.splits import train_probe
from dlx.tasks.spec import Label
from dlx.training.distributed import Dist, choose_device
from dlx.training.evaluate import BANK, evaluate
from dlx.training.load import adopt, check_is_run, load_system
from dlx.training.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlx.data.dataset import Dataset
    from dlx.data.loader import Loader
    from dlx.data.splits import AnySplit, SplitSettings
    from dlx.runs.folder import RunFolder
    from dlx.tasks.spec import Entry
    from dlx.tasks.system import System


@dataclass
class Opened:
    """A trained run and its data."""

    config: Config
    system: System  # with its best weights, on its device
    dataset: Dataset
    settings: SplitSettings
    name: str = ""  # of its folder

    @cached_property
    def splits(self) -> dict[str, AnySplit]:
        return self.settings.split(self.dataset)

    def loader(self, split: str, entries: Mapping[str, Entry] | None = None) -> Loader:
        """A loader of `train`, `val` or `test`. entries: to load; None: those that the system reads."""
        return self._loader(self.splits[split], entries)

    def others(self, words: Sequence[str] = ()) -> Opened:
        """The same system with other data: `data=NAME` and keys of it. Without words, the classes of the run's own data
        that it was not trained on. Raises UserError where the system cannot read them."""
        if words:
            config = compose([*words], base=self.config)
        else:
            (label,) = self.dataset.spec.of_kind(Label).values()
            own = {label.classes[int(label.read(str(name)))] for name in self.settings.classes or ()}
            left = [name for name in label.classes if name not in own]
            config = self.config.with_value("dataset", "classes", left)
        dataset, settings = build(config, "dataset"), build_shared(config, "dataset")
        for name, entry in self.system.spec.inputs.items():
            there = settings.spec(dataset).entries.get(name)
            if not entry.is_like(there):
                raise UserError(f"dataset: its {name} is {there}, and the run was trained on {entry}")
        return Opened(config, self.system, dataset, settings, self.name)

    @property
    def bank(self) -> Loader | None:
        """Training samples for `System.before_evaluation`, if the system defines it."""
        if not self.system.defines("before_evaluation"):
            return None
        return self._loader(train_probe(self.splits["train"], BANK, self.settings.split_seed))

    def _loader(self, split: AnySplit, entries: Mapping[str, Entry] | None = None) -> Loader:
        return make_loader(
            split, entries or self.system.spec.entries, self.settings, device=self.system.device,
            seed=self.config["seed"], training=False, look=Signals.overdue,
        )  # fmt: skip


def open_all(folder: RunFolder, *, trust: tuple[str, ...] = (), overrides: Sequence[str] = ()) -> Opened:
    """overrides: of dataset keys, for moved data. Raises UserError if the classes differ from the run's."""
    config = folder.load_config(trust=trust)
    check_is_run(folder, config)
    if overrides:
        config = compose([*overrides], base=config)
    trainer, dataset, settings = build(config, "trainer"), build(config, "dataset"), build_shared(config, "dataset")
    check_classes(adopt(dataset, folder, config), settings.spec(dataset))
    now = fingerprint(dataset)
    check_same(folder.data(), now)
    for line in changes(folder.data(), now):
        note(f"warning: the data changed since the run began: {line}")
    system = trainer.to_device(load_system(folder, config), choose_device(trainer.device))
    return Opened(config, system, dataset, settings, folder.name)


def open_run(folder: RunFolder, split: str, *, trust: tuple[str, ...] = ()) -> tuple[System, Loader]:
    """A run's system with its best weights, on its device, and a loader of `train`, `val` or `test` of its data."""
    opened = open_all(folder, trust=trust)
    return opened.system, opened.loader(split)


def evaluate_run(folder: RunFolder, split: str, *, trust: tuple[str, ...] = ()) -> dict[str, float]:
    """The metrics of a run's best weights on `train`, `val` or `test` of the data it was trained on."""
    opened = open_all(folder, trust=trust)
    loader, dist = opened.loader(split), Dist(opened.system.device)
    found = evaluate(opened.system, loader, dist, loader.seed, opened.bank)
    return {f"{split}/{name}": value for name, value in found.items()}
