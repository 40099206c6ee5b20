"""Builds objects from checked blocks. A class that a configuration names is imported only once it is allowed."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any

from dlx.config.check import is_allowed, refusal, trust_here
from dlx.config.compose import Config
from dlx.config.errors import ConfigError, Problem
from dlx.config.groups import GROUPS, shown_file
from dlx.config.origin import is_typed, origin
from dlx.config.parts import GROUPS_OF_PARTS, Part, part_of
from dlx.config.signature import accepted_specs, missing_entries, read

# What torch.optim calls an argument that it refuses, and the range that it asks for.
_TORCH_ARGUMENTS = {
    "learning rate": ("lr", "at least 0"),
    "momentum": ("momentum", "at least 0"),
    "weight_decay": ("weight_decay", "at least 0"),
    "beta": ("betas", "in [0, 1)"),
    "epsilon": ("eps", "at least 0"),
    "rho": ("rho", "in [0, 1]"),
    "alpha": ("alpha", "at least 0"),
}
_TORCH_INVALID = re.compile(rf"Invalid ({'|'.join(_TORCH_ARGUMENTS)})\b[^:]*: (\S+)")


def _load(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name, None)


def find_class(
    target: Any, *, base: str | type, trust: Sequence[str] = (), key: str = "", file: str | None = None
) -> type:
    """The class at a dotted path. Raises ConfigError, before any import, if its package is not allowed; also if there
    is no such class, or it is not a subclass of `base`."""
    if not isinstance(target, str) or not is_allowed(target, trust):
        raise ConfigError([Problem(f"{key}._target_", refusal(str(target), trust), file)])
    trust_here(trust)
    signature = read(target)
    if signature is None:  # found or not without importing anything
        raise ConfigError([Problem(f"{key}._target_", f"there is no class {target}", file)])
    try:
        found = _load(target)
    except ImportError as error:
        raise ConfigError([Problem(f"{key}._target_", f"{target} cannot be imported: {error}", file)]) from error
    if not isinstance(found, type) or not is_allowed(f"{found.__module__}.{found.__qualname__}", trust):
        raise ConfigError([Problem(f"{key}._target_", f"{target} is not a class of an allowed package", file)])
    wanted = _load(base) if isinstance(base, str) else base
    if not issubclass(found, wanted):
        raise ConfigError([Problem(f"{key}._target_", f"{target} is not a subclass of {wanted.__name__}", file)])
    return found


def instantiate(
    block: dict[str, Any],
    *,
    base: str | type,
    trust: Sequence[str] = (),
    key: str = "",
    file: str | None = None,
    **given: Any,
) -> Any:
    """The object that a block with `_target_` describes. given: constructor arguments that dlx supplies.

    Raises ConfigError as `find_class`, and for a value that the constructor refuses by ValueError.
    """
    target = block.get("_target_")
    found = find_class(target, base=base, trust=trust, key=key, file=file)
    signature = read(str(target))
    assert signature is not None
    arguments = {name: _as_tuple(value) for name, value in block.items() if name != "_target_"}
    for name, param in signature.params.items():
        if name in arguments and (part := part_of(param)) is not None:
            arguments[name] = _parts(arguments[name], part, trust, f"{key}.{name}", file, given)
    if "spec" in given:
        given["spec"] = narrowed(given["spec"], str(target), key)
    try:
        inspect.signature(found).bind(**arguments, **given)
    except TypeError as error:
        raise ConfigError([Problem(key, f"{target}: {error}", file)]) from error
    try:
        return found(**arguments, **given)
    except ValueError as error:
        raise ConfigError([_from_value_error(error, key, list(arguments), file)]) from error


def _parts(value: Any, part: Part, trust: Sequence[str], key: str, file: str | None, given: dict[str, Any]) -> Any:
    """Builds the objects of part blocks. A part that is a model gets the spec of the whole."""
    if isinstance(value, tuple):
        return tuple(_parts(item, part, trust, f"{key}.{n}", file, given) for n, item in enumerate(value))
    if not isinstance(value, dict):
        return value
    block = {name: item for name, item in value.items() if name != "name"}
    supplied = {name: given[name] for name in GROUPS_OF_PARTS[part.group].given if name in given}
    if part.trunk and "spec" in supplied:
        supplied["spec"] = without_targets(supplied["spec"], block.get("_target_"), key)
    made = instantiate(block, base=part.base, trust=trust, key=key, file=file, **supplied)
    if part.trunk and not hasattr(made, "features"):
        raise ConfigError([Problem(key, f"{type(made).__name__} has no method `features`, which a trunk needs", file)])
    return made


def narrowed(spec: Any, target: str, key: str) -> Any:
    """The spec with the entries that a model reads: the first class of its annotation that fits. Raises ConfigError."""
    accepted = accepted_specs(target)
    kinds = {name: f"{type(entry).__module__}.{type(entry).__qualname__}" for name, entry in spec.entries.items()}
    missing = [missing_entries(path, kinds) for path in accepted]
    for path, lacks in zip(accepted, missing, strict=True):
        if not lacks:
            signature = read(path)  # without fields it is the base of all specs, which takes everything
            return spec.narrow(_load(path)) if signature and signature.fields else spec
    if not accepted or not spec.targets:  # the spec of a trunk
        return spec
    least = ", ".join(sorted(missing, key=len)[0])
    names = " or ".join(path.rpartition(".")[2] for path in accepted)
    raise ConfigError([Problem(key, f"{target.rpartition('.')[2]} takes {names}; these data lack {least}")])


def without_targets(spec: Any, target: Any, key: str) -> Any:
    """The spec with a model's inputs alone: the base of its spec class that has no targets."""
    for path in accepted_specs(str(target)):
        for kind in _load(path).__mro__:
            names = [field.name for field in fields(kind) if field.default is MISSING] if is_dataclass(kind) else []
            if names and not getattr(kind, "targets", ()) and all(name in spec.entries for name in names):
                return spec.narrow(kind)
    raise ConfigError([Problem(key, f"{target} cannot be a trunk: its spec has no base without targets")])


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


def _from_value_error(error: ValueError, key: str, names: list[str], file: str | None) -> Problem:
    """The problem of the argument that a constructor refused: dlx's own messages begin with its name."""
    text = str(error)
    first, _, rest = text.partition(" ")
    if first in names:
        return Problem(f"{key}.{first}", rest, file)
    if found := _TORCH_INVALID.match(text):
        name, wanted = _TORCH_ARGUMENTS[found[1]]
        return Problem(f"{key}.{name}", f"must be {wanted}, got {found[2]}", file)
    return Problem(f"{key}.nesterov" if "Nesterov" in text else key, text, file)


def file_of(config: Config, group: str, choice: Any = None) -> str | None:
    """The option file of a group's block, as messages name it."""
    return shown_file(group, choice or config.choices.get(group), config.conf_dirs)


def _shared_names(group: str) -> set[str]:
    shared = GROUPS[group].shared
    signature = read(shared) if shared else None
    return set(signature.params) if signature else set()


def class_block(config: Config, group: str) -> dict[str, Any]:
    """A group's block with the keys of its class alone. A shared key that its constructor names is also one of these:
    a dataset may ask for `split_seed`."""
    shared = _shared_names(group)
    signature = read(str(config[group].get("_target_")))
    own = shared & signature.params.keys() if signature else set()
    return {name: value for name, value in config[group].items() if name not in shared or name in own}


def build(config: Config, group: str, **given: Any) -> Any:
    """The object of a group that has one option."""
    return _made(config, class_block(config, group), GROUPS[group].base, group, file_of(config, group), **given)


def _made(config: Config, block: dict[str, Any], base: str | type, key: str, file: str | None, **given: Any) -> Any:
    try:
        return instantiate(block, base=base, trust=config.trust, key=key, file=file, **given)
    except ConfigError as error:
        raise blamed(config, error) from error.__cause__


def blamed(config: Config, error: ConfigError) -> ConfigError:
    """The same problems, each with the file and line of its value; a problem of a typed value names no file."""
    problems = []
    for problem in error.problems:
        file = problem.file
        if file is not None:
            group, _, option = problem.key.partition(".")
            is_part_typed = any(name.startswith(f"{problem.key}.") for name in config.typed)
            is_choice_typed = group in config.typed and (not option or (GROUPS[group].many and "." not in option))
            given = is_typed(problem.key, config.typed) or is_part_typed or is_choice_typed
            file = None if given else origin(problem.key, config.choices, config.conf_dirs) or file
        problems.append(replace(problem, file=file))
    return ConfigError(problems)


def build_all(config: Config, group: str) -> dict[str, Any]:
    """The objects of a group that takes several options, by name."""
    return {
        name: _made(config, block, GROUPS[group].base, f"{group}.{name}", file_of(config, group, name))
        for name, block in config[group].items()
    }


def build_shared(config: Config, group: str) -> Any:
    """The object of the keys that all options of a group share: SplitSettings or ParamGroups."""
    target = GROUPS[group].shared
    assert target is not None, group
    shared = _shared_names(group)
    block = {name: value for name, value in config[group].items() if name in shared}
    return _made(config, {"_target_": target, **block}, _load(target), group, file_of(config, group))
