"""dlx dashboard: the runs as a local web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlx.cli.options import DEFAULT_ROOT, Root
from dlx.cli.output import say


def dashboard(
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Where runs are: the same as --root.")] = None,
    root: Root = DEFAULT_ROOT,
    port: Annotated[
        int | None, typer.Option(help="Default: the first free one from 8008 on.", min=1, max=65535)
    ] = None,
    host: Annotated[
        str, typer.Option(help="An address of this machine; other than loopback it needs a token.")
    ] = "127.0.0.1",
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
) -> None:
    """Show the runs below DIR in the browser: table, curves, comparison, pictures, logs; live while they train."""
    from dlx.config.extras import require

    require("dlx dashboard", "dashboard", "starlette", "uvicorn", "plotly")
    from dlx.dashboard.serve import serve

    serve((folder or root).expanduser(), host, port, browser=not no_open, say=say)
