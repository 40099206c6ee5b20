"""The course as conf/course.yaml has it: what its first lecture looks back on, and what each lecture shows."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cache
from typing import Any

from dlx.config.groups import conf_path, group_name, options
from dlx.config.yaml import read_yaml


@dataclass(frozen=True)
class Shown:
    """What one command shows. words: of the command line, such as `model=resnet`; the last is what it is about."""

    words: str

    @property
    def command(self) -> str:
        return f"dlx train {self.words}"

    @property
    def group(self) -> str:
        return group_name(self._word[0])

    @property
    def option(self) -> str:
        return self._word[1]

    @property
    def text(self) -> str:
        """What the option's file says of it."""
        return options(self.group).get(self.option, "")

    @property
    def _word(self) -> tuple[str, str]:
        group, _, option = shlex.split(self.words)[-1].partition("=")
        return group, option


@dataclass(frozen=True)
class Event:
    """A result of the field: its year, the name that the course gives it, and what shows it."""

    year: int
    name: str
    shows: Shown


@dataclass(frozen=True)
class Lecture:
    title: str
    shows: tuple[Shown, ...]


def history() -> list[Event]:
    return [Event(entry["year"], entry["name"], Shown(entry["shows"])) for entry in _course()["history"]]


def lectures() -> list[Lecture]:
    return [Lecture(entry["lecture"], tuple(map(Shown, entry["shows"]))) for entry in _course()["lectures"]]


@cache
def _course() -> dict[str, Any]:
    content: dict[str, Any] = read_yaml(conf_path() / "course.yaml")
    return content
