"""Replaces secrets by *** in everything that leaves the machine: environment.json, reports, Weights & Biases.

config.yaml stays exact, since the run is reproduced from it (SECURITY.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

HIDDEN = "***"

_NAMES = "(?:api|access|private|secret)[_-]?key|secret|password|passwd|passphrase|token|credentials?"
_SECRET_NAME = re.compile(rf"(?:^|[_.-])(?:{_NAMES})$", re.IGNORECASE)
_ASSIGNED = re.compile(  # api_key=..., --token=..., password: ...
    rf"(?<![A-Za-z0-9])((?:[\w.-]*[_.-])?(?:{_NAMES})\s*[=:]\s*)(?!\*\*\*)([^\s,;&'\"\]}})]+)", re.IGNORECASE
)
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s:]*:(?!\*\*\*@|…@)[^/@\s]*(?=@)")
_LOGIN = re.compile(r"(?<![\w.+~/-])([\w.+~%-]+):(?!\*\*\*@|…@|//)[^\s/@:'\"]+(?=@[\w\[])")
# A prefix that a service gives its keys, with more behind it than a word has: a digit among it, or its length.
_KEY = re.compile(
    r"""(?<![A-Za-z0-9])(?:
      sk-(?=[\w-]*\d)[\w-]{8,} | sk-[\w-]{24,}                       # OpenAI, Anthropic and others
    | (?:gh[pousr]_|github_pat_|glpat-)[A-Za-z0-9_-]{8,}             # GitHub, GitLab
    | hf_(?=[A-Za-z]*\d)[A-Za-z0-9]{8,} | hf_[A-Za-z]{20,}           # Hugging Face
    | (?:AKIA|ASIA)[A-Z0-9]{8,}                                      # Amazon
    | xox[abeoprs]-[A-Za-z0-9-]{8,}                                  # Slack
    | AIza[A-Za-z0-9_-]{16,}                                         # Google
    )""",
    re.VERBOSE,
)


def is_secret_name(name: str) -> bool:
    """True for the name of a secret, such as api_key or tracker.wandb.token."""
    return bool(_SECRET_NAME.search(name))


def mask(text: str) -> str:
    """The text with API keys, passwords in URLs, and values assigned to a secret's name (`token=...`) as ***."""
    if ":" in text or "=" in text:
        text = _URL_LOGIN.sub(HIDDEN, text)
        text = _LOGIN.sub(rf"\1:{HIDDEN}", text)
        text = _ASSIGNED.sub(rf"\1{HIDDEN}", text)
    return _KEY.sub(HIDDEN, text)


def masked(value: Any) -> Any:
    """Plain data with every string masked, and every string under a secret's name replaced."""
    if isinstance(value, dict):
        return {
            key: HIDDEN if item and isinstance(item, str) and is_secret_name(str(key)) else masked(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [masked(item) for item in value]
    return mask(value) if isinstance(value, str) else value


def masked_command(words: Sequence[str]) -> list[str]:
    """The words of a command, masked; also the second word of `--token X`."""
    found = []
    for before, word in zip(["", *words], words, strict=False):
        named = before.startswith("-") and "=" not in before and is_secret_name(before.lstrip("-"))
        found.append(HIDDEN if named else mask(word))
    return found
