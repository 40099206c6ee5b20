"""Tables on stdout: coloured and cut to the width of a terminal, complete and plain in a pipe."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import typer

from dlx.cli.output import say, table

if TYPE_CHECKING:
    from rich.console import Console

WIDEST = 44
NARROWEST = 12
STATUS_STYLES = {
    "finished": "green", "running": "cyan", "pruned": "dim", "failed": "red", "diverged": "red", "lost": "yellow",
    "interrupted": "yellow",
}  # fmt: skip


class Cell(NamedTuple):
    """style: as rich names it, such as `bold green`."""

    text: str
    style: str = ""


def console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def printable(text: str) -> str:
    """The text on one line, without control characters: names and notes come from elsewhere."""
    return "".join(char if char.isprintable() else "\ufffd" if char != "\n" else " " for char in text)


def show_table(rows: Sequence[Sequence[Cell]], header: Sequence[str], optional: Collection[int] = ()) -> None:
    """optional: columns that a narrow terminal may leave out, the last first; stderr then names them."""
    rows = [[Cell(printable(cell.text), cell.style) for cell in row] for row in rows]
    header = [printable(name) for name in header]
    screen = console()
    if not screen.is_terminal:
        typer.echo(table([[cell.text for cell in row] for row in rows], list(header)))
        return
    widths = [min(WIDEST, max([len(name), *(len(row[i].text) for row in rows)])) for i, name in enumerate(header)]
    shown = list(range(len(header)))
    left_out = []
    for i in sorted(optional, reverse=True):
        if _total(widths, shown) > screen.width:
            shown.remove(i)
            left_out.append(header[i])
    while _total(widths, shown) > screen.width and max(widths[i] for i in shown) > NARROWEST:
        widest = max(shown, key=lambda i: widths[i])
        widths[widest] -= 1
    _print([[Cell(name, "bold") for name in header], *rows], shown, widths, screen)
    if left_out:
        say(f"not shown: {', '.join(reversed(left_out))} (a wider terminal shows them)", json=True)


def _print(lines: Sequence[Sequence[Cell]], shown: Sequence[int], widths: Sequence[int], screen: Console) -> None:
    from rich.text import Text

    for line in lines:
        text = Text()
        for i in shown:
            text.append(_cut(line[i].text, widths[i]).ljust(widths[i]), line[i].style)
            text.append("  ")
        text.rstrip()
        screen.print(text, no_wrap=True, overflow="ignore", crop=False)


def _total(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[i] + 2 for i in shown) - 2


def _cut(text: str, width: int) -> str:
    """Cuts a text in the middle: names differ at their ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
