"""The report of a run or plan as one HTML file without scripts: command, results, curves, media, configuration."""

from __future__ import annotations

import os
import re
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlx.config.groups import GROUPS
from dlx.runs import page
from dlx.runs.catalog import Entry, read_entry
from dlx.runs.compare import Comparison, compare, curve_panels, metric_names, select
from dlx.runs.compare_page import comparison_table, describe
from dlx.runs.config_diff import differing
from dlx.runs.curves import Band
from dlx.runs.draw import draw_curves, draw_lines, picture, style
from dlx.runs.files import find_object, open_plain
from dlx.runs.find import MEMBERS, plan_folder
from dlx.runs.folder import RunFolder, slug
from dlx.runs.keys import canonical, text_of
from dlx.runs.mask import masked_command
from dlx.runs.media import (
    BEGINNINGS,
    MAX_LINES,
    MAX_ROWS,
    Kind,
    MediaFile,
    files_in,
    numeric_columns,
    read_curve,
    read_table,
    read_text,
)
from dlx.runs.metric_info import metric_text, ranked_metrics, time_text
from dlx.runs.metrics import read_resumes
from dlx.runs.page import Html, tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_MEDIA = 24  # of a section
MAX_MEDIA_BYTES = 8 << 20  # of a file
MAX_TEXT = 64 << 10  # bytes of a text
SECTIONS: dict[str, tuple[Kind, ...]] = {
    "Pictures": ("image", "animation", "curve"), "Texts and tables": ("text", "table"),
}  # fmt: skip
IMAGE_TYPES: dict[Kind, str] = {"image": "image/png", "animation": "image/gif"}
COSTS = ("parameters", "steps", "best_step", "seconds", "train/throughput")
COST_NAMES = {"seconds": "training time", "train/throughput": "samples a second", "best_step": "best step"}

Panels = Mapping[str, Mapping[str, Band]]


def report(folder: RunFolder) -> str:
    """The page of a run, or of a sweep, method or experiment with its comparison."""
    entry = read_entry(folder.path)
    environment, summary = find_object(folder.path / "environment.json"), folder.summary()
    comparison = compare(select([str(folder.path)]))
    results = _plan_results(entry, summary, comparison) if entry.is_plan else _run_results(entry)
    panels = curve_panels(comparison, comparison.curve_metrics) if entry.is_plan else _run_panels(comparison)
    labels = [row.label for row in comparison.rows] if entry.is_plan else []
    name = str(entry.path) if plan_folder(entry.path) else entry.name  # other members may have the same name
    repeat = "Again, with the same configuration: ", tag("code", f"dlx train --from {shlex.quote(name)}")
    media = [(entry.name, folder.path / "media")]
    if entry.is_plan and isinstance(best := summary.get("best"), str) and best == slug(best):
        media.append((best, folder.path / MEMBERS / best / "media"))
    body = [
        tag("h1", entry.name),
        tag("p", " · ".join(_facts(entry, summary)), class_="soft"),
        *_remarks(entry),
        tag("h2", "Command"),
        tag("pre", command(environment)),
        *([] if entry.is_plan else [*_resumes(folder), tag("p", *repeat, class_="soft")]),
        tag("h2", "Results"),
        *results,
        *([tag("h2", "Curves"), _curves(panels, labels)] if panels else []),
        *_media(media, summary.get("finished")),
        tag("h2", "Configuration"),
        *_configuration(comparison, environment),
        tag("h2", "Environment"),
        page.pairs(_machine(environment)),
    ]
    return page.page(entry.name, page.join(body, "\n"))


def command(environment: Mapping[str, Any]) -> str:
    """The command line, without secrets."""
    if (words := _words(environment)) is None:
        return "(not known)"
    shown = masked_command([re.sub(r"(://[^\s/:@]*):[^\s/@]*@", r"\1:…@", word) for word in words])
    plain = "HIDDEN0"  # which needs no quotes
    return shlex.join(["dlx", *(word.replace("…", plain) for word in shown)]).replace(plain, "…")


def _words(environment: Mapping[str, Any]) -> list[str] | None:
    """The words after `dlx` on the command line."""
    words = environment.get("command")
    return [str(word) for word in words[1:]] if isinstance(words, list) and words else None


def _facts(entry: Entry, summary: Mapping[str, Any]) -> Iterator[str]:
    if not entry.is_plan and entry.config.get("model"):
        yield f"{text_of(entry.config['model'])} on {text_of(entry.config.get('dataset'))}"
    yield entry.status
    with suppress(ValueError, OverflowError, OSError):  # of a file from the year 10,000
        yield datetime.fromtimestamp(entry.created, UTC).strftime("%d %B %Y, %H:%M UTC")
    seconds = summary.get("seconds")
    if isinstance(seconds, (int, float)):
        yield time_text(seconds)


def _remarks(entry: Entry) -> Iterator[Html]:
    if entry.reason:
        yield tag("p", tag("span", entry.status, class_=entry.status), f": {entry.reason}")
    if entry.verdict:
        yield tag("p", entry.verdict)
    if entry.notes.tags:
        yield tag("p", "Tags: ", ", ".join(entry.notes.tags), class_="soft")
    if entry.notes.notes:
        yield tag("p", entry.notes.notes)


def _resumes(folder: RunFolder) -> Iterator[Html]:
    """One line for each resume of the run, with the changed keys."""
    for event in read_resumes(folder.metrics_path):
        changed = event.get("changed")
        words = [f"{key}={value}" for key, value in changed.items()] if isinstance(changed, dict) else []
        text = f"Resumed at step {event.get('step')}{', with ' if words else ''}{', '.join(words)}."
        yield tag("p", text, class_="soft")


def _run_results(entry: Entry) -> list[Html]:
    """A table of metrics by split, and the cost of the training."""
    ranked = [name for name in ranked_metrics([entry]) if name.startswith(("val/", "test/"))]
    kinds = list(dict.fromkeys(name.partition("/")[2] for name in ranked))
    splits = [split for split in ("val", "test") if any(name.startswith(f"{split}/") for name in ranked)]
    texts = {name: metric_text(value) for name, value in entry.metrics.items()}
    rows = [[kind, *(texts.get(f"{split}/{kind}", "") for split in splits)] for kind in kinds]
    costs = [(COST_NAMES.get(name, name), entry.metrics[name]) for name in COSTS if name in entry.metrics]
    cost_rows = [(name, time_text(value) if name == "training time" else f"{value:,.0f}") for name, value in costs]
    if not rows:
        metrics = [(name, texts[name]) for name in metric_names([entry]) if name not in COSTS]
        return (
            [page.pairs([*metrics, *cost_rows])]
            if metrics or cost_rows
            else [tag("p", "Nothing was measured.", class_="soft")]
        )
    columns = [page.table(["", *splits], rows, range(1, 1 + len(splits))), tag("div", page.pairs(cost_rows))]
    return [tag("div", *columns, class_="halves")]


def _plan_results(entry: Entry, summary: Mapping[str, Any], comparison: Comparison) -> list[Html]:
    if not comparison.rows:
        return [tag("p", "None of its runs has started.", class_="soft")]
    parts = [tag("p", describe(comparison), class_="soft"), comparison_table(comparison)]
    best = summary.get("best")
    if best and isinstance(best, str):
        parts.append(tag("p", "Best by ", tag("code", str(summary.get("metric"))), ": ", tag("code", best)))
    points = summary.get("members")
    if isinstance(points, list) and len(points) == 1 and isinstance(points[0], dict):
        details = points[0].get("details")
        items = details.items() if isinstance(details, dict) else ()
        lines = [(name, value) for name, value in items if isinstance(value, str)]
        parts += [page.pairs(lines)] if lines else []
    return parts


def _run_panels(comparison: Comparison) -> Panels:
    """One panel for each kind of metric, with training and validation, and one for the learning rate."""
    kinds = dict.fromkeys(name.rpartition("/")[2] for name in comparison.curve_metrics)
    names = {kind: {"train": f"train/{kind}", "val": f"val/{kind}"} for kind in kinds} | {"lr": {"train": "lr"}}
    found = curve_panels(comparison, [name for panel in names.values() for name in panel.values()])
    panels = {
        kind: {label: next(iter(found[name].values())) for label, name in panel.items() if name in found}
        for kind, panel in names.items()
    }
    return {kind: panel for kind, panel in panels.items() if panel}


def _curves(panels: Panels, labels: list[str]) -> Html:
    light, dark = _drawn(lambda dark: draw_curves(panels, labels=labels, dark=dark))
    has_bands = any((band.count > 1).any() for panel in panels.values() for band in panel.values())
    caption = "Mean and one standard deviation over repeats." if has_bands else None
    alt = f"Curves of {', '.join(panels)}"
    return page.picture(light, dark, caption=caption, alt=alt, full=len(panels) > 1)


def _drawn(draw: Callable[[bool], Figure]) -> list[str]:
    """The figure as data: URLs, for light and for dark pages."""
    urls = []
    for dark in (False, True):
        with style(dark=dark), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # then there is a box in its place
            urls.append(page.data_url(picture(draw(dark), "svg"), "image/svg+xml"))
    return urls


def _media(folders: list[tuple[str, Path]], finished: Any) -> Iterator[Html]:
    """The newest medium of each name and kind: pictures, then texts and tables.

    finished: seconds since 1970. Older media without a step are left out: they show weights from before a resume.
    """
    began = finished if isinstance(finished, (int, float)) else 0.0
    for owner, folder in folders:
        newest: dict[tuple[str, Kind], MediaFile] = {}
        for file in files_in(folder):
            before = newest.get((file.name, file.kind))
            is_newer = before is None or before.step is None or (file.step is not None and file.step >= before.step)
            if is_newer and (file.step is not None or _modified(file.path) >= began):
                newest[file.name, file.kind] = file
        found = [newest[key] for key in sorted(newest)]
        of_the_best = "" if owner == folders[0][0] else f" of the best, {owner}"
        for title, kinds in SECTIONS.items():
            files = [file for file in found if file.kind in kinds][:MAX_MEDIA]
            shown = [html for file in files if (html := _medium(file)) is not None]
            if shown:
                yield tag("h2", title + of_the_best)
                yield tag("div", *shown, class_="pictures")


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _medium(file: MediaFile) -> Html | None:
    """The markup of a medium; None for a damaged picture, and for a file that cannot be read."""
    caption = file.name if file.step is None else f"{file.name}, step {file.step}"
    try:
        with os.fdopen(open_plain(file.path), "rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            content = opened.read(MAX_TEXT if file.kind == "text" else MAX_MEDIA_BYTES)
    except OSError:
        return None
    is_whole = size <= len(content)
    if file.kind == "text":
        return page.titled(tag("pre", read_text(content, size), class_="scroll", tabindex=0), caption)
    if file.kind in ("image", "animation"):
        if not is_whole or not content.startswith(BEGINNINGS[file.kind]):
            return None
        return page.picture(page.data_url(content, IMAGE_TYPES[file.kind]), caption=caption, alt=file.name)
    try:
        if not is_whole:
            raise ValueError(f"the file has {size / 1e6:,.0f} MB")
        return _curve(content, caption) if file.kind == "curve" else _table(content, caption)
    except ValueError as error:
        return page.titled(tag("p", f"This {file.kind} cannot be shown: {error}", class_="soft"), caption)


def _curve(content: bytes, caption: str) -> Html:
    curve = read_curve(content)
    names = list(curve.lines)[:MAX_LINES]
    if len(names) < len(curve.lines):
        caption += f"; the first {len(names)} of {len(curve.lines)} lines"
    light, dark = _drawn(lambda dark: draw_lines(curve, names, dark=dark))
    return page.picture(light, dark, caption=caption, alt=curve.title or caption)


def _table(content: bytes, caption: str) -> Html:
    table = read_table(content)
    numbers, count = numeric_columns(table), len(table.rows)
    rows = [
        [metric_text(cell) if isinstance(cell, float) else "" if cell is None else text_of(cell) for cell in row]
        for row in table.rows[:MAX_ROWS]
    ]
    counted = f"the first {len(rows)} of {count:,} rows" if len(rows) < count else f"{count} row{'s' * (count != 1)}"
    return page.titled(page.table(table.columns, rows, numbers), f"{caption}; {counted}")


def _configuration(comparison: Comparison, environment: Mapping[str, Any]) -> Iterator[Html]:
    """The keys of the command line, then all keys by group; for several runs those that they share."""
    entries = comparison.entries
    if not entries:
        yield tag("p", "None.", class_="soft")
        return
    configs = [entry.config for entry in entries]
    varied = set(differing(configs)) | {key for config in configs for key in config if key not in configs[0]}
    shared = {key: value for key, value in configs[0].items() if all(config.get(key) == value for config in configs)}
    words = [word.lstrip("+~").partition("=")[0] for word in _words(environment) or () if "=" in word]
    asked = [key for key in dict.fromkeys(map(canonical, words)) if key in shared]
    if asked:
        yield tag("h3", "Set on the command line")
        yield page.pairs([(key, text_of(shared[key])) for key in asked])
    if len(entries) > 1:
        yield tag(
            "p", f"Varied: {', '.join(sorted(varied)) or 'nothing'}. The rest is the same in all runs.", class_="soft"
        )
    groups: dict[str, list[tuple[str, str]]] = {}
    for key, value in shared.items():
        if value is None or value == "":
            continue
        group, _, rest = key.partition(".")
        if rest and group in GROUPS:
            groups.setdefault(group, []).append((rest, text_of(value)))
        elif group not in GROUPS:
            groups.setdefault("general", []).append((key, text_of(value)))
    columns = [
        tag("div", tag("h3", f"{group}: {choice}" if (choice := shared.get(group)) else group), page.pairs(rows))
        for group, rows in groups.items()
    ]
    yield tag("p", "What is null or empty is left out.", class_="soft")
    yield tag("div", *columns, class_="columns")


def _machine(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    versions = environment.get("versions")
    installed = {name: version for name, version in versions.items() if version} if isinstance(versions, dict) else {}
    known = {name: environment.get(name) for name in ("started", "git", "python", "platform", "cpus")}
    rows = [(name, str(value)) for name, value in [*known.items(), *installed.items()] if value is not None]
    return rows or [("environment", "not known")]
