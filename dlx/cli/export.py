"""dlx export: a run's best weights as files for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dlx.cli.options import DEFAULT_ROOT, Json, Root, Run, Trust, trusted
from dlx.cli.output import print_json, say
from dlx.config.errors import UserError
from dlx.runs.files import no_room, write_json


def export(
    run: Run,
    format: Annotated[
        Literal["safetensors", "torch_export", "onnx"] | None,
        typer.Option(help="One format; all that can be written where none is named."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="A folder, or with --format a file; RUN/export/ where it is not given.")
    ] = None,
    trust: Trust = None,
    json: Json = False,
    root: Root = DEFAULT_ROOT,
) -> None:
    """Write a run's best weights as safetensors, a torch.export program and ONNX, each checked against the system."""
    from dlx.runs.find import find_trained

    if output is not None and output.suffix and not output.is_dir() and format is None:
        raise UserError(f"--output {output} is one file; name its --format, or give a folder")
    folder = find_trained(run, root)

    from dlx.training.export import FORMATS, SUFFIXES, Exporter, ExportError, check_packages

    if format is not None:
        check_packages(format)
    target = output if output is not None else folder.inside("export")
    exporter = Exporter(folder, trust=trusted(trust))
    files: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    for name in [format] if format else FORMATS:
        suffix = SUFFIXES[name]
        path = target if target.suffix == suffix and not target.is_dir() else target / f"model{suffix}"
        if output is None:
            folder.inside("export", path.name)
        try:
            check_packages(name)
        except UserError as error:
            say(f"{name:<16}left out: {error}", json)
            continue
        try:
            done = exporter.write(name, path)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({no_room(path, error)})") from None
        except ExportError as error:
            failures[name] = str(error)
            say(f"{name:<16}failed: {error}", json)
            continue
        files.append({"format": name, "path": str(path), "bytes": path.stat().st_size, "difference": done.difference})
        say(f"{name:<16}{path}  {path.stat().st_size:,} bytes  largest difference {done.difference:.1e}", json)
    if files:
        described = path.with_suffix(".json")
        try:
            write_json(described, exporter.describe())
        except OSError as error:
            raise UserError(f"{described}: cannot be written ({no_room(described, error)})") from None
        say(f"{'description':<16}{described}", json)
    if json:
        print_json({"run": str(folder.path), "files": files, "failures": failures})
    raise typer.Exit(1 if failures else 0)
