"""The keys in which configurations differ. Configurations are given by dotted keys, as in a catalog's entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from dlx.config.groups import GROUPS

if TYPE_CHECKING:
    from dlx.runs.catalog import Value

# What a run writes, not what it computes.
OUTPUTS = ("name", "output_root", "tracker", "trainer.log_every", "trainer.checkpoint_every")
REPEATS = ("seed", "dataset.fold", "dataset.bootstrap")  # runs that differ in nothing else are repeats


def differing(configs: Sequence[Mapping[str, Value]], ignore: Collection[str] = ()) -> list[str]:
    """Keys whose values are not the same in all: choices of groups first, then what is set, then what follows from a
    choice and is in all of them. What only some options of a group have, always the same, is left out."""
    keys = dict.fromkeys(key for config in configs for key in config)
    differ = [
        key
        for key in keys
        if not _is_output(key) and key not in ignore and len({comparable(config, key) for config in configs}) > 1
    ]
    choices = [key for key in GROUPS if key in differ and not _is_recipe(configs, key)]
    values = [key for key in differ if key not in GROUPS]
    follows = {key for key in values if _follows(configs, key, key.partition(".")[0])}
    later = [key for key in values if key in follows and all(key in config for config in configs)]
    return [*choices, *(key for key in values if key not in follows), *later]


def short_names(keys: Sequence[str]) -> list[str]:
    """The last part of each key if it is unique, else the whole key."""
    ends = Counter(key.rpartition(".")[2] for key in keys)
    return [end if ends[end := key.rpartition(".")[2]] == 1 else key for key in keys]


def _is_output(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in OUTPUTS)


def comparable(config: Mapping[str, Value], key: str) -> tuple[str, Value] | None:
    """A value for comparisons: 1 equals 1.0 and differs from true. None for a missing key."""
    if key not in config:
        return None
    value = config[key]
    return ("flag" if isinstance(value, bool) else "value", value)


def signature(config: Mapping[str, Value]) -> frozenset[tuple[str, object]]:
    """Equal for repeats. A fold or bootstrap sample differs from all of the data, but not from another sample."""
    values: dict[str, object] = {key: comparable(config, key) for key in config if not _is_output(key)}
    for key in REPEATS:
        values[key] = config.get(key) is not None
    return frozenset(values.items())


def _follows(configs: Sequence[Mapping[str, Value]], key: str, group: str) -> bool:
    """True if a group's options, which differ, determine the value of a key."""
    found: dict[object, set[object]] = {}
    for config in configs:
        found.setdefault(comparable(config, group), set()).add(comparable(config, key))
    return len(found) > 1 and all(len(values) == 1 for values in found.values())


def _is_recipe(configs: Sequence[Mapping[str, Value]], group: str) -> bool:
    """True if the options of a group are the recipes that come with the models."""
    is_named = any(str(config.get(group, "")).startswith("recipe/") for config in configs)
    return group != "model" and is_named and _follows(configs, group, "model")
