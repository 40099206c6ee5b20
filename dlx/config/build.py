"""Objects from checked blocks: what a configuration names is imported here, and only after it was found allowed."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from dlx.config.check import is_allowed, refusal, trust_here
from dlx.config.errors import ConfigError, Problem
from dlx.config.groups import GROUPS, option_file, shown
from dlx.config.origin import blamed
from dlx.config.parts import GROUPS_OF_PARTS, Part, part_of
from dlx.config.signature import accepted_specs, missing_entries, read

if TYPE_CHECKING:
    from dlx.config.compose import Config

# torch.optim names what it refuses in words of its own.
_TORCH_PHRASES = {
    "learning rate": "lr",
    "momentum": "momentum",
    "weight_decay": "weight_decay",
    "beta": "betas",
    "epsilon": "eps",
    "rho": "rho",
    "alpha": "alpha",
    "Nesterov": "nesterov",
}


def _load(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name, None)


def find_class(
    target: Any, *, base: str | type, trust: Sequence[str] = (), key: str = "", file: str | None = None
) -> type:
    """The class at a dotted path, which must inherit `base`. Raises ConfigError for one that is not allowed, before
    anything is imported, and for one that is not there."""
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
        raise ConfigError([Problem(f"{key}._target_", f"{target} is no class of an allowed package", file)])
    wanted = _load(base) if isinstance(base, str) else base
    if not issubclass(found, wanted):
        raise ConfigError([Problem(f"{key}._target_", f"{target} is no {wanted.__name__}", file)])
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
    """The object that a block with `_target_` names, which must inherit `base`.

    Raises ConfigError for a target that is not allowed (before anything is imported), and for a value that the
    constructor refuses by ValueError.
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
    """Objects in the place of their blocks; models are built for the same data as what they are part of."""
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
        raise ConfigError([Problem(key, f"{type(made).__name__} offers no features without its head", file)])
    return made


def _kinds(spec: Any) -> dict[str, str]:
    return {name: f"{type(entry).__module__}.{type(entry).__qualname__}" for name, entry in spec.entries.items()}


def narrowed(spec: Any, target: str, key: str) -> Any:
    """The entries that a model reads: of the spec classes in its annotation the first that fits. Raises ConfigError."""
    accepted = accepted_specs(target)
    missing = [missing_entries(path, _kinds(spec)) for path in accepted]
    for path, lacks in zip(accepted, missing, strict=True):
        if not lacks:
            return spec.narrow(_load(path)) if _fields(path) else spec  # the base of all specs takes everything
    if not accepted or not spec.targets:  # a trunk's
        return spec
    least = ", ".join(sorted(missing, key=len)[0])
    names = " or ".join(path.rpartition(".")[2] for path in accepted)
    raise ConfigError([Problem(key, f"{target.rpartition('.')[2]} takes {names}; these data lack {least}")])


def _fields(path: str) -> set[str]:
    signature = read(path)
    return set(signature.fields) if signature else set()


def without_targets(spec: Any, target: Any, key: str) -> Any:
    """The inputs that a model reads, as the spec class that its own extends by targets."""
    for path in accepted_specs(str(target)):
        for kind in _load(path).__mro__:
            names = [field.name for field in fields(kind) if field.default is MISSING] if is_dataclass(kind) else []
            if names and not getattr(kind, "targets", ()) and all(name in spec.entries for name in names):
                return spec.narrow(kind)
    raise ConfigError([Problem(key, f"{target} cannot be a trunk: its spec has no base without targets")])


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


def _from_value_error(error: ValueError, key: str, names: list[str], file: str | None) -> Problem:
    """The key that a constructor's complaint is about: our own begin with the argument's name."""
    text = str(error)
    first, _, rest = text.partition(" ")
    if first in names:
        return Problem(f"{key}.{first}", rest, file)
    for phrase, name in _TORCH_PHRASES.items():
        if phrase in text and name in names:
            return Problem(f"{key}.{name}", text[0].lower() + text[1:], file)
    return Problem(key, text, file)


def file_of(config: Config, group: str, choice: Any = None) -> str | None:
    """The option file that owns a group's block, as messages name it."""
    path = option_file(group, str(choice or config.choices.get(group)), config.conf_dirs)
    return shown(path) if path else None


def _shared_names(group: str) -> set[str]:
    shared = GROUPS[group].shared
    signature = read(shared) if shared else None
    return set(signature.params) if signature else set()


def class_block(config: Config, group: str) -> dict[str, Any]:
    """A group's block without the keys that are not its class's own."""
    shared = _shared_names(group)
    return {name: value for name, value in config[group].items() if name not in shared}


def build(config: Config, group: str, **given: Any) -> Any:
    """The object of a group that has one option."""
    return _made(config, class_block(config, group), GROUPS[group].base, group, file_of(config, group), **given)


def _made(config: Config, block: dict[str, Any], base: str | type, key: str, file: str | None, **given: Any) -> Any:
    try:
        return instantiate(block, base=base, trust=config.trust, key=key, file=file, **given)
    except ConfigError as error:
        raise blamed(config, error) from error.__cause__


def build_all(config: Config, group: str) -> dict[str, Any]:
    """The objects of a group that takes several options, by name."""
    return {
        name: _made(config, block, GROUPS[group].base, f"{group}.{name}", file_of(config, group, name))
        for name, block in config[group].items()
    }


def build_shared(config: Config, group: str) -> Any:
    """The object of a group's further keys: the View of a dataset, the ParamGroups of an optimizer."""
    target = GROUPS[group].shared
    assert target is not None, group
    shared = _shared_names(group)
    block = {name: value for name, value in config[group].items() if name in shared}
    return _made(config, {"_target_": target, **block}, _load(target), group, file_of(config, group))
