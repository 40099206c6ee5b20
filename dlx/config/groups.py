"""The groups and their option files: shipped ones in `conf/`, the user's, and those of installed packages."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import dlx
from dlx.config.errors import UserError
from dlx.config.keys import SHORT_NAMES, long_key
from dlx.config.signature import Param, Signature, read
from dlx.config.yaml import read_text, read_yaml

ENTRY_POINTS = "dlx.conf"  # the group through which an installed package adds a folder of options


@dataclass(frozen=True)
class Group:
    """One folder of conf/.

    base: the class that an option's class must inherit. given: constructor arguments that dlx supplies. shared: a class
    whose constructor arguments are keys of every option. many: takes several options. optional: may have no block.
    """

    base: str = ""
    given: tuple[str, ...] = ()
    shared: str | None = None
    many: bool = False
    optional: bool = False


GROUPS = {
    "model": Group("dlx.tasks.system.System", given=("spec",)),
    "dataset": Group("dlx.data.dataset.Dataset", shared="dlx.data.splits.SplitSettings"),
    "optimizer": Group("torch.optim.optimizer.Optimizer", given=("params",), shared="dlx.optim.build.ParamGroups"),
    "scheduler": Group("dlx.optim.schedules.Schedule"),
    "regularization": Group("dlx.regularization.regularizer.Regularizer", many=True),
    "trainer": Group("dlx.training.trainer.Trainer"),
    "tracker": Group("dlx.tracking.tracker.Tracker", many=True),
    # Several trainings with one answer, made from what the other groups say.
    "method": Group("dlx.sweeps.method.Method", optional=True),
    # A recipe over the other groups, which has no block of its own, or a claim that is looked into by several runs.
    "experiment": Group("dlx.claims.claim.Claim", optional=True),
}


def closest(name: str, known: Sequence[str], cutoff: float = 0.5) -> str | None:
    """The known name that is most like `name`; None where none is like it by `cutoff` (0 to 1)."""
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=cutoff)), None)


def nearest(name: str, known: Sequence[str], cutoff: float = 0.5) -> str:
    """`; did you mean X?`, or nothing."""
    near = closest(name, known, cutoff)
    return f"; did you mean {near}?" if near else ""


def group_name(name: str) -> str:
    """A group by its name or short name. Raises UserError with the nearest."""
    group = long_key(name)
    if group not in GROUPS:
        near = nearest(name, [*GROUPS, *SHORT_NAMES])
        raise UserError(f"{name}: unknown group{near or ';'} groups: {', '.join(GROUPS)}")
    return group


def conf_path() -> Path:
    """The shipped options: inside an installed dlx, beside it in a checkout."""
    package = Path(dlx.__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


@cache
def package_folders() -> dict[str, Path]:
    """Folders of options in installed packages, by the packages' names. Nothing of a package is imported.

    A package names its folder by an entry point: `[project.entry-points."dlx.conf"]`, `my_pkg = "my_pkg.conf"`.
    Raises UserError for a folder that does not exist.
    """
    from importlib import metadata  # 10 ms, which `--help` does not need

    found = {}
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        top, *rest = entry.value.split(".")
        spec = importlib.util.find_spec(top)
        folders = [Path(location, *rest) for location in (spec.submodule_search_locations if spec else None) or ()]
        existing = [folder for folder in folders if folder.is_dir()]
        if not existing:
            raise UserError(f"package {entry.name}: entry point {ENTRY_POINTS} names {entry.value}, which is no folder")
        found[entry.name] = existing[0]
    return found


def option_roots(conf_dirs: Sequence[Path | str] = ()) -> list[Path]:
    """Where options are looked for, in this order: `conf_dirs`, installed packages, the shipped options."""
    return [*map(Path, conf_dirs), *package_folders().values(), conf_path()]


def option_file(group: str, option: str, conf_dirs: Sequence[Path | str] = ()) -> Path | None:
    """The file of an option, from the first of `option_roots` that has it."""
    paths = (root / group / f"{option}.yaml" for root in option_roots(conf_dirs))
    return next((path for path in paths if path.is_file()), None)


def shown(path: Path) -> str:
    """How messages name a file: shipped ones as conf/..., those below the current directory by their path in it."""
    for start, root in ((Path("conf"), conf_path()), (Path(), Path.cwd())):
        if path.is_relative_to(root):
            return str(start / path.relative_to(root))
    return str(path)


def shown_file(group: str, option: object, conf_dirs: Sequence[Path | str] = ()) -> str | None:
    """An option's file as messages name it; None if there is none."""
    path = option_file(group, str(option), conf_dirs)
    return shown(path) if path else None


_PACKAGE = re.compile(r"#\s*@package:?\s+(\S+)\s*")


def picked(path: Path | None, group: str) -> list[str]:
    """The options that a file's defaults list picks for a group."""
    content = read_yaml(path) if path else None
    entries = content.get("defaults") or () if isinstance(content, dict) else ()
    pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
    choices = {key.removeprefix("override ").lstrip("/"): choice for key, choice in pairs}
    choice = choices.get(group) or []
    return choice if isinstance(choice, list) else [choice]


def params_of(group: Group, signature: Signature | None) -> dict[str, Param]:
    """The keys of an option's block: those of its class that dlx does not supply, and those that all options share."""
    found = [each.params for each in (signature, read(group.shared or "")) if each]
    return {name: param for params in found for name, param in params.items() if name not in group.given}


def package_of(text: str) -> str | None:
    """X of the line `# @package X` among a file's first comments."""
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            return None
        if found := _PACKAGE.fullmatch(line.strip()):
            return found[1]
    return None


def _description(path: Path) -> str:
    """The first paragraph of a file's first comment, without the commands below it."""
    try:
        lines = read_text(path).splitlines()
    except UserError as error:  # one file hides no other
        return str(error).removeprefix(f"{path}, ").removeprefix(f"{path}: ")
    words: list[str] = []
    for line in lines:
        if _PACKAGE.fullmatch(line.strip()):
            continue
        text = line[1:] if line.startswith("#") else ""
        if not text.strip() or text.startswith("   "):
            if words or not line.startswith("#"):
                break
            continue
        words.append(text.strip("# "))
    return " ".join(words)


def option_names(group: str, conf_dirs: Sequence[Path | str] = ()) -> list[str]:
    """A group's options, those in folders of their own (`recipe/x`) last."""
    found = {
        path.relative_to(root / group).with_suffix("").as_posix()
        for root in option_roots(conf_dirs)
        for path in (root / group).rglob("*.yaml")
        if path.is_file()
    }
    return sorted(found, key=lambda name: ("/" in name, name))


def options(group: str, conf_dirs: Sequence[Path | str] = ()) -> dict[str, str]:
    """A group's options by name, with their descriptions."""
    names = option_names(group, conf_dirs)
    return {name: _description(path) for name in names if (path := option_file(group, name, conf_dirs))}
