"""Printing: results on stdout, all else on stderr."""

from __future__ import annotations

import json
from typing import Any

import typer


def say(text: str, json: bool = False) -> None:
    """A line for a person, on stderr when stdout is kept for JSON."""
    typer.echo(text, err=json)


def print_json(value: Any) -> None:
    from dlx.runs.files import strict

    typer.echo(json.dumps(strict(value), allow_nan=False))


def table(rows: list[list[str]], header: list[str]) -> str:
    """Left-aligned columns; figures are given as text."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join(lines)
