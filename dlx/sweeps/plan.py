"""Plans: the frozen configurations of many runs, in a folder.

    plan.yaml            the members by name, with the values that differ between them
    plan/NAME.yaml       a member's whole configuration
    runs/NAME/           its run folder, once it started

All members are composed, checked and written before the first starts, so that an interrupted plan resumes unchanged. A
search and a chain choose later members by the results of earlier ones: each is added just before it starts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlx.config import Config
from dlx.config.errors import UserError, cause_of, reason_of
from dlx.config.monitor import Monitor
from dlx.config.yaml import dump_yaml, read_yaml
from dlx.runs.draw import Figure
from dlx.runs.files import inside, picture_bytes, write_atomic
from dlx.runs.find import MEMBERS
from dlx.runs.folder import RunFolder, load_frozen, slug
from dlx.training.distributed import world_size
from dlx.training.signals import Signals, exit_code, signal_of

SEARCH = "search.yaml"  # in a plan's folder: the settings of a search


class Interrupted(Exception):
    """A signal ended the plan; `code` is the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"interrupted (exit code {code})")
        self.code = code


class Ending:
    """Writes the end of a plan: the summary, then the status, then the figures. A failure of one is recorded in `lost`
    and in the status, and the others are still written."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.lost: list[str] = []
        self.outcome: tuple[str, str | None] = ("failed", "it did not come to its end")  # status and reason
        self._written: tuple[Any, ...] = ()

    def finish(self, summary: Mapping[str, Any], reason: str | None = None) -> None:
        with Signals():
            self.attempt("summary.json not written", lambda: self.folder.write_summary(dict(summary)))
            self.outcome = ("finished", reason)
            self.write()

    def draw(self, name: str, draw: Callable[[], Figure], folder: RunFolder | None = None) -> None:
        """Draws media/NAME.png of the plan's folder or another one. Call it after `finish`: it may fail."""
        folder = folder or self.folder

        def write() -> None:
            content = picture_bytes(draw())
            folder.inside("media").mkdir(exist_ok=True)
            write_atomic(folder.inside("media", f"{name}.png"), content)

        self.attempt(f"picture {name} not made", write)

    def attempt(self, failure: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:
            self.lost.append(f"{failure}: {cause_of(error)}")

    def write(self) -> None:
        """Writes the status, and the reason with what was lost, if they changed."""
        name, reason = self.outcome
        status = name, "; ".join(filter(None, [reason, *self.lost])) or None
        if status != self._written:
            self.attempt("status.json not written", lambda: self.folder.write_status(*status))
            self._written = status


@contextmanager
def track_status(folder: RunFolder) -> Iterator[Ending]:
    """Sets the status to running, and at the end to finished, interrupted or failed; releases the folder's lock.

    A signal raises Interrupted.
    """
    ending = Ending(folder)
    with Signals():
        with folder.released_on_error():
            folder.write_status("running")
        try:
            with Signals(raises=True):
                yield ending
        except (Interrupted, KeyboardInterrupt) as error:  # the latter while nothing trains
            stop = error if isinstance(error, Interrupted) else Interrupted(exit_code(signal_of(error)))
            ending.outcome = ("interrupted", str(stop))
            raise stop from None
        except BaseException as error:
            ending.outcome = ("failed", reason_of(error))
            raise
        finally:
            ending.write()
            ending.attempt("run.lock not released", folder.lock.release)


@dataclass(frozen=True)
class Plan:
    """path: the plan's folder, which exists. members: configurations by name, in the order in which they run.

    overrides: by member, the values that differ between members, for readers. metric: ranks the members, such as
    val/loss:min; None is the metric that they monitor.
    """

    path: Path
    members: dict[str, Config]
    overrides: dict[str, dict[str, Any]]
    metric: str | None = None

    @classmethod
    def write(
        cls,
        path: Path,
        members: Mapping[str, Config],
        overrides: Mapping[str, Any],
        metric: str | None = None,
    ) -> Plan:
        """Freezes the members; plan.yaml is written last, so that a plan is whole or absent."""
        inside(path, "plan").mkdir()
        plan = cls(path, {}, {}, metric)
        plan.add(members, overrides)
        return plan

    def add(self, members: Mapping[str, Config], overrides: Mapping[str, Any]) -> None:
        """Freezes further members."""
        for name, config in members.items():
            if not is_member_name(name):
                raise ValueError(f"a member's name must be a file name, got {name!r} ({slug(name)!r} is one)")
            write_atomic(inside(self.path, "plan", f"{name}.yaml"), config.to_yaml())
            self.members[name], self.overrides[name] = config, dict(overrides[name])
        write_atomic(self.path / "plan.yaml", dump_yaml({"metric": self.metric, "members": self.overrides}))

    @classmethod
    def load(cls, path: Path, *, trust: Sequence[str] = (), only: str | None = None) -> Plan:
        """Reads a plan, or one member of it. Raises UserError if plan.yaml is missing (the plan was cut off before it
        began), damaged, or lacks the member."""
        if not RunFolder(path).is_plan:
            raise UserError(f"{path}: no plan (it has no plan.yaml)")
        content = read_yaml(path / "plan.yaml")
        overrides = read_overrides(path / "plan.yaml", content.get("members") if isinstance(content, dict) else None)
        metric = content.get("metric")
        if metric is not None and not (isinstance(metric, str) and Monitor.find(metric)):
            raise UserError(f"{path / 'plan.yaml'}: metric must be such as val/loss:min")
        if only and only not in overrides:
            raise UserError(f"{path / 'plan.yaml'}: has no member {only}")
        names = [only] if only else list(overrides)
        members = {name: load_frozen(path / "plan" / f"{name}.yaml", trust=trust) for name in names}
        return cls(path, members, overrides, metric)

    def run(self, name: str) -> RunFolder:
        """The run folder of a member, which may not exist yet."""
        return RunFolder(self.path / MEMBERS / name)


def is_member_name(name: Any) -> bool:
    """Whether it is a plain file name: a point's name, or one with a method's short name behind it."""
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name) is not None


def read_overrides(path: Path, content: Any, allowed: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """The values by name of plan.yaml or points.yaml. allowed: names that are no folder names.

    Raises UserError for a damaged file, and for a name that would lead out of the folder: it may come from elsewhere.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a plan that dlx wrote")
    for name, values in content.items():
        if not is_member_name(name) and name not in allowed:
            raise UserError(f"{path}: {name!r} is not a folder name")
        if not isinstance(values, dict):
            raise UserError(f"{path}: {name} must be a mapping of keys to values")
    return content


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Sets an environment variable, which child processes inherit, and restores it."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def refuse_torchrun() -> None:
    """Raises UserError under torchrun: each process would write a plan of its own."""
    if world_size() > 1:
        raise UserError("a plan of many runs is started by one process, not under torchrun")
