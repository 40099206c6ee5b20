"""What can be chosen: the groups, their short names, and the option files under `conf/`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dlx
from dlx.config.errors import UserError


@dataclass(frozen=True)
class Group:
    """One folder under conf/.

    base: the class that what an option names must inherit; given: constructor arguments that dlx supplies;
    shared: a class whose constructor arguments are further keys of the block; many: several options at once; optional:
    there may be no block.
    """

    base: str = ""
    given: tuple[str, ...] = ()
    shared: str | None = None
    many: bool = False
    optional: bool = False


GROUPS = {
    "model": Group("dlx.tasks.system.System", given=("spec",)),
    "dataset": Group("dlx.data.dataset.Dataset", shared="dlx.data.view.View"),
    "optimizer": Group("torch.optim.optimizer.Optimizer", given=("params",), shared="dlx.optim.build.Grouping"),
    "scheduler": Group("dlx.optim.schedules.Schedule"),
    "regularization": Group("dlx.regularization.regularizer.Regularizer", many=True),
    "trainer": Group("dlx.training.trainer.Trainer"),
    "tracker": Group("dlx.tracking.tracker.Tracker", many=True),
    # Several trainings with one answer, made from what the other groups say.
    "method": Group("dlx.sweeps.method.Method", optional=True),
    # A recipe over the other groups, which has no block of its own, or a claim that is looked into by several runs.
    "experiment": Group("dlx.claims.claim.Claim", optional=True),
}
SHORT_NAMES = {"optim": "optimizer", "data": "dataset", "reg": "regularization"}


def short_name(group: str) -> str:
    """`reg` of `regularization`; of a group that has none its name."""
    return next((short for short, long in SHORT_NAMES.items() if long == group), group)


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean X?`, or nothing."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def group_name(name: str) -> str:
    """A group by its name or short name. Raises UserError with the nearest."""
    name = SHORT_NAMES.get(name, name)
    if name not in GROUPS:
        near = nearest(name, [*GROUPS, *SHORT_NAMES])
        raise UserError(f"{name}: there is no such group{near or ';'} Groups: {', '.join(GROUPS)}")
    return name


def conf_path() -> Path:
    """The shipped options: inside an installed dlx, beside it in a checkout."""
    package = Path(dlx.__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def option_file(group: str, option: str, conf_dirs: Sequence[Path | str] = ()) -> Path | None:
    """The file of an option; a folder of the person's own comes before the shipped one."""
    for root in (*map(Path, conf_dirs), conf_path()):
        path = root / group / f"{option}.yaml"
        if path.is_file():
            return path
    return None


def shown(path: Path) -> str:
    """How messages name a file: shipped ones as conf/..., those below the current directory by their path in it."""
    for start, root in ((Path("conf"), conf_path()), (Path(), Path.cwd())):
        if path.is_relative_to(root):
            return str(start / path.relative_to(root))
    return str(path)


_PACKAGE = re.compile(r"#\s*@package:?\s+(\S+)\s*")


def package_of(text: str) -> str | None:
    """What the line `# @package X` among a file's first comments says."""
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            return None
        if found := _PACKAGE.fullmatch(line.strip()):
            return found[1]
    return None


def _description(path: Path) -> str:
    """The first paragraph of the comment that a file begins with, without the commands below it."""
    from dlx.config.yaml import read_text

    try:
        lines = read_text(path).splitlines()
    except UserError as error:  # one file hides no other
        return str(error).removeprefix(f"{path}, ").removeprefix(f"{path}: ")
    said: list[str] = []
    for line in lines:
        if _PACKAGE.fullmatch(line.strip()):
            continue
        text = line[1:] if line.startswith("#") else ""
        if not text.strip() or text.startswith("   "):
            if said or not line.startswith("#"):
                break
            continue
        said.append(text.strip("# "))
    return " ".join(said)


def option_names(group: str, conf_dirs: Sequence[Path | str] = ()) -> list[str]:
    """A group's options, those in folders of their own (`recipe/x`) last."""
    found = {
        path.relative_to(root / group).with_suffix("").as_posix()
        for root in (*map(Path, conf_dirs), conf_path())
        for path in (root / group).rglob("*.yaml")
        if path.is_file()
    }
    return sorted(found, key=lambda name: ("/" in name, name))


def options(group: str, conf_dirs: Sequence[Path | str] = ()) -> dict[str, str]:
    """Names of a group's options with what their files say of them."""
    found = {}
    for name in option_names(group, conf_dirs):
        path = option_file(group, name, conf_dirs)
        found[name] = _description(path) if path else ""
    return found
