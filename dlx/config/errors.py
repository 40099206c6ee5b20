"""The errors of a request: one clear line each, which says what to change."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """The text without control characters: torch colours some of its messages, and names come from elsewhere."""
    return _CONTROLS.sub("\ufffd", _ESCAPES.sub("", text))


LOST = 5  # exit code: done, but something was lost on the way


class UserError(Exception):
    """A request that cannot be met: one clear message, exit code 2, nothing written."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One mistake: the key, what is wrong with it, and the file that owns it."""

    key: str
    message: str
    file: str | None = None

    def __str__(self) -> str:
        where = f" ({self.file})" if self.file else ""
        return f"{self.key}: {self.message}{where}"


class ConfigError(UserError):
    """All mistakes of a configuration at once."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


def reason_of(error: BaseException) -> str:
    """The error as a status or a log says it."""
    return plain(str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}")


def cause_of(error: BaseException) -> str:
    """As `reason_of`; of the system's errors, such as a full disk, their own text alone."""
    return error.strerror if isinstance(error, OSError) and error.strerror else reason_of(error)


def first_line(error: BaseException) -> str:
    """The first line of an error's text; its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
