"""dlx doctor: checks that dlx works on this machine."""

from __future__ import annotations

from typing import Any

import typer

from dlx.cli.options import DEFAULT_ROOT, Json, Root
from dlx.cli.output import print_json, say


def doctor(json: Json = False, root: Root = DEFAULT_ROOT) -> None:
    """Say what dlx finds here (versions, devices, folders, packages), and train for some seconds to see that it works.

    Ends with 0 when all is well, with 1 when the training fails or learns too little.
    """
    from dlx.tracking.wandb_status import has_key
    from dlx.training import doctor as looks

    versions, devices, places = looks.versions(), looks.devices(), looks.check_dirs(root)
    key, extras = has_key(), looks.extras()
    for name, version in versions.items():
        say(f"{name:<16}{version or 'missing'}", json)
    for name, device in devices.items():
        say(f"{name:<16}{_device(device)}", json)
    for name, folder in places.items():
        say(f"{name:<16}{_folder(folder)}", json)
    say(f"{'W&B':<16}{'a key is there' if key else 'no key: tracker=wandb keeps runs for `dlx sync`'}", json)
    for extra, packages in extras.items():
        remedy = "" if all(packages.values()) else f": pip install 'dlx[{extra}]'"
        listed = ", ".join(f"{name} {version or 'missing'}" for name, version in packages.items())
        say(f"{'[' + extra + ']':<16}{listed}{remedy}", json)
    training = looks.try_training()
    say(f"{'training':<16}{_training(training)}", json)
    if json:
        print_json(
            {
                "ok": training["ok"],
                "versions": versions,
                "devices": devices,
                "places": places,
                "wandb_key": key,
                "extras": extras,
                "training": training,
            }
        )
    raise typer.Exit(0 if training["ok"] else 1)


def _device(device: dict[str, Any]) -> str:
    parts = [device["name"]]
    if "cores" in device:
        parts += [f"cores {device['cores']}", f"threads {device['threads']}"]
    if "memory_gib" in device:
        free = f" ({device['free_gib']} free)" if "free_gib" in device else ""
        parts.append(f"{device['memory_gib']} GiB{free}")
    return ", ".join([*parts, "bf16" if device["bf16"] else "no bf16 of its own"])


def _folder(folder: dict[str, Any]) -> str:
    state = "" if folder["exists"] else ", made when needed"
    access = "writable" if folder["writable"] else "NOT writable"
    return f"{folder['path']}: {access}, {folder['free_gib']} GiB free{state}"


def _training(training: dict[str, Any]) -> str:
    if not training["ok"]:
        return f"FAILED on {training['device']}: {training['reason']}"
    numbers = (
        f"accuracy {training['accuracy']:.4f}, {training['throughput']:,.0f} samples/s, {training['seconds']:.1f} s"
    )
    return f"well: mlp on digits, on {training['device']}: {numbers}"
