"""What can be chosen: the groups, their short names, and the option files under `conf/`."""

from __future__ import annotations

import difflib
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
    "method": Group("dlx.methods.method.Method", optional=True),
    # A recipe over the other groups, which has no block of its own, or a claim that is looked into by several runs.
    "experiment": Group("dlx.experiments.experiment.Experiment", optional=True),
}
SHORT_NAMES = {"optim": "optimizer", "data": "dataset", "reg": "regularization"}


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean X?`, or nothing."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def group_name(name: str) -> str:
    """A group by its name or short name. Raises UserError with the nearest."""
    name = SHORT_NAMES.get(name, name)
    if name not in GROUPS:
        raise UserError(f"{name}: no such group{nearest(name, [*GROUPS, *SHORT_NAMES])} Groups: {', '.join(GROUPS)}")
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
    """How messages name a file: shipped ones as conf/..."""
    try:
        return str(Path("conf") / path.relative_to(conf_path()))
    except ValueError:
        return str(path)


def _description(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return ""
        if not line.startswith("# @package"):
            return line.lstrip("# ").strip()
    return ""


def options(group: str, conf_dirs: Sequence[Path | str] = ()) -> dict[str, str]:
    """Names of a group's options (`recipe/x` too) with the first line of what their file says."""
    found: dict[str, str] = {}
    for root in (*map(Path, conf_dirs), conf_path()):
        for path in sorted((root / group).rglob("*.yaml")):
            name = path.relative_to(root / group).with_suffix("").as_posix()
            found.setdefault(name, _description(path))
    return dict(sorted(found.items(), key=lambda item: ("/" in item[0], item[0])))
