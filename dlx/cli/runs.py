"""dlx runs: lists and filters runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlx.cli.options import DEFAULT_ROOT, Json, Root, complete_run
from dlx.cli.output import print_json, say
from dlx.cli.tables import STATUS_STYLES, Cell, show_table
from dlx.config.errors import UserError
from dlx.config.root import runs_root
from dlx.runs.keys import canonical, check_keys, lookup, shown_text, text_of
from dlx.runs.metric_info import main_metric, metric_text, time_text

if TYPE_CHECKING:
    from dlx.runs.catalog import Entry

MAX_COLUMNS = 8
MAX_VALUES = 3
Where = Annotated[
    str | None,
    typer.Argument(
        metavar="[WHERE]",
        help="Which, such as 'val/accuracy > 0.9 and model in (mlp, cnn)'; or a run, by its path or name, or @last.",
        autocompletion=complete_run,
    ),
]


def runs(
    where: Where = None,
    sort: Annotated[str | None, typer.Option(help="By this key, such as val/accuracy or optim.lr.")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round.")] = False,
    limit: Annotated[int | None, typer.Option(min=0, help="The first so many; without --sort the newest.")] = None,
    columns: Annotated[str | None, typer.Option(help="Which, such as model,optim.lr,val/loss.")] = None,
    members: Annotated[bool, typer.Option("--members", help="Also the runs of sweeps and experiments.")] = False,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """List the runs, newest last; filter by status, name, tag, note, any metric and any key of the configuration.

    dlx runs 'model == resnet and test/accuracy > 0.9 and not status == failed' --sort test/accuracy
    """
    from dlx.runs.catalog import Catalog
    from dlx.runs.expression import check_orders, keys_of, parse
    from dlx.runs.find import chronological, find_run

    one = find_run(where, root) if where is not None and is_run(where) else None
    wanted = parse(where) if where is not None and one is None else None
    if root != DEFAULT_ROOT and not runs_root(root).is_dir():
        raise UserError(f"--root {root}: there is no such folder")
    catalog = Catalog(root)
    catalog.refresh()
    paths = {name: entry.path for name, entry in catalog.entries.items()}
    everything = [catalog.entries[name] for name in chronological(paths)]
    keys = [key.strip() for key in columns.split(",") if key.strip()] if columns else []
    check_keys([*(keys_of(wanted) if wanted else ()), *([sort] if sort else []), *keys], everything)
    if wanted:
        check_orders(wanted, everything)
    found = [entry for entry in everything if wanted is None or wanted.matches(entry)]
    if one is not None:
        own = next((entry.id for entry in everything if entry.path.absolute() == one.path.absolute()), "")
        found = [entry for entry in everything if entry.id == own or (members and entry.id.startswith(f"{own}/"))]
    shown = [entry for entry in found if members or one or entry.plan is None]
    if sort:
        shown = _sorted(shown, sort, reverse)[:limit]
    else:
        shown = shown[max(0, len(shown) - limit) :] if limit is not None else shown
        shown = shown[::-1] if reverse else shown
    if json:
        print_json([_row(entry) for entry in shown])
    elif not everything:
        say(f"no runs below {root}/ yet; `dlx train` makes one")
    elif not shown:
        inside = (
            f"; {len(found)} of the runs inside sweeps and experiments do (--members)"
            if found and limit is None
            else ""
        )
        say(f"none of the runs below {root}/ match{inside}")
    else:
        _show(shown, keys, everything)


def is_run(where: str) -> bool:
    """True for the name of a run, False for a filter, which has an operator."""
    return not any(sign in where for sign in ("<", ">", "=", "~", "(", '"', "'")) and len(where.split()) == 1


def _sorted(entries: Sequence[Entry], key: str, reverse: bool) -> list[Entry]:
    """Numbers before texts; those without the key are last either way."""
    rank_keys: dict[str, tuple[int, float, str]] = {}
    for entry in entries:
        value = next(iter(lookup(entry, key)), None)
        if isinstance(value, (int, float)) and value == value:
            rank_keys[entry.id] = (0, float(value), "")
        elif isinstance(value, str):
            rank_keys[entry.id] = (1, 0.0, text_of(value))
    there = sorted(
        (entry for entry in entries if entry.id in rank_keys), key=lambda entry: rank_keys[entry.id], reverse=reverse
    )
    return [*there, *(entry for entry in entries if entry.id not in rank_keys)]


def _main_metric(entry: Entry) -> tuple[str | None, float | None]:
    """The metric that a list shows for a run; for a sweep or method that of its best point."""
    from dlx.runs.folder import RunFolder

    if not entry.is_plan:
        name = main_metric(entry)
        return name, entry.metrics[name] if name else None
    summary = RunFolder(entry.path).summary()
    name, points = summary.get("metric"), summary.get("members")
    best = points[0] if isinstance(points, list) and points else None
    value = best["metrics"].get(name) if isinstance(best, dict) and isinstance(best.get("metrics"), dict) else None
    return (name, float(value)) if isinstance(value, (int, float)) else (None, None)


def _row(entry: Entry) -> dict[str, Any]:
    metric, value = _main_metric(entry)
    return {
        "run": entry.name,
        "group": entry.path.parent.name,
        "status": entry.status,
        "metric": metric,
        "value": value,
        "verdict": entry.verdict,
        "seconds": entry.metrics.get("seconds"),
        "id": entry.id,
        "path": str(entry.path),
        "plan": entry.plan,
        "is_plan": entry.is_plan,
        "created": entry.created,
        "reason": entry.reason,
        "monitor": entry.monitor,
        "tags": list(entry.notes.tags),
        "note": entry.notes.notes,
        "metrics": entry.metrics,
        "config": entry.config,
    }


def _show(shown: Sequence[Entry], keys: Sequence[str], everything: Sequence[Entry]) -> None:
    from dlx.runs.config_diff import differing, short_names

    configs = [entry.config for entry in shown if not entry.is_plan]
    differ = list(keys) or [key for key in differing(configs) if all(key in config for config in configs)][:MAX_COLUMNS]
    rows = []
    for entry in shown:
        metric, value = _main_metric(entry)
        result = f"{metric} {metric_text(value)}" if metric and value is not None else ""
        inside = [member for member in everything if entry.is_plan and member.plan == entry.id]
        rows.append(
            [
                Cell(entry.name),
                Cell(entry.status, STATUS_STYLES.get(entry.status, "")),
                Cell(
                    f"best {result}"
                    if entry.is_plan and result
                    else (entry.verdict or result or entry.reason or "")[:60]
                ),
                Cell(time_text(entry.metrics.get("seconds"))),
                *(Cell(_text(inside or [entry], key)) for key in differ),
            ]
        )
    optional = () if keys else range(4, 4 + len(differ))
    show_table(rows, ["run", "status", "result", "time", *short_names(differ)], optional)


def _text(entries: Sequence[Entry], key: str) -> str:
    """The values of a key: that of a run, the first ones of a sweep's members."""
    texts: dict[str, None] = {}
    for entry in entries:
        for value in lookup(entry, key):
            is_metric = canonical(key) in entry.metrics and isinstance(value, float)
            texts[metric_text(value) if is_metric else shown_text(value)] = None  # type: ignore[arg-type]
    return ", ".join([*list(texts)[:MAX_VALUES], *(["…"] if len(texts) > MAX_VALUES else [])])
