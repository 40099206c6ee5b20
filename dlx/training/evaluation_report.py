"""What a trained run is worth on a split: its metrics, and what a person would look at."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dlx.config.errors import UserError
from dlx.config.groups import nearest
from dlx.config.overrides import convert_text
from dlx.tasks.answer import Report
from dlx.training.distributed import Dist
from dlx.training.evaluate import collect
from dlx.training.pictures import show
from dlx.training.trained import open_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dlx.runs.folder import RunFolder


def report_run(folder: RunFolder, split: str, *, trust: tuple[str, ...] = (), overrides: Sequence[str] = ()) -> Report:
    """Evaluates a run's best weights on `train`, `val` or `test` of its data. overrides: as in `open_all`."""
    opened = open_all(folder, trust=trust, overrides=overrides)
    system, loader = opened.system, opened.loader(split)
    if not system.defines("evaluate"):
        return Report(media=show(system, loader, loader.seed, opened.loader("train")))
    sums = collect(system, loader, Dist(system.device), loader.seed, opened.bank, report=True)
    found = system.report(sums)
    media = found.media or show(system, loader, loader.seed, opened.loader("train"))
    metrics = {f"{split}/{name}": value for name, value in system.metrics(sums).items()}
    return replace(found, media=media, metrics=metrics)


def analyse_run(
    folder: RunFolder,
    name: str,
    given: Mapping[str, str],
    *,
    trust: tuple[str, ...] = (),
    overrides: Sequence[str] = (),
    data: Sequence[str] = (),
    other: RunFolder | None = None,
) -> Report:
    """What an analysis of the system's kind tells of a run. given: its keyword arguments as texts, converted to their
    annotated types. data: choice and keys of another data set, for an analysis with an argument `data`. other: a
    run for one with an argument `run`. Raises UserError naming the nearest analysis or argument."""
    import inspect

    opened = open_all(folder, trust=trust, overrides=overrides)
    analyses = opened.system.analyses
    if name not in analyses:
        known = ", ".join(analyses) or "none"
        raise UserError(f"--analysis {name}: {type(opened.system).__name__} has {known}{nearest(name, list(analyses))}")
    run = analyses[name]
    params = {p.name: p for p in inspect.signature(run).parameters.values() if p.kind is p.KEYWORD_ONLY}
    arguments: dict[str, Any] = {}
    takes_data = params.pop("data", None) is not None
    if data:
        if not takes_data:
            raise UserError(f"--analysis {name}: takes no other data, got {data[0]}")
        arguments["data"] = opened.others(data)
    needs_run = params.pop("run", None)
    if other is not None:
        if needs_run is None:
            raise UserError(f"--analysis {name}: takes no other run, got run={other.name}")
        arguments["run"] = open_all(other, trust=trust)
    elif needs_run is not None and needs_run.default is needs_run.empty:
        raise UserError(f"--analysis {name}: needs another run, run=NAME")
    for key, text in given.items():
        if key not in params:
            near = nearest(key, list(params)) or ";"
            raise UserError(f"--analysis {name}: unknown argument {key}{near} it takes {', '.join(params) or 'none'}")
        arguments[key] = convert_text(f"--analysis {name} {key}", text, params[key].annotation)
    return run(opened, **arguments)
