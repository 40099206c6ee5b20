"""What a person did wrong, said in lines that they can act on."""

from __future__ import annotations

from dataclasses import dataclass


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
