"""A comparison as one table of columns, and its writers: CSV for programs, Markdown and LaTeX for papers, JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dlx.runs.compare import Comparison, Row
from dlx.runs.config_diff import short_names
from dlx.runs.metric_info import spread_text


@dataclass(frozen=True)
class Column:
    """cells: one for each row. best: the rows, by number, that are the best of a metric."""

    name: str
    kind: Literal["run", "config", "count", "metric", "status"]
    cells: Sequence[object]
    best: frozenset[int] = frozenset()

    @property
    def is_number(self) -> bool:
        return self.kind in ("count", "metric")


def columns_of(comparison: Comparison, *, exact: bool = False) -> list[Column]:
    """The run or the keys, n if runs are grouped, the metrics, and the status unless all runs finished.

    exact: for programs. Always with the runs and the status, full keys and values; NAME_std and NAME_n beside a metric
    if runs are grouped.
    """
    rows, keys, grouped = comparison.rows, comparison.keys, comparison.is_grouped
    columns: list[Column] = []
    if exact:
        runs = [" ".join(entry.name for entry in row.entries) for row in rows]
        columns.append(Column("runs" if grouped else "run", "run", runs))
    elif not (grouped and keys):
        columns.append(Column("run", "run", [row.entries[0].name for row in rows]))
    for key, short in zip(keys, short_names(keys), strict=True):
        columns.append(Column(key if exact else short, "config", [row.text(key, exact=exact) for row in rows]))
    if grouped:
        columns.append(Column("n", "count", [str(row.count) for row in rows]))
    for name in comparison.metrics:
        found = [row.metrics.get(name) for row in rows]
        if exact:
            columns.append(Column(name, "metric", [stats.mean if stats else "" for stats in found]))
        else:
            columns.append(Column(name, "metric", [_metric_text(row, name) for row in rows], comparison.best[name]))
        if exact and grouped:
            columns.append(Column(f"{name}_std", "metric", [stats.std if stats else "" for stats in found]))
            columns.append(Column(f"{name}_n", "count", [len(stats.values) if stats else 0 for stats in found]))
    if exact or any(row.status != "finished" for row in rows):
        columns.append(Column("status", "status", [row.status for row in rows]))
    return columns


def as_csv(comparison: Comparison) -> str:
    columns = columns_of(comparison, exact=True)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([column.name for column in columns])
    writer.writerows(zip(*(map(_harmless, column.cells) for column in columns), strict=True))
    return file.getvalue()


def as_markdown(comparison: Comparison) -> str:
    """The best of each metric in bold."""
    columns = columns_of(comparison)
    lines = [[_markdown(column.name) for column in columns], ["---"] * len(columns)]
    for number in range(len(comparison.rows)):
        texts = [(_markdown(column.cells[number]), number in column.best) for column in columns]
        lines.append([f"**{text}**" if best else text for text, best in texts])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_latex(comparison: Comparison) -> str:
    """A tabular of the package booktabs, the best of each metric in bold."""
    columns = columns_of(comparison)
    alignment = "".join("r" if column.is_number else "l" for column in columns)
    names = " & ".join(_latex(column.name) for column in columns)
    lines = [f"\\begin{{tabular}}{{{alignment}}}", "\\toprule", rf"{names} \\", "\\midrule"]
    for number in range(len(comparison.rows)):
        texts = [(_latex(column.cells[number]), number in column.best) for column in columns]
        lines.append(" & ".join(f"\\textbf{{{text}}}" if best else text for text, best in texts) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def as_data(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON values."""
    return {
        "keys": list(comparison.keys),
        "metrics": list(comparison.metrics),
        "goals": comparison.goals,
        "best": {name: sorted(rows) for name, rows in comparison.best.items()},
        "rows": [
            {
                "label": row.label,
                "runs": [str(entry.path) for entry in row.entries],
                "status": {entry.name: entry.status for entry in row.entries},
                "n": row.count,
                "config": {key: row.value(key) for key in comparison.keys},
                "metrics": {name: vars(row.metrics[name]) for name in comparison.metrics if name in row.metrics},
            }
            for row in comparison.rows
        ],
    }


def _metric_text(row: Row, name: str) -> str:
    metric = row.metrics.get(name)
    if metric is None:
        return ""
    text = spread_text(metric.mean, metric.std)
    return text if len(metric.values) == row.count else f"{text} ({len(metric.values)} of {row.count})"


def _harmless(cell: object) -> object:
    """Quotes a text that a spreadsheet would take for a formula; numbers stay."""
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def _markdown(cell: object) -> str:
    text = str(cell)
    for mark in "\\`*_|[]<>":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "…": r"\ldots{}",
    "<": r"\textless{}", ">": r"\textgreater{}", **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}  # fmt: skip


def _latex(cell: object) -> str:
    return " ".join("".join(_LATEX.get(char, char) for char in str(cell)).split())


def summary_rows(comparison: Comparison) -> list[tuple[str, str]]:
    """The table of a comparison of one row: names and values of the status, the configuration and the metrics."""
    (row,) = comparison.rows
    chosen = [(key, row.text(key)) for key in comparison.keys if row.text(key)]
    metrics = [(name, _metric_text(row, name)) for name in comparison.metrics]
    reason = row.entries[0].reason
    status = f"{row.status}: {reason}" if reason and row.count == 1 else row.status
    return [("status", status), *chosen, *metrics]
