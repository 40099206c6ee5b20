"""A comparison as one web page, with a sortable table and interactive curves."""

from __future__ import annotations

import html
from typing import Any

import numpy as np

from dlx.runs import page
from dlx.runs.compare import MAX_CURVES, Comparison, curve_panels
from dlx.runs.curves import Band
from dlx.runs.draw import AXIS_NAMES, COLOURS, DASHES, FEW, ON_DARK, edges, is_log
from dlx.runs.mask import mask
from dlx.runs.page import Content, Html, tag
from dlx.runs.tables import Column, columns_of, summary_rows

PLOTLY_DASHES = dict(zip(DASHES, ("solid", "dash", "dot", "dashdot"), strict=True))

DRAW = """
const data = JSON.parse(document.getElementById("charts").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
function draw() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const grey = colour("--line");
  const line = {gridcolor: grey, linecolor: grey, zerolinecolor: grey, automargin: true};
  for (const chart of data) {
    const traces = chart.traces.map(({colours, ...trace}) => {
      const own = colours[dark.matches ? 1 : 0];
      return {...trace, line: {...trace.line, color: own}, ...(trace.fill ? {fillcolor: own + "2e"} : {})};
    });
    Plotly.react(chart.id, traces, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {color: colour("--text"), size: 12},
      margin: {l: 56, r: 16, t: 32, b: 44}, hoverlabel: {namelength: -1},
      modebar: {bgcolor: "rgba(0,0,0,0)", color: colour("--soft"), activecolor: colour("--accent")},
      legend: {orientation: "h", y: -0.18}, showlegend: traces.length > 1,
      xaxis: {...line, title: {text: chart.x}}, yaxis: {...line, title: {text: chart.y}, type: chart.scale},
    }, {responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"]});
  }
}
draw();
dark.addEventListener("change", draw);
"""


def comparison_table(comparison: Comparison, *, sortable: bool = False) -> Html:
    if len(comparison.rows) == 1:
        return page.pairs(summary_rows(comparison))
    columns = columns_of(comparison)

    def cell(column: Column, number: int) -> Content:
        text, row = str(column.cells[number]), comparison.rows[number]
        if column.kind == "status":
            return tag("span", text, class_=text if row.count == 1 else None)
        return tag("span", text, class_="best") if number in column.best else text

    rows = [[cell(column, number) for column in columns] for number in range(len(comparison.rows))]
    numbers = [i for i, column in enumerate(columns) if column.is_number]
    return page.table([column.name for column in columns], rows, numbers, sortable=sortable)


def comparison_page(comparison: Comparison, title: str, axis: str = "step") -> str:
    panels = curve_panels(comparison, comparison.curve_metrics, axis)
    labels = [row.label for row in comparison.rows]
    drawn = list(panels.items())
    charts = [
        {
            "id": f"chart-{i}",
            "x": AXIS_NAMES[axis],
            "y": plain(name),
            "traces": traces(name, found, labels),
            "scale": "log" if is_log(name, found) else "linear",
        }
        for i, (name, found) in enumerate(drawn)
    ]
    body = [
        tag("h1", title),
        tag("p", describe(comparison), class_="soft"),
        tag("h2", "Results"),
        comparison_table(comparison, sortable=True),
        *([tag("h2", "Curves")] if drawn else []),
        *([tag("p", f"Of the first {MAX_CURVES} rows.", class_="soft")] if len(labels) > MAX_CURVES else []),
        *(
            page.join([tag("h3", name), tag("div", id=f"chart-{i}", class_="chart")])
            for i, (name, _) in enumerate(drawn)
        ),
        tag("h2", "Runs"),
        page.table(
            ["run", "status", "tags", "note"],
            [
                [
                    entry.name,
                    tag("span", entry.status, class_=entry.status),
                    " ".join(entry.notes.tags),
                    entry.notes.notes,
                ]
                for entry in comparison.entries
            ],
        ),
        *([page.data_block("charts", charts)] if drawn else []),
    ]
    scripts = [page.SORT, *([page.plotly_script("--html"), DRAW] if drawn else [])]
    return page.page(title, page.join(body, "\n"), scripts)


def describe(comparison: Comparison) -> str:
    """A sentence on the table: how many runs and groups, and what ± means."""
    runs = len(comparison.entries)
    text = f"{runs} run{'s' if runs != 1 else ''}"
    if comparison.is_grouped:
        text += f" in {len(comparison.rows)} groups" if len(comparison.rows) > 1 else ", repeats of each other"
        text += "; mean ± standard deviation over repeats, bands are one deviation"
    if len(comparison.rows) > 1 and any(comparison.best.values()):
        text += "; the best of each metric stands out"
    return text + "."


def traces(metric: str, found: dict[str, Band], labels: list[str]) -> list[dict[str, Any]]:
    """The plotly traces of a metric's curves and bands. `colours`: on a light and on a dark page."""
    log = is_log(metric, found)
    drawn: list[dict[str, Any]] = []
    for label, band in found.items():
        number = labels.index(label)
        colour, dash = number % len(COLOURS), DASHES[number // len(COLOURS) % len(DASHES)]
        common = {
            "x": _list(band.x), "name": plain(label), "legendgroup": str(number), "type": "scatter",
            "colours": [COLOURS[colour], ON_DARK[colour]],
        }  # fmt: skip
        if np.any(band.count > 1):
            low, high = edges(band, log=log)
            edge = {**common, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
            drawn += [{**edge, "y": _list(low)}, {**edge, "y": _list(high), "fill": "tonexty"}]
        points = {"mode": "lines+markers", "marker": {"size": 5}} if len(band.x) <= FEW else {"mode": "lines"}
        drawn.append({**common, "y": _list(band.mean), "line": {"dash": PLOTLY_DASHES[dash]}, **points})
    return drawn


def plain(text: str) -> str:
    """Masked and escaped: plotly interprets some tags and entities in its texts."""
    return html.escape(mask(text))


def _list(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]
