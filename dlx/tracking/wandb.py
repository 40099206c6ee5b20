"""Weights & Biases: online where there is a key and a network, else an offline run; `dlx sync` sends it later.

A step of W&B is a step of the training. It only goes up, so neither a resumed run nor `dlx sync` sends a row twice.
"""

from __future__ import annotations

import hashlib
import html
import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlx.config.yaml import read_frozen
from dlx.runs.files import decode_nonfinite, open_plain, write_json
from dlx.runs.find import plan_folder
from dlx.runs.mask import mask, masked
from dlx.runs.media import BEGINNINGS, MAX_BYTES, files_in, kind_of, read_curve, read_table, read_text, split_name
from dlx.runs.metric_info import goal_of
from dlx.runs.metrics import read_metrics
from dlx.tracking.tracker import Tracker
from dlx.tracking.wandb_status import missing

if TYPE_CHECKING:
    from dlx.runs.folder import RunFolder

MEMORY = "wandb.json"  # in the run folder: which run of W&B it is, and what `dlx sync` sent
INIT_SECONDS = 20
FINISH_SECONDS = 45
LONGEST_ID = 128
MAX_ROWS = 10_000  # of a table: W&B shows no more
NOT_IN_IDS = ":;,#?/'"  # which W&B refuses there
EXIT_CODES = {"finished": 0, "pruned": 0, "diverged": 3, "interrupted": 130}

ClientMode = Literal["online", "offline", "disabled"]


class Wandb(Tracker):
    """mode: auto is online where a key and the server are there, else offline; online fails where they are not.

    group: of a member of a sweep or method, by default, the name of the sweep's folder. job_type: by default `train`;
    of a member what it is a member of, such as sweep, kfold or an experiment's name.
    """

    finish_seconds = FINISH_SECONDS
    stats = True  # whether W&B's client measures the machine

    def __init__(
        self,
        *,
        project: str = "dlx",
        entity: str | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
        group: str | None = None,
        job_type: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
    ) -> None:
        self.project, self.entity, self.mode = project, entity, mode
        self.group, self.job_type, self.tags, self.notes = group, job_type, tags, notes
        self.run: Any = None
        self.newest = 0  # the step of the newest row; there is no going back
        self._time: float | None = None  # of that row, where one was logged here
        self._defined: set[str] = set()
        self.media_sent = 0
        self._media_lost: set[str] = set()  # names of those that were warned about

    def start(self, run: RunFolder, config: dict[str, Any]) -> None:
        mode = self._choose_mode()
        try:
            self._open(run, config, mode)
        except Exception as error:
            if mode != "online" or self.mode == "online":
                raise
            # Its client cannot open the same run a second time, offline, in one process.
            first = f"{type(error).__name__}: {error}".splitlines()[0]
            self.warn(f"wandb: {first}; nothing is sent now, `dlx sync` sends the run later")
            return
        if mode == "online":
            self.remember(run)
            self.catch_up(run)

    def _choose_mode(self) -> ClientMode:
        asked = os.environ.get("WANDB_MODE") if self.mode == "auto" else None
        if asked == "disabled":
            return "disabled"
        if self.mode == "offline" or asked in ("offline", "dryrun"):
            return "offline"
        lacks = missing()
        if lacks and self.mode == "online":
            raise ConnectionError(lacks)
        if lacks:
            self.warn(f"wandb: {lacks}, so this run is offline; `dlx sync` sends it later")
        return "offline" if lacks else "online"

    def _open(self, run: RunFolder, config: dict[str, Any], mode: ClientMode) -> None:
        wandb = client()
        plan = plan_folder(run.path)
        group = self.group or os.environ.get("WANDB_RUN_GROUP") or (plan.name if plan else None)
        # The command line is left out (x_disable_meta): it may hold secrets, and W&B would store it.
        settings = wandb.Settings(
            x_disable_meta=True, x_disable_stats=not self.stats, init_timeout=INIT_SECONDS, console="off", silent=True,
            finish_timeout=self.finish_seconds, finish_timeout_raises=True, x_save_requirements=self.stats,
        )  # fmt: skip
        # create_new: members that train as one program have each their own run in this process.
        self.run = wandb.init(
            project=self.project, entity=self.entity, mode=mode, dir=str(self.files_dir(run).absolute()),
            id=run_id(run.path), name=run.path.resolve().name, group=group,
            job_type=self.job_type or (_kind_of(plan) if plan else "train"), tags=masked(self.tags),
            notes=masked(self.notes), config=masked(config), resume="allow", reinit="create_new", settings=settings,
        )  # fmt: skip
        self.newest = self.run.starting_step
        self.run.define_metric("*", step_metric="step")

    def files_dir(self, run: RunFolder) -> Path:
        """The folder in which W&B's client keeps its files, in wandb/. Raises UserError where a link leads there."""
        run.inside("wandb")
        return run.path

    def remember(self, run: RunFolder, **further: Any) -> None:
        """Writes down which run of W&B this is."""
        known = {"id": self.run.id, "entity": self.run.entity, "project": self.run.project, "url": self.run.url}
        write_json(run.inside(MEMORY), known | further)

    def catch_up(self, run: RunFolder) -> int:
        """Logs from the run's files what W&B does not have. Returns how many rows."""
        rows = [row for row in read_metrics(run.metrics_path) if row["step"] >= self.newest]
        # A medium of a step that is not there (again) yet would take the place of its row.
        steps = range(self.newest, rows[-1]["step"] + 1 if rows else 0)
        dated = [(file, file.step) for file in files_in(run.media) if file.step is not None and file.step in steps]
        events: list[tuple[int, Callable[[], None]]] = []
        for row in rows:
            metrics = {name: value for name, value in decode_nonfinite(row).items() if name not in ("step", "time")}
            events.append((row["step"], partial(self.log, row["step"], metrics, row["time"])))
        events += [(step, partial(self.log_media, step, file.name, str(file.path))) for file, step in dated]
        for _, event in sorted(events, key=lambda event: event[0]):
            event()
        return len(rows)

    def log_media(self, step: int, name: str, path: str) -> None:
        if self.run is not None:
            self.send_medium(Path(path), lambda medium: self.log(step, {f"media/{name}": medium}, self._time))

    def send_medium(self, path: Path, send: Callable[[Any], None], *, charts: bool = True) -> None:
        """Sends one medium. An error becomes a warning, once for each name, and tracking goes on: the file may be
        damaged, and W&B's client sends a table as an artifact, with requests of its own."""
        try:
            send(medium_of(path, charts=charts))
            self.media_sent += 1
        except Exception as error:
            name, _ = split_name(path)
            if name not in self._media_lost:
                self._media_lost.add(name)
                self.warn(f"wandb: {path.name} is not sent: {error}".splitlines()[0])

    def log(self, step: int, scalars: dict[str, Any], at: float | None = None) -> None:
        """A row; what is logged at one step becomes one row of W&B. at: seconds since 1970; None is now."""
        if self.run is None or step < self.newest:
            return
        for name in scalars:
            if name not in self._defined and name.startswith("val/") and (goal := goal_of(name)):
                self.run.define_metric(name, step_metric="step", summary=goal)
            self._defined.add(name)
        self.newest, self._time = step, at or time.time()
        self.run.log({"step": step, **scalars, "_timestamp": self._time}, step=step)

    def finish(self, status: str, summary: dict[str, Any], reason: str | None = None) -> None:
        if self.run is None:
            return
        if self._time is not None:  # the newest row would be written after the summary, and over it
            self.run.log({"_timestamp": self._time}, step=self.newest, commit=True)
        metrics = {name: value for name, value in summary.items() if name != "finished"}
        self.run.summary.update({**metrics, "status": status, **({"reason": mask(reason)} if reason else {})})
        self.complete_summary()
        try:
            self.run.finish(exit_code=EXIT_CODES.get(status, 1))
        except TimeoutError:
            raise TimeoutError(f"not all was sent in {self.finish_seconds} s; `dlx sync` sends the rest") from None

    def complete_summary(self) -> None:
        """Adds to the summary what is not a metric of the run."""


def client() -> Any:
    """W&B's package, quiet, and without the telemetry of its own, which a server that is away makes wait for at exit:
    10 to 20 s, measured."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb


def run_id(path: Path) -> str:
    """The id of a run at W&B, the same wherever its folder lies: its name, of a member the plan's before it; a hash of
    that where W&B would refuse it."""
    plan, own = plan_folder(path), path.resolve().name
    name = f"{plan.name}.{own}" if plan else own
    is_taken = len(name) <= LONGEST_ID and not set(name) & set(NOT_IN_IDS)
    return name if is_taken else hashlib.sha256(name.encode()).hexdigest()[:32]


def _kind_of(plan: Path) -> str:
    """What made a plan: an experiment or a method, by its name, a search or a sweep."""
    content = read_frozen(plan / "config.yaml")
    choices = content.get("choices") if isinstance(content, dict) else None
    choices = choices if isinstance(choices, dict) else {}
    kind = "search" if (plan / "search.yaml").is_file() else "sweep"
    return choices.get("experiment") or choices.get("method") or kind


def medium_of(path: Path, *, charts: bool = True) -> Any:
    """A medium's file as the type by which W&B shows it. charts: a curve is a chart over its table, as a row can have
    it; a summary takes the table alone. Raises ValueError or OSError where the file is damaged."""
    wandb, kind, size = client(), kind_of(path), path.stat().st_size
    if kind is None or (size > MAX_BYTES[kind] and kind != "text"):
        raise ValueError(f"the file has {size / 1e6:,.0f} MB")
    with os.fdopen(open_plain(path), "rb") as file:
        content = file.read(MAX_BYTES[kind])
    if kind in BEGINNINGS and not content.startswith(BEGINNINGS[kind]):  # else PIL would look for whatever it may be
        raise ValueError(f"the file is no {kind}")
    if kind == "image":
        return wandb.Image(str(path))
    if kind == "animation":
        return wandb.Video(str(path))
    if kind == "text":
        text = html.escape(read_text(content, size))
        return wandb.Html(f'<pre style="white-space: pre-wrap">{text}</pre>', data_is_not_path=True)
    if kind == "table":
        table = read_table(content)
        return _table(list(table.columns), [list(map(_finite, row)) for row in table.rows[:MAX_ROWS]])
    curve = read_curve(content)
    lines = {name: list(zip(*line, strict=True)) for name, line in curve.lines.items()}
    every = max(1, -(-sum(map(len, lines.values())) // MAX_ROWS))
    points = [[name, _finite(x), _finite(y)] for name, line in lines.items() for x, y in line[::every]]
    table = _table(["line", "x", "y"], points)
    return wandb.plot.line(table, "x", "y", stroke="line", title=curve.title) if charts else table


def _table(columns: list[str], rows: list[list[Any]]) -> Any:
    table = client().Table
    try:
        return table(columns, rows)
    except TypeError:  # a column of texts and numbers
        return table(columns, rows, allow_mixed_types=True)


def _finite(cell: Any) -> Any:
    """W&B's tables have no other numbers."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
