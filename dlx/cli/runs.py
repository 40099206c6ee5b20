"""dlx runs: what was run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dlx.cli.options import Json, Root


def runs(
    root: Root = Path("outputs"),
    members: Annotated[bool, typer.Option("--members", help="Also the runs of experiments.")] = False,
    json: Json = False,
) -> None:
    """List the runs, newest last."""
    from dlx.cli.output import print_json, say, table
    from dlx.runs.find import all_runs

    rows: list[dict[str, Any]] = []
    for folder in all_runs(root, members=members):
        summary = folder.summary()
        figure = next((name for name in ("test/accuracy", "test/loss") if name in summary), None)
        rows.append(
            {
                "run": folder.name,
                "group": folder.path.parent.name,
                "status": folder.status()["status"],
                "metric": figure,
                "value": summary.get(figure) if figure else None,
                "verdict": summary.get("verdict"),
                "seconds": summary.get("seconds"),
            }
        )
    if json:
        print_json(rows)
    elif not rows:
        say(f"no runs below {root}/ yet; `dlx train` makes one")
    else:
        shown = [
            [
                row["run"],
                row["status"],
                f"{row['metric']} {row['value']:.4f}" if row["metric"] else (row["verdict"] or "")[:60],
                f"{row['seconds']:.1f} s" if row["seconds"] is not None else "",
            ]
            for row in rows
        ]
        say(table(shown, ["run", "status", "result", "time"]))
