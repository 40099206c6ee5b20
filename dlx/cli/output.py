"""Printing: results on stdout, all else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from dlx.config.errors import UserError, plain
from dlx.runs.files import encode_nonfinite, write_atomic

if TYPE_CHECKING:
    from dlx.runs.folder import RunFolder


def say(text: str, json: bool = False) -> None:
    """A line for a person, on stderr when stdout is kept for JSON."""
    typer.echo(plain(text), err=json)


def say_values(values: Mapping[str, object], json: bool = False) -> None:
    """Names and values in two columns."""
    width = max([14, *map(len, values)]) + 2
    for name, value in values.items():
        say(f"{name:<{width}}{value}", json)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(encode_nonfinite(value), allow_nan=False))


def write_output(option: str, file: str, content: str | bytes) -> None:
    """Writes a file that the user named, completely or not at all; replaces an old one. `-` is stdout."""
    data = content.encode() if isinstance(content, str) else content
    if file == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        write_atomic(Path(file).expanduser(), data)
    except OSError as error:
        raise UserError(f"{option} {file}: cannot be written ({error.strerror})") from None


def table(rows: list[list[str]], header: list[str]) -> str:
    """Left-aligned columns; numbers are given as text."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join(lines)


def save_medium(
    folder: RunFolder, name: str, medium: Any, json: bool, *, into: Path | None = None, word: str = "picture"
) -> str | None:
    """Writes a picture, text, curve, table or animation (dlx/runs/media.py), as `save_file` does."""
    from dlx.runs.media import encode

    suffix, content = encode(medium)
    return save_file(folder, f"{name}{suffix}", content, json, into=into, word=word)


def save_file(
    folder: RunFolder, name: str, content: bytes, json: bool, *, into: Path | None = None, word: str
) -> str | None:
    """Writes a file into the run's media/, or the folder `into`, whole or not at all; one of that name is replaced.
    Prints the word and its path, and returns the path.

    If the disk refuses, warns on stderr and returns None: the numbers are worth more, and the command ends with LOST.
    """
    path = folder.inside("media", name) if into is None else into / name
    try:
        path.parent.mkdir(parents=into is not None, exist_ok=True)
        write_atomic(path, content)
    except OSError as error:
        say(f"warning: {path} not written: {error.strerror}", json=True)
        return None
    say(f"{word:<16}{path}", json)
    return str(path)
