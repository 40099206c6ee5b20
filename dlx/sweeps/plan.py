"""Plan: frozen configurations on disk, each with the run folder that it becomes.

    plan.yaml            the members by name, each with what sets it apart
    plan/NAME.yaml       a member's whole configuration: what is run
    runs/NAME/           its run folder, once it started

All members are composed, checked and written before the first starts, so a plan that was cut off goes on as it began.
Only a search and a chain cannot know them: there each is added when it is asked for, before it starts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config import Config
from dlx.config.diff import changes
from dlx.config.errors import UserError, reason_of
from dlx.config.yaml import dump_yaml, read_yaml
from dlx.runs.files import inside, picture_bytes, write_atomic
from dlx.runs.find import MEMBERS
from dlx.runs.folder import RunFolder, load_frozen, slug
from dlx.training.signals import Signals, exit_code, signal_of
from dlx.training.world import world_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOST = 5  # exit code: done, but something was lost on the way


class Interrupted(Exception):
    """A signal ended the plan; `code` is the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"interrupted (exit code {code})")
        self.code = code


class Ending:
    """How a plan ends, in its folder: the summary, then the status, then the pictures. What fails of it is in `lost`,
    is said in the status, and stops none of the others."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.lost: list[str] = []
        self._status, self._reason = "failed", "it did not come to its end"
        self._written: tuple[Any, ...] = ()

    @property
    def reason(self) -> str | None:
        """What was not as it should be, and what was lost."""
        return "; ".join([*([self._reason] if self._reason else []), *self.lost]) or None

    def finish(self, summary: Mapping[str, Any], reason: str | None = None) -> None:
        with Signals():
            self.attempt("summary.json not written", lambda: self.folder.write_summary(dict(summary)))
            self.end("finished", reason)
            self.write()

    def draw(self, name: str, draw: Callable[[], Figure], home: RunFolder | None = None) -> None:
        """A picture in media/, of the plan or of another folder. After `finish`: a mistake in it costs nothing else."""
        folder = home or self.folder

        def write() -> None:
            content = picture_bytes(draw())
            folder.inside("media").mkdir(exist_ok=True)
            write_atomic(folder.inside("media", f"{name}.png"), content)

        self.attempt(f"picture {name} not made", write)

    def attempt(self, failure: str, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else text_of(error)
            self.lost.append(f"{failure}: {reason}")

    def end(self, status: str, reason: str | None) -> None:
        self._status, self._reason = status, reason or ""

    def write(self) -> None:
        """The status, unless it is written already."""
        told = self._status, self.reason
        if told != self._written:
            self.attempt("status.json not written", lambda: self.folder.write_status(*told))
            self._written = told


def text_of(error: BaseException) -> str:
    return reason_of(error)


@contextmanager
def told(folder: RunFolder) -> Iterator[Ending]:
    """The status of a plan's folder: running inside, then as the body ended it, or interrupted, or failed; its lock is
    released. A signal raises Interrupted."""
    ending = Ending(folder)
    with Signals():
        with folder.released_on_error():
            folder.write_status("running")
        try:
            with Signals(raises=True):
                yield ending
        except Interrupted as error:
            ending.end("interrupted", str(error))
            raise
        except KeyboardInterrupt as error:  # while nothing trains, where a signal sets a flag
            stop = Interrupted(exit_code(signal_of(error)))
            ending.end("interrupted", str(stop))
            raise stop from None
        except BaseException as error:
            ending.end("failed", text_of(error))
            raise
        finally:
            ending.write()
            ending.attempt("run.lock not released", folder.lock.release)


@dataclass(frozen=True)
class Plan:
    """path: the plan's folder, which exists. members: configurations by name, in the order in which they run.

    differs: what sets each member apart, for readers. metric: what the members are ranked by, such as val/loss:min;
    None is what they monitor.
    """

    path: Path
    members: dict[str, Config]
    differs: dict[str, dict[str, Any]]
    metric: str | None = None

    @classmethod
    def write(
        cls,
        path: Path,
        members: Mapping[str, Config],
        base: Config,
        differs: Mapping[str, Any] | None = None,
        metric: str | None = None,
    ) -> Plan:
        """Freezes the members; plan.yaml comes last, so that a plan is whole or absent.

        differs: None is what a member has otherwise than `base`.
        """
        inside(path, "plan").mkdir()
        plan = cls(path, {}, {}, metric)
        plan.add(members, differs or {name: changes(base, config) for name, config in members.items()})
        return plan

    def add(self, members: Mapping[str, Config], differs: Mapping[str, Any]) -> None:
        """Freezes further members."""
        for name, config in members.items():
            if not is_member_name(name):
                raise ValueError(f"a member's name is a file's: {name!r} is none ({slug(name)!r} would be)")
            write_atomic(inside(self.path, "plan", f"{name}.yaml"), config.to_yaml())
            self.members[name], self.differs[name] = config, dict(differs[name])
        write_atomic(self.path / "plan.yaml", dump_yaml({"metric": self.metric, "members": self.differs}))

    @classmethod
    def load(cls, path: Path, *, trust: Sequence[str] = (), only: str | None = None) -> Plan:
        """A plan that was written, or one member of it. Raises UserError where plan.yaml is not there (it was cut off
        before it began) or has no such member."""
        if not RunFolder(path).is_plan:
            raise UserError(f"{path}: no plan (it has no plan.yaml)")
        content = read_yaml(path / "plan.yaml")
        differs = content.get("members") if isinstance(content, dict) else None
        if not isinstance(differs, dict):
            raise UserError(f"{path / 'plan.yaml'}: not a plan that dlx wrote (it has no `members`)")
        for name, differing in differs.items():
            if not is_member_name(name):  # it would lead out of the folder; a plan may come from anywhere
                raise UserError(f"{path / 'plan.yaml'}: {name!r} is no member's name")
            if not isinstance(differing, dict):
                raise UserError(f"{path / 'plan.yaml'}: {name} does not say what sets it apart")
        metric = content.get("metric")
        if metric is not None and not (isinstance(metric, str) and metric.endswith((":min", ":max"))):
            raise UserError(f"{path / 'plan.yaml'}: metric is not such as val/loss:min")
        if only and only not in differs:
            raise UserError(f"{path / 'plan.yaml'}: has no member {only}")
        names = [only] if only else list(differs)
        members = {name: load_frozen(path / "plan" / f"{name}.yaml", trust=trust) for name in names}
        return cls(path, members, differs, metric)

    def run(self, name: str) -> RunFolder:
        """The run folder of a member, whether it is there yet or not."""
        return RunFolder(self.path / MEMBERS / name)


def is_member_name(name: Any) -> bool:
    """Whether it is a file's name that leads nowhere else: a point's name, and behind it what a method calls a run."""
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name) is not None


def check_alone() -> None:
    """Raises UserError under torchrun: each process would write a plan of its own."""
    if world_size() > 1:
        raise UserError("a plan of many runs is started by one process, not under torchrun")
