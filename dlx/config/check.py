"""Checks a composed configuration against the signatures of the classes that it names; reports all mistakes at once."""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlx.config.errors import ConfigError, Problem
from dlx.config.groups import (
    GROUPS,
    Group,
    nearest,
    option_file,
    option_names,
    package_of,
    params_of,
    shown_file,
)
from dlx.config.keys import SHORT_NAMES, flatten, short_key
from dlx.config.origin import is_typed, origin
from dlx.config.parts import GROUPS_OF_PARTS, Part, option_block, part_of
from dlx.config.root import ROOT
from dlx.config.signature import COMPUTED, REQUIRED, Param, accepted_specs, class_names, missing_entries, read
from dlx.config.types import Mismatch, convert
from dlx.config.yaml import read_text, read_yaml

TOP_LEVEL = {
    "seed": Param("seed", ast.Name("int"), 0),
    "name": Param("name", ast.parse("str | None", mode="eval").body, None),
    "output_root": Param("output_root", ast.Name("str"), ROOT),
}
ALLOWED = ("dlx", "torch.optim")


def is_allowed(target: str, trust: Sequence[str]) -> bool:
    """True if the class is in a package that configurations may name."""
    return any(target.startswith(f"{package}.") for package in (*ALLOWED, *trust))


def trust_here(trust: Sequence[str]) -> None:
    """Puts the current directory on the import path: the user's own package may be in it."""
    here = str(Path.cwd())
    if trust and here not in sys.path:
        sys.path.insert(0, here)


def refusal(target: str, trust: Sequence[str]) -> str:
    packages = ", ".join((*ALLOWED, *trust))
    return f"{target!r} is not in an allowed package ({packages}); --trust PKG allows one of yours"


class Checker:
    """Collects `problems`. `values` is the checked configuration: converted, with the signatures' defaults."""

    def __init__(
        self,
        raw_values: Mapping[str, Any],
        choices: Mapping[str, str | list[str]],
        typed: Mapping[str, str],
        conf_dirs: Sequence[Path | str],
        trust: Sequence[str],
        origin: str | None = None,
    ) -> None:
        self.input, self.choices, self.typed = raw_values, choices, typed
        self.conf_dirs, self.trust, self.origin = conf_dirs, trust, origin
        self.problems: list[Problem] = []
        self.values: dict[str, Any] = {}

    def check(self) -> None:
        trust_here(self.trust)
        for key, param in TOP_LEVEL.items():
            self.values[key] = self._convert(key, self.input.get(key, param.default), param, "conf/config.yaml")
        for name, group in GROUPS.items():
            block = self.input.get(name)
            if group.optional and block is None:
                continue
            if group.many:
                self.values[name] = self._check_many(name, group, block or {})
            elif not isinstance(block, dict) or "_target_" not in block:
                what = "has no settings" if group.optional else "needs an option"
                self._problem(name, f"{what}; {_available(name, self.conf_dirs)}")
            else:
                file = shown_file(name, self.choices.get(name), self.conf_dirs)
                self.values[name] = self._check_block(name, group, block, file)
        self._check_top()
        self._check_pair()

    def _check_top(self) -> None:
        known = [*TOP_LEVEL, *GROUPS]
        for key in self.input:
            if key in known:
                continue
            homes = [f"{name}.{key}" for name in GROUPS if key in (self.values.get(name) or {})]
            near = f"; did you mean {' or '.join(homes)}?" if homes else nearest(key, [*known, *SHORT_NAMES])
            self._problem(key, f"unknown key{near}", "conf/config.yaml")

    def _problem(self, key: str, message: str, file: str | None = None) -> None:
        self.problems.append(Problem(key, message, self.origin or file))

    def _check_many(self, name: str, group: Group, blocks: Any) -> dict[str, Any]:
        if not isinstance(blocks, dict):
            self._problem(name, f"takes options, got {blocks!r}")
            return {}
        checked = {}
        for key, block in blocks.items():
            if isinstance(block, dict) and "_target_" in block:
                checked[key] = self._check_block(f"{name}.{key}", group, block, shown_file(name, key, self.conf_dirs))
            elif key in option_names(name, self.conf_dirs):
                self._problem(f"{name}.{key}", f"is set, but {key} is not chosen; add {short_key(name)}=[{key}]")
            else:
                near = nearest(key, option_names(name, self.conf_dirs))
                self._problem(f"{name}.{key}", f"unknown option{near or ';'} {_available(name, self.conf_dirs)}")
        return checked

    def _check_block(self, key: str, group: Group, block: dict[str, Any], file: str | None) -> dict[str, Any]:
        target = block["_target_"]
        if not isinstance(target, str) or not is_allowed(target, self.trust):
            self._problem(f"{key}._target_", refusal(str(target), self.trust), file)
            return block
        signature = read(target)
        if signature is None:
            module, _, name = target.rpartition(".")
            self._problem(f"{key}._target_", f"there is no class {target}{nearest(name, class_names(module))}", file)
            return block
        if group.base not in signature.ancestors:
            base = group.base.rpartition(".")[2]
            self._problem(f"{key}._target_", f"{target} is not a subclass of {base}", file)
            return block
        params = params_of(group, signature)
        checked: dict[str, Any] = {"_target_": target}
        for name, value in block.items():
            if name == "_target_":
                continue
            if name not in params:
                self._unknown(key, name, target, list(params), file)
            elif (part := part_of(params[name])) is not None:
                checked[name] = self._check_parts(f"{key}.{name}", part, value, file)
            else:
                checked[name] = self._convert(f"{key}.{name}", value, params[name], file)
        if "players" in params and isinstance(block.get("players"), dict):
            self._check_players(key, group, block, file)
        for name, param in params.items():
            if name in checked or name in block:
                continue
            if param.default is REQUIRED:
                self._problem(f"{key}.{name}", f"is required by {target.rpartition('.')[2]}", file)
            elif param.default is not COMPUTED:
                default = param.default
                checked[name] = list(default) if isinstance(default, tuple) else default
        return checked

    def _check_parts(self, key: str, part: Part, value: Any, file: str | None) -> Any:
        """Checks the blocks of parts like the options of their groups."""
        if isinstance(value, list | tuple):
            return [self._check_parts(f"{key}.{number}", part, item, file) for number, item in enumerate(value)]
        if value is None:
            return None
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not ({"name", "_target_"} & set(value)):
            example = "resnet" if part.group == "model" else next(iter(option_names(part.group)), "")
            message = f"must name an option, such as {{name: {example}}}, got {value!r}"
            self._problem(key, message, self._owner(key, file))
            return value
        if f"{key}_from" in self.typed and any(typed == key or typed.startswith(f"{key}.") for typed in self.typed):
            self._problem(key, f"is given twice: {key}_from sets it too")
            return value
        if f"{key}.name" in self.typed:  # keys of another option do not stay
            value = {"name": value["name"], **{k: v for k, v in value.items() if f"{key}.{k}" in self.typed}}
        block = dict(value)
        if "_target_" not in block:
            try:
                given, file = option_block(part, str(block["name"]), key, self.conf_dirs)
            except ConfigError as error:
                self.problems += error.problems
                return value
            block = {**given, **block}
        name = {"name": block.pop("name")} if "name" in block else {}
        checked = self._check_block(key, replace(GROUPS_OF_PARTS[part.group], base=part.base), block, file)
        return {**name, **checked}

    def _check_players(self, key: str, group: Group, block: dict[str, Any], file: str | None) -> None:
        """Checks the settings of single players against their own `_target_`, else the common one."""
        for player, own in block["players"].items():
            path = f"{key}.players.{player}"
            if not isinstance(own, dict):
                self._problem(path, f"must be settings such as {{lr: 1e-3}}, got {own!r}", file)
                continue
            if "players" in own or "no_decay" in own:
                self._problem(path, "takes settings of the optimizer's class only", file)
                continue
            clip = {name: own[name] for name in ("clip_norm",) if name in own}
            rest = {name: value for name, value in own.items() if name not in clip}
            settings = self._check_block(path, group, {"_target_": block["_target_"], **rest}, file)
            block["players"][player] = {**{name: v for name, v in settings.items() if name in rest}, **clip}

    def _unknown(self, key: str, name: str, target: str, known: list[str], file: str | None) -> None:
        class_name = target.rpartition(".")[2]
        setter = self._set_by_regularization(f"{key}.{name}")
        if setter and f"{key}.{name}" not in self.typed:
            self._problem(f"{key}.{name}", f"{class_name} has no {name}, which {setter} sets", setter)
            return
        if name.startswith("_") and name.endswith("_"):
            self._problem(f"{key}.{name}", "is not a key of dlx", file)
            return
        self._problem(
            f"{key}.{name}",
            f"{class_name} has no such key{nearest(name, known) or ';'} it takes {', '.join(known)}",
            file,
        )

    def _set_by_regularization(self, key: str) -> str | None:
        """The file of the chosen regularization that sets a key of another group."""
        for name in self.choices.get("regularization") or ():
            if key in dict(flatten(global_content("regularization", name, self.conf_dirs))):
                return shown_file("regularization", name, self.conf_dirs)
        return None

    def _convert(self, key: str, value: Any, param: Param, file: str | None) -> Any:
        if value == "???":
            self._problem(key, f"has no default: give {short_key(key)}=...", file)
            return value
        for path, leaf in flatten(_numbered(value), key):
            if isinstance(leaf, float) and not math.isfinite(leaf):
                self._problem(path, f"must be finite, got {leaf}", self._owner(key, file))
                return value
            last = path.rpartition(".")[2]
            if last in ("_target_", "_partial_", "_args_", "_recursive_", "_convert_") and not (
                last == "_target_" and path.startswith("optimizer.players.")  # `_check_players` looks at it
            ):
                self._problem(path, f"a value cannot name a class ({leaf!r})", self._owner(key, file))
                return value
        try:
            return convert(value, param.annotation, self.typed.get(key))
        except Mismatch as mismatch:
            self._problem(key, str(mismatch), self._owner(key, file))
            return value

    def _owner(self, key: str, file: str | None) -> str | None:
        """The file and line that a value comes from; None if it was typed."""
        if is_typed(key, self.typed):
            return None
        return origin(key, self.choices, self.conf_dirs) or file

    def _check_pair(self) -> None:
        model, dataset = self.values.get("model"), self.values.get("dataset")
        if not model or not dataset:
            return
        held, accepted = read(dataset["_target_"]), accepted_specs(model["_target_"])
        spec = read(held.spec) if held and held.spec else None
        if spec is None or not spec.fields or not accepted:  # a plain Spec is checked once the data are there
            return
        offered = {**spec.fields, **({"proposals": "dlx.tasks.spec.Proposals"} if dataset.get("proposals") else {})}
        missing = [missing_entries(path, offered) for path in accepted]
        if all(missing):
            takes = " or ".join(path.rpartition(".")[2] for path in accepted)
            name = model["_target_"].rpartition(".")[2]
            holds = spec.path.rpartition(".")[2]
            least = ", ".join(sorted(missing, key=len)[0])
            data = self.choices.get("dataset")
            self._problem("model", f"{name} takes {takes}, but dataset {data} holds {holds} (it lacks {least})")


def _available(group: str, conf_dirs: Sequence[Path | str]) -> str:
    return f"Available options: {', '.join(option_names(group, conf_dirs)) or 'none'}"


def check_choices(choices: Mapping[str, str | list[str] | None], conf_dirs: Sequence[Path | str]) -> list[Problem]:
    """The problems of the command line's choices."""
    problems = []
    for group, choice in choices.items():
        names: list[Any] = choice if isinstance(choice, list) else [choice]
        if names == [None] and not (group in GROUPS and GROUPS[group].optional):
            problems.append(Problem(group, f"is required and cannot be null; {_available(group, conf_dirs)}"))
            continue
        if group not in GROUPS:
            problems.append(Problem(group, f"unknown group{nearest(group, list(GROUPS))}"))
            continue
        known = option_names(group, conf_dirs)
        for name in {name: None for name in names if names.count(name) > 1}:
            problems.append(Problem(group, f"{name} is given twice"))
        for name in names:
            if name is not None and name not in known:
                near = nearest(name, known)
                problems.append(
                    Problem(group, f"there is no option {name!r}{near or ';'} {_available(group, conf_dirs)}")
                )
    return problems


def global_content(group: str, option: str, conf_dirs: Sequence[Path | str]) -> dict[str, Any]:
    """The keys that an option sets in other groups (`# @package _global_`), without its defaults list."""
    path = option_file(group, option, conf_dirs)
    if path is None or package_of(read_text(path)) != "_global_":
        return {}
    return {key: value for key, value in (read_yaml(path) or {}).items() if key != "defaults"}


def _numbered(value: Any) -> Any:
    """The value with each list as a mapping from positions: `flatten` then reaches its items."""
    if isinstance(value, list | tuple):
        value = {str(number): item for number, item in enumerate(value)}
    return {key: _numbered(item) for key, item in value.items()} if isinstance(value, Mapping) else value
