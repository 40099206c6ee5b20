"""Plan: frozen configurations on disk, each with the run folder that it becomes.

    plan.yaml            the members by name, each with what sets it apart
    plan/NAME.yaml       a member's whole configuration: what is run
    runs/NAME/           its run folder, once it started

All members are composed, checked and written before the first starts, so a plan that was cut off goes on as it began.
Only a search and a chain cannot know them: there each is added when it is asked for, before it starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlx.config import Config
from dlx.config.changes import changes
from dlx.config.errors import UserError
from dlx.config.yaml import dump_yaml, read_yaml
from dlx.runs.files import write_atomic
from dlx.runs.find import MEMBERS
from dlx.runs.folder import RunFolder, slug


class Interrupted(Exception):
    """A signal ended the plan; `code` is the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"interrupted (exit code {code})")
        self.code = code


@contextmanager
def told(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """The status of a plan's folder: running inside, then finished (with a `reason` where the body sets one),
    interrupted or failed; its lock is released."""
    ending: dict[str, Any] = {"status": "failed", "reason": None}
    folder.write_status("running")
    try:
        yield ending
        ending["status"] = "finished"
    except Interrupted as error:
        ending |= {"status": "interrupted", "reason": str(error)}
        raise
    except KeyboardInterrupt:  # while nothing trains, which catches signals itself
        stop = Interrupted(130)
        ending |= {"status": "interrupted", "reason": str(stop)}
        raise stop from None
    except BaseException as error:
        ending |= {"reason": repr(error)}
        raise
    finally:
        folder.write_status(ending["status"], ending["reason"])
        folder.lock.release()


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
        (path / "plan").mkdir()
        plan = cls(path, {}, {}, metric)
        plan.add(members, differs or {name: changes(base, config) for name, config in members.items()})
        return plan

    def add(self, members: Mapping[str, Config], differs: Mapping[str, Any]) -> None:
        """Freezes further members."""
        for name, config in members.items():
            if name != slug(name):
                raise ValueError(f"a member's name is a file's: {name!r} is none ({slug(name)!r} would be)")
            write_atomic(self.path / "plan" / f"{name}.yaml", config.to_yaml())
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
        names = [only] if only else list(differs)
        for name in names:
            if name != slug(name):  # it would lead out of the folder; a plan may come from anywhere
                raise UserError(f"{path / 'plan.yaml'}: {name!r} is no member's name")
        members = {name: Config.load(path / "plan" / f"{name}.yaml", trust=trust) for name in names}
        return cls(path, members, differs, content.get("metric"))

    def run(self, name: str) -> RunFolder:
        """The run folder of a member, whether it is there yet or not."""
        return RunFolder(self.path / MEMBERS / name)


def check_alone() -> None:
    """Raises UserError under torchrun: each process would write a plan of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a plan of many runs is started by one process, not under torchrun")
