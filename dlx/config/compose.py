"""Composition: Hydra composes the choices, then values are set, and everything is checked and frozen."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dlx.config.check import Checker, check_choices, global_content
from dlx.config.errors import ConfigError, Problem, UserError
from dlx.config.groups import GROUPS, conf_path, option_file, option_roots, package_folders, picked
from dlx.config.keys import short_key
from dlx.config.overrides import Overrides, Value, parse
from dlx.config.root import ROOT, default_root
from dlx.config.yaml import FORMAT, dump_yaml, read_yaml

REQUIRED = ("optimizer.lr", "seed", "output_root")
"""Keys that cannot be deleted: dlx would silently use the default of a class."""


@dataclass(frozen=True)
class Config:
    """A checked configuration: resolved, with all defaults, as plain data.

    values: by group. choices: the option of each group, from which `--from` composes. trust: packages that the command
    line allows. typed: the words of the command line, by key. Neither of the last two is ever stored.
    """

    values: dict[str, Any]
    choices: dict[str, Any]
    conf_dirs: tuple[Path, ...] = ()
    trust: tuple[str, ...] = ()
    typed: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def with_value(self, group: str, key: str, value: Any) -> Config:
        """A copy with another value of one key."""
        return replace(self, values={**self.values, group: {**self.values[group], key: value}})

    def without(self, group: str) -> Config:
        """A copy without the block and the choice of an optional group."""
        values = {name: value for name, value in self.values.items() if name != group}
        choices = {name: choice for name, choice in self.choices.items() if name != group}
        return replace(self, values=values, choices=choices)

    def to_yaml(self) -> str:
        return dump_yaml({"format": FORMAT, **self.values, "choices": self.choices})

    @classmethod
    def load(cls, path: Path | str, *, trust: Sequence[str] = ()) -> Config:
        """Reads a frozen configuration and checks it like a composed one: the file may come from anywhere."""
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path}: there is no such file")
        values = read_yaml(path)
        if not isinstance(values, dict) or not isinstance(values.get("choices"), dict):
            raise UserError(f"{path}: not a configuration that dlx wrote (it has no `choices`)")
        choices = values.pop("choices")
        if values.pop("format", 0) not in range(FORMAT + 1):
            raise UserError(f"{path}: written by a newer dlx")
        for name, choice in choices.items():
            names = choice if isinstance(choice, list) else [choice]
            many = name in GROUPS and GROUPS[name].many
            if name not in GROUPS or many != isinstance(choice, list) or not all(isinstance(n, str) for n in names):
                raise ConfigError([Problem(f"choices.{name}", f"{choice!r} cannot be chosen", str(path))])
        experiment = values.get("experiment")
        if isinstance(experiment, dict) and str(experiment.get("_target_")).startswith("dlx.experiments."):
            # The package's name in folders from before it was dlx.claims.
            experiment["_target_"] = experiment["_target_"].replace(".experiments.", ".claims.", 1)
        checker = Checker(values, choices, {}, (), trust, origin=str(path))
        checker.check()
        if checker.problems:
            raise ConfigError(checker.problems)
        return cls(checker.values, choices, (), tuple(trust))


def compose(
    overrides: Sequence[str],
    *,
    conf_dirs: Sequence[Path | str] = (),
    trust: Sequence[str] = (),
    base: Config | None = None,
) -> Config:
    """Composes the configuration of some overrides. Raises ConfigError with all mistakes at once.

    base: a frozen configuration to start from (`--from RUN`); it keeps the blocks of groups that are not chosen again.
    """
    if base:
        conf_dirs, trust = conf_dirs or base.conf_dirs, trust or base.trust
    folders = {f"--conf-dir {folder}": Path(folder) for folder in conf_dirs}
    for owner, folder in folders.items():
        if not folder.is_dir():
            raise UserError(f"{owner}: there is no such folder")
    folders |= {f"package {name}": folder for name, folder in package_folders().items()}
    for owner, folder in folders.items():
        for file in (path for group in GROUPS for path in sorted((folder / group).rglob("*.yaml"))):
            option = file.relative_to(folder)
            # Hydra would take the shipped one, and nobody would notice.
            if (conf_path() / option).is_file():
                raise UserError(f"{owner}: {option} has the name of a shipped option; rename it")
    typed, problems = parse(overrides)
    misnamed = check_choices(typed.choices, conf_dirs)
    if problems or misnamed:
        wrong = {problem.key for problem in misnamed}
        rest = replace(typed, choices={name: choice for name, choice in typed.choices.items() if name not in wrong})
        raise ConfigError([*problems, *misnamed, *_further_problems(rest, wrong, conf_dirs, trust, base)])
    return _compose(typed, conf_dirs, trust, base)


def _further_problems(
    typed: Overrides, wrong: set[str], conf_dirs: Sequence[Path | str], trust: Sequence[str], base: Config | None
) -> list[Problem]:
    """Other problems. Keys of a group whose option is unknown are skipped: they cannot be checked."""
    try:
        _compose(typed, conf_dirs, trust, base)
    except ConfigError as error:
        picked = set(GROUPS) - {*typed.choices, "trainer"} if wrong & {"model", "experiment"} else wrong
        return [problem for problem in error.problems if problem.key.partition(".")[0] not in picked]
    return []


def _compose(typed: Overrides, conf_dirs: Sequence[Path | str], trust: Sequence[str], base: Config | None) -> Config:
    chosen: dict[str, Any] = {name: choice for name, choice in typed.choices.items() if choice is not None}
    if base:
        kept = {name: choice for name, choice in base.choices.items() if name not in ("experiment", *chosen)}
        # A file's choices are checked like typed ones, before they reach Hydra.
        if chosen and (problems := check_choices(kept, conf_dirs)):
            raise ConfigError(problems)
        values, choices = _compose_choices({**kept, **chosen}, conf_dirs) if chosen else (base.values, base.choices)
        values = _onto(base, values, set(chosen), choices, conf_dirs)
    else:
        values, choices = _compose_choices(chosen, conf_dirs)
        if values.get("output_root") == ROOT:  # no file sets another
            values["output_root"] = default_root()
    values = copy.deepcopy(values)
    problems = _set_values(values, typed.values)
    if problems:
        raise ConfigError(problems)
    raw = {value.key: value.raw for value in typed.values if not value.delete}
    checker = Checker(values, choices, raw, conf_dirs, trust)
    checker.check()
    if checker.problems:
        raise ConfigError(checker.problems)
    words = {name: f"{short_key(name)}={_written(choice)}" for name, choice in typed.choices.items()}
    words |= {value.key: value.argument for value in typed.values}
    words = {**(base.typed if base else {}), **words}
    return Config(checker.values, choices, tuple(Path(d).absolute() for d in conf_dirs), tuple(trust), words)


def _written(choice: Any) -> str:
    return f"[{','.join(choice)}]" if isinstance(choice, list) else "null" if choice is None else str(choice)


def _compose_choices(chosen: dict[str, Any], conf_dirs: Sequence[Path | str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values and choices as Hydra composes them. Hydra's global state is empty before and after."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from dlx.config.source import searching

    words = [f"{name}={_written(choice)}" for name, choice in chosen.items()]
    GlobalHydra.instance().clear()
    try:
        with searching(option_roots(conf_dirs)[:-1]), initialize_config_dir(str(conf_path()), version_base="1.3"):
            composed = hydra_compose("config", overrides=words, return_hydra_config=True)
        runtime = OmegaConf.to_container(composed.hydra.runtime.choices, resolve=False)
        OmegaConf.set_struct(composed, False)
        del composed["hydra"]
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except (HydraException, OmegaConfBaseException) as error:
        key = getattr(error, "full_key", None) or "configuration"
        text = " ".join(str(error).split()).split(" full_key:")[0]
        raise ConfigError([Problem(key, text)]) from None
    finally:
        GlobalHydra.instance().clear()
    assert isinstance(runtime, dict)
    assert isinstance(values, dict)
    choices = {str(name): choice for name, choice in runtime.items() if name in GROUPS and choice is not None}
    # Hydra does not report its choices for a group of several options.
    experiment = choices.get("experiment")
    recipe = option_file("experiment", experiment, conf_dirs) if experiment else None
    for name, group in GROUPS.items():
        if group.many:
            choices[name] = list(chosen.get(name, picked(recipe, name)))
    if recipe:
        _replace_parts(values, read_yaml(recipe) or {})
    return {str(key): value for key, value in values.items()}, choices


def _replace_parts(values: dict[Any, Any], recipe: dict[str, Any]) -> None:
    """A part that a recipe names is as the recipe has it: the keys of the model's own are of another option."""
    for group, block in recipe.items():
        for key, part in block.items() if group in GROUPS and isinstance(block, dict) else ():
            merged = (values.get(group) or {}).get(key)
            if isinstance(part, dict) and "name" in part and isinstance(merged, dict):
                values[group][key] = {name: value for name, value in merged.items() if name in part}


def _onto(
    base: Config, values: dict[str, Any], chosen: set[str], choices: dict[str, Any], conf_dirs: Sequence[Path | str]
) -> dict[str, Any]:
    """The base's blocks, with new blocks for the groups in `chosen`."""
    merged = copy.deepcopy(base.values)
    recipe = "experiment" in chosen
    for name, group in GROUPS.items():
        if name == "experiment" or (name not in chosen and not recipe):
            continue
        if not group.many:
            merged[name] = values[name]
            continue
        before = merged.get(name) or {}
        merged[name] = {key: before.get(key, block) for key, block in (values.get(name) or {}).items()}
        for option in set(choices.get(name, ())) - set(base.choices.get(name, ())):
            for target, content in global_content(name, option, conf_dirs).items():
                merged[target] = {**merged[target], **content} if isinstance(content, dict) else content
    return merged


def _set_values(values: dict[str, Any], typed: list[Value]) -> list[Problem]:
    """Sets or deletes dotted keys in place. Interpolations are resolved against all values."""
    problems = []
    for item in typed:
        *parents, last = item.key.split(".")
        node = values
        for number, part in enumerate(parents):
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
            if not isinstance(node, dict):
                problems.append(Problem(item.key, f"{'.'.join(parents[: number + 1])} is a value and has no keys"))
                break
        else:
            if item.delete:
                if item.key in REQUIRED:
                    problems.append(
                        Problem(item.key, f"is required and cannot be deleted; give {short_key(item.key)}=...")
                    )
                elif last not in node:
                    problems.append(Problem(item.key, "cannot be deleted: it is not there"))
                node.pop(last, None)
            elif isinstance(item.value, str) and "${" in item.value:
                problems += _interpolate(values, node, last, item)
            else:
                node[last] = item.value
    return problems


def _interpolate(values: dict[str, Any], node: dict[str, Any], last: str, item: Value) -> list[Problem]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    node[last] = item.value
    try:
        node[last] = OmegaConf.select(OmegaConf.create(values), item.key)
    except OmegaConfBaseException as error:
        return [Problem(item.key, f"{item.value} cannot be resolved: {str(error).splitlines()[0]}")]
    return []
