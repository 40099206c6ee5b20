"""Curves of several runs as a picture: the mean of repeats, and a band of one standard deviation around it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dlx.runs.metric_info import goal_of

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure
    from matplotlib.ft2font import FT2Font

    from dlx.runs.curves import Band
    from dlx.runs.media import Curve
else:
    Axes = Figure = Any  # other modules annotate with these; matplotlib is imported when something is drawn

# Okabe and Ito's colours, which those who do not see red or green tell apart, without the yellow that white hides.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f")
ON_DARK = ("#5db0ee", "#f08c4f", "#3fcf9c", "#e39cc8", "#a5d8f7", "#f2bd45", "#b0b0b0")
DASHES = ("-", "--", ":", "-.")
MAX_LABELS = 12
MAX_LETTERS = 40  # of a curve's title, axes and lines
LARGEST = 1e300  # number that matplotlib's axes can span
FEW = 15
LACKING = "\N{REPLACEMENT CHARACTER}"
DECADES = 50
DARK = {
    "text.color": "#e6e6e6", "axes.labelcolor": "#c9c9c9", "axes.edgecolor": "#6b6b6b", "xtick.color": "#c9c9c9",
    "ytick.color": "#c9c9c9", "grid.color": "#3a3a3a", "axes.facecolor": "none", "figure.facecolor": "none",
    "legend.facecolor": "#222222", "legend.edgecolor": "#444444",
}  # fmt: skip
LIGHT = {"grid.color": "#e3e3e3", "axes.edgecolor": "#9a9a9a", "figure.facecolor": "white"}
AXIS_NAMES = {"step": "step", "epoch": "epoch", "time": "time (s since 1970)", "relative": "time (s)"}


def subplots(rows: int = 1, columns: int = 1, *, size: tuple[float, float], **options: Any) -> tuple[Figure, Any]:
    """A figure of `size` inches and its axes, as pyplot.subplots gives them, without pyplot's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def style(*, dark: bool = False) -> AbstractContextManager[None]:
    import matplotlib as mpl

    settings: Any = {
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "font.size": 9, "axes.titlesize": 10,
        "svg.hashsalt": "dlx",
    }  # fmt: skip
    return mpl.rc_context(settings | (DARK if dark else LIGHT))


def is_log(metric: str, panel: Mapping[str, Band]) -> bool:
    """True for a loss above 0 whose largest value is far above its smallest: a logarithmic axis shows more."""
    if goal_of(metric) != "min":
        return False
    values = np.concatenate([band.mean[np.isfinite(band.mean)] for band in panel.values()])
    return len(values) > 0 and bool(values.min() > 0 and values.max() > DECADES * values.min())


def edges(band: Band, *, log: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """One standard deviation below and above the mean; on a logarithmic axis the lower edge stays above 0."""
    std = np.nan_to_num(band.std)
    low = band.mean - std
    return (np.maximum(low, band.mean / 10) if log else low), band.mean + std


def draw_curves(
    panels: Mapping[str, Mapping[str, Band]], axis: str = "step", labels: Sequence[str] = (), *, dark: bool = False
) -> Figure:
    """One panel a metric, that of training samples dashed in the panel of the validation's. labels: of all panels, in
    order, so that a run has one colour."""
    # The training metric that is drawn in the panel of a validation metric.
    training = {name: f"train/{name.removeprefix('val/')}" for name in panels if name.startswith("val/")}
    training = {name: other for name, other in training.items() if other in panels}
    joined = set(training.values())
    drawn = {name: panel for name, panel in panels.items() if name not in joined}
    names = list(dict.fromkeys([*labels, *(label for panel in panels.values() for label in panel)]))
    columns = 3 if len(drawn) == 3 and len(names) == 1 else min(2, len(drawn))
    lines = -(-len(drawn) // columns)
    size = (4.6 * columns if columns > 1 else 6.4, 3 * lines)
    figure, all_axes = subplots(lines, columns, size=size, squeeze=False)
    grid = list(all_axes.flat)
    palette = ON_DARK if dark else COLOURS
    for (metric, panel), axes in zip(drawn.items(), grid, strict=False):
        train = panels[training[metric]] if metric in training else {}
        log = is_log(metric, dict(panel) | {f"train {label}": band for label, band in train.items()})
        for label, band in panel.items():
            number = names.index(label)
            colour, dash = palette[number % len(palette)], DASHES[number // len(palette) % len(DASHES)]
            # So few points that a line would hide where they are.
            marker = "o" if len(band.x) <= FEW else None
            axes.plot(band.x, band.mean, dash, color=colour, label=label, marker=marker, markersize=3, linewidth=1.4)
            if np.any(band.count > 1):
                axes.fill_between(band.x, *edges(band, log=log), color=colour, alpha=0.18, linewidth=0)
        for label, band in train.items():
            colour = palette[names.index(label) % len(palette)]
            axes.plot(band.x, band.mean, linestyle=(0, (4, 2)), color=colour, linewidth=1, alpha=0.6)
        title = f"{metric.removeprefix('val/')}: validation, and dashed training" if train else metric
        axes.set(title=drawable(title), xlabel=AXIS_NAMES[axis], yscale="log" if log else "linear")
    for axes in grid[len(drawn) :]:
        axes.set_axis_off()
    _legend(figure, names, columns, grid[-1] if len(drawn) < len(grid) else None)
    return figure


def draw_lines(curve: Curve, names: Sequence[str], *, dark: bool = False) -> Figure:
    """A curve over an x of its own. names: of the lines that are drawn."""
    rows = -(-len(names) // 2) if len(names) > 1 else 0
    figure, axes = subplots(size=(5, 3.6 + 0.22 * rows))
    palette = ON_DARK if dark else COLOURS
    handles = []
    for number, name in enumerate(names):
        x, y = (np.where(np.abs(values) < LARGEST, values, np.nan) for values in curve.lines[name])
        colour, dash = palette[number % len(palette)], DASHES[number // len(palette) % len(DASHES)]
        marker = "o" if len(x) <= FEW else None
        handles += axes.plot(x, y, dash, color=colour, marker=marker, markersize=3, linewidth=1.4)
    axes.set(title=_short(curve.title), xlabel=_short(curve.x), ylabel=_short(curve.y))
    if rows:
        # matplotlib leaves a label out that begins with _.
        texts = [f"\N{ZERO WIDTH SPACE}{_short(name)}" for name in names]
        figure.legend(handles, texts, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _legend(figure: Figure, names: Sequence[str], columns: int, free: Axes | None) -> None:
    """One legend for all panels, in a free panel or below them."""
    handles: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if len(handles) < 2:
        return
    shown = [name for name in names if name in handles][:MAX_LABELS]
    texts = [drawable(name) for name in shown]
    rest = len(handles) - len(shown)
    options = {"title": f"the first {len(shown)} of {len(handles)}" if rest else None, "frameon": False}
    if free is not None:
        free.legend([handles[name] for name in shown], texts, loc="center", **options)
    else:
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + 0.22 * -(-len(shown) // columns) + 0.2)
        figure.legend([handles[name] for name in shown], texts, loc="outside lower center", ncols=columns, **options)


def drawable(text: str) -> str:
    """A text as matplotlib can draw it: no formula begins at a $, and what its font has no letter for is replaced. For
    such letters, and for half characters, matplotlib would warn or fail."""
    font = _font()
    letters = (letter if letter.isspace() or font.get_char_index(ord(letter)) else LACKING for letter in text)
    return "".join(letters).replace("$", r"\$")


def visible(text: str) -> str:
    """A piece of a text as it is drawn alone: spaces, tabs and new lines are seen, and so is a piece that is empty."""
    return drawable(text.translate({ord(" "): "·", ord("\t"): "→", ord("\n"): "⏎", ord("\r"): "␍"})) or "□"


@cache
def _font() -> FT2Font:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return get_font(findfont(FontProperties()))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return drawable(line if len(line) <= MAX_LETTERS else f"{line[:MAX_LETTERS]}…")


def picture(figure: Figure, kind: str = "png") -> bytes:
    """kind: png, svg or pdf. The same figure gives the same bytes."""
    image = io.BytesIO()
    date = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    figure.savefig(image, format=kind, dpi=150, metadata=date)
    return image.getvalue()
