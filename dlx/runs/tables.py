"""A comparison as text for elsewhere: CSV for programs, Markdown and LaTeX for papers, plain data for JSON."""

from __future__ import annotations

import csv
import io
from typing import Any

from dlx.runs.compare import Comparison, Row
from dlx.runs.config_diff import short_names
from dlx.runs.metric_info import spread_text


def header(comparison: Comparison) -> list[str]:
    """run or the keys, n, the metrics, and status unless all are finished."""
    names = short_names(comparison.keys)
    return [
        *(["run"] if _by_name(comparison) else []),
        *names,
        *(["n"] if comparison.is_grouped else []),
        *comparison.metrics,
        *(["status"] if _tells_status(comparison) else []),
    ]


def cells(comparison: Comparison, number: int, *, sign: str = "±") -> list[tuple[str, bool]]:
    """The texts of a row, as `header` names them, each with whether it is the best of its column."""
    row = comparison.rows[number]
    figures = [(_figure(row, name, sign), number in comparison.best[name]) for name in comparison.metrics]
    before = [
        *([row.entries[0].name] if _by_name(comparison) else []),
        *(row.text(key) for key in comparison.keys),
        *([str(row.count)] if comparison.is_grouped else []),
    ]
    after = [row.status] if _tells_status(comparison) else []
    return [*((text, False) for text in before), *figures, *((text, False) for text in after)]


def config_columns(comparison: Comparison) -> range:
    """Where the configuration's columns are."""
    first = 1 if _by_name(comparison) else 0
    return range(first, first + len(comparison.keys))


def as_csv(comparison: Comparison) -> str:
    """Full precision; NAME_std and NAME_n beside a metric where runs are grouped."""
    grouped = comparison.is_grouped
    names = [name for metric in comparison.metrics for name in _with_spread(metric, grouped)]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["runs" if grouped else "run", *comparison.keys, *(["n"] if grouped else []), *names, "status"])
    for row in comparison.rows:
        figures: list[object] = []
        for metric in comparison.metrics:
            found = row.metrics.get(metric)
            spread = ("", "", 0) if found is None else (found.mean, found.std, len(found.values))
            figures += spread if grouped else spread[:1]
        texts = [_harmless(row.text(key, exact=True)) for key in comparison.keys]
        runs = _harmless(" ".join(entry.name for entry in row.entries))
        writer.writerow([runs, *texts, *([row.count] if grouped else []), *figures, row.status])
    return file.getvalue()


def as_markdown(comparison: Comparison) -> str:
    """The best in bold."""
    lines = [header(comparison), ["---"] * len(header(comparison))]
    written = [[_markdown(text) for text in lines[0]], lines[1]]
    for number in range(len(comparison.rows)):
        written.append(
            [f"**{_markdown(text)}**" if best else _markdown(text) for text, best in cells(comparison, number)]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in written)


def as_latex(comparison: Comparison) -> str:
    """A tabular of the package booktabs, the best in bold; mean ± std with $\\pm$."""
    names = header(comparison)
    first, after = len(config_columns(comparison)) + config_columns(comparison).start, len(comparison.metrics)
    counted = int(comparison.is_grouped)
    shape = "l" * first + "r" * (counted + after) + "l" * (len(names) - first - counted - after)
    lines = [f"\\begin{{tabular}}{{{shape}}}", "\\toprule", " & ".join(map(_latex, names)) + r" \\", "\\midrule"]
    for number in range(len(comparison.rows)):
        texts = [(_latex(text), best) for text, best in cells(comparison, number)]
        lines.append(" & ".join(f"\\textbf{{{text}}}" if best else text for text, best in texts) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def as_data(comparison: Comparison) -> dict[str, Any]:
    return {
        "keys": list(comparison.keys),
        "metrics": list(comparison.metrics),
        "goals": comparison.goals,
        "best": {name: sorted(rows) for name, rows in comparison.best.items()},
        "rows": [_row_data(comparison, row) for row in comparison.rows],
    }


def _row_data(comparison: Comparison, row: Row) -> dict[str, Any]:
    figures = {name: row.metrics[name] for name in comparison.metrics if name in row.metrics}
    return {
        "label": row.label,
        "runs": [str(entry.path) for entry in row.entries],
        "status": {entry.name: entry.status for entry in row.entries},
        "n": row.count,
        "config": {key: row.config[key] if key in row.config else row.text(key, exact=True) for key in comparison.keys},
        "metrics": {
            name: {"mean": found.mean, "std": found.std, "values": found.values} for name, found in figures.items()
        },
    }


def _by_name(comparison: Comparison) -> bool:
    """Whether rows are told apart by their runs' names."""
    return not comparison.is_grouped or not comparison.keys


def _tells_status(comparison: Comparison) -> bool:
    return any(row.status != "finished" for row in comparison.rows)


def _figure(row: Row, name: str, sign: str) -> str:
    found = row.metrics.get(name)
    if found is None:
        return ""
    text = spread_text(found.mean, found.std, sign=sign)
    return text if len(found.values) == row.count else f"{text} ({len(found.values)} of {row.count})"


def _with_spread(metric: str, grouped: bool) -> list[str]:
    return [metric, f"{metric}_std", f"{metric}_n"] if grouped else [metric]


def _harmless(text: str) -> str:
    """What a spreadsheet would take for a formula is made text; a number stays one."""
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
    return text


def _markdown(text: str) -> str:
    for mark in "\\`*_|[]<>":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "…": r"\ldots{}",
    "<": r"\textless{}", ">": r"\textgreater{}", **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}  # fmt: skip


def _latex(text: str) -> str:
    return " ".join("".join(_LATEX.get(char, char) for char in text).split())


def summary_rows(comparison: Comparison) -> list[tuple[str, str]]:
    """One row's table, name and value: what was chosen, then the metrics."""
    (row,) = comparison.rows
    chosen = [(key, row.text(key)) for key in comparison.keys if row.text(key)]
    figures = [(name, _figure(row, name, "±")) for name in comparison.metrics]
    reason = row.entries[0].reason
    status = f"{row.status}: {reason}" if reason and row.count == 1 else row.status
    return [("status", status), *chosen, *figures]
