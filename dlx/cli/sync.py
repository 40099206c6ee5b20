"""dlx sync: runs sent to Weights & Biases later."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlx.cli.options import DEFAULT_ROOT, Json, Root, complete_run
from dlx.cli.output import print_json, say
from dlx.config.errors import UserError
from dlx.config.root import runs_root

if TYPE_CHECKING:
    from dlx.runs.folder import RunFolder
    from dlx.tracking.sync import PendingRun, Sent

Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN",
        help="Paths, names or parts of names, or @last; of a sweep its members",
        autocompletion=complete_run,
    ),
]


def sync(
    runs: Runs = None,
    everything: Annotated[bool, typer.Option("--all", help="All runs below --root.")] = False,
    project: Annotated[str | None, typer.Option(help="Where to, instead of where the run says.")] = None,
    entity: Annotated[str | None, typer.Option(help="Whose project, instead of your own.")] = None,
    mode: Annotated[str, typer.Option(help="online, or offline: write what `wandb sync` can send.")] = "online",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, send nothing.")] = False,
    json: Json = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Send runs to Weights & Biases, also those that were not tracked; nothing is sent twice."""
    from dlx.tracking.sync import pack_all, would_send
    from dlx.tracking.wandb_status import missing

    if mode not in ("online", "offline"):
        raise UserError(f"--mode {mode}: must be online or offline")
    pending, failed = pack_all(_chosen(runs, everything, root), project, entity)
    if failed and not pending and not everything:
        raise UserError("\n".join(f"{one.run.name}: {one.reason}" for one in failed))
    if dry_run:
        sent = [*failed, *(would_send(waiting) for waiting in pending)]
    else:
        needs_server = mode == "online" and any(waiting.waits for waiting in pending)
        if needs_server and (lacks := missing()):
            remedy = "; `wandb login` or WANDB_API_KEY gives one" if "key" in lacks else ""
            raise UserError(f"{lacks}{remedy}; nothing was sent")
        sent = [*failed, *_send(pending, mode)]
    for one in sent:
        _report(one, json)
    if json:
        print_json({"runs": [{**vars(one), "run": str(one.run)} for one in sent]})
    raise typer.Exit(1 if any(one.status == "failed" for one in sent) else 0)


def _chosen(runs: list[str] | None, everything: bool, root: Path) -> list[RunFolder]:
    """Each run once."""
    from dlx.runs.find import find_run
    from dlx.tracking.sync import runs_of

    if bool(runs) == everything:
        raise UserError("RUN: name runs, or say --all" if not runs else "--all: means every run; name none beside it")
    found = runs_of(runs_root(root)) if everything else []
    for run in runs or ():
        folder = find_run(run, root)
        found += runs_of(folder.path) if folder.is_plan else [folder]
    if not found:
        raise UserError(f"{root if everything else ' '.join(runs or ())}: there are no runs in it to send")
    return list({run.path.resolve(): run for run in found}.values())


def _send(pending: list[PendingRun], mode: Any) -> list[Sent]:
    from dlx.tracking.sync import send
    from dlx.training.progress import PlanProgress

    sent = []
    with PlanProgress(len(pending), quiet=not sys.stderr.isatty()) as progress:
        for waiting in pending:
            sent.append(send(waiting, mode))
            progress.step(f"{waiting.run.name}  {sent[-1].status}")
    return sent


def _report(sent: Sent, json: bool) -> None:
    if sent.status in ("sent", "written", "would be sent"):
        text = f"{sent.rows} rows, {sent.pictures} pictures"
        text += f"  {sent.url}" if sent.url else ""
    else:
        text = sent.reason or ""
    say(f"{sent.run.name}  {sent.status}  {text}".rstrip(), json)
