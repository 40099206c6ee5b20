"""Checkpoints: folders that are complete or are not there.

`checkpoints/step-00000123/` holds `last.safetensors` (the weights in training), `best.safetensors` (the weights that
the run is judged by), `state.pt` (optimizers, schedule, counters; loadable with weights_only=True) and, written last,
`manifest.json` with sizes and SHA-256. The folder is written beside its place and renamed; `latest` names it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dlx.config.errors import UserError
from dlx.runs.files import sync_directory, write_atomic

KEEP = 2  # the newest, and one to fall back on


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Contiguous CPU copies as safetensors; a tensor under several names is stored once, the others in the header."""
    stored: dict[str, Tensor] = {}
    names: dict[tuple[int, int, tuple[int, ...]], str] = {}
    tied: dict[str, str] = {}
    for name, tensor in weights.items():
        place = (tensor.data_ptr(), tensor.numel(), tuple(tensor.stride()))
        if tensor.numel() and place in names:
            tied[name] = names[place]
            continue
        names[place] = name
        stored[name] = tensor.detach().cpu().contiguous()
    save_file(stored, path, metadata={"tied": json.dumps(tied)})


def load_weights(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        tied = json.loads((file.metadata() or {}).get("tied", "{}"))
    return {**weights, **{name: weights[stored] for name, stored in tied.items()}}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(
    root: Path, step: int, last: dict[str, Tensor], best: dict[str, Tensor], state: dict[str, Any]
) -> Path:
    """Writes the checkpoint of `step`, makes it the latest, then lets old ones go. Returns its folder.

    Raises ValueError for non-finite weights (such a checkpoint is never good) and OSError when the disk refuses; in
    both cases what was there stays as it was.
    """
    for name, tensor in last.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has non-finite values")
    root.mkdir(parents=True, exist_ok=True)
    for stray in root.glob(".tmp-*"):
        shutil.rmtree(stray)
    beside = root / f".tmp-{uuid.uuid4().hex[:8]}"
    beside.mkdir()
    try:
        try:
            save_weights(beside / "last.safetensors", last)
            save_weights(beside / "best.safetensors", best)
            torch.save(state, beside / "state.pt")
        except (SafetensorError, RuntimeError) as error:  # what these two make of a disk that refuses
            raise OSError(errno.EIO, str(error).splitlines()[0]) from error
        files = {}
        for path in sorted(beside.iterdir()):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            files[path.name] = {"bytes": path.stat().st_size, "sha256": _digest(path)}
        write_atomic(beside / "manifest.json", json.dumps({"step": step, "files": files}, indent=2) + "\n")
        place = root / f"step-{step:08d}"
        if place.exists():  # the same step again, after a resume that did no step
            shutil.rmtree(place)
        beside.rename(place)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_directory(root)
    write_atomic(root / "latest", place.name + "\n")
    verify(place)
    for old in _folders(root)[:-KEEP]:
        shutil.rmtree(old)
    return place


def step_of(folder: Path) -> int:
    """The step after which a checkpoint was taken."""
    return int(folder.name.removeprefix("step-"))


def _folders(root: Path) -> list[Path]:
    return sorted(root.glob("step-*[0-9]"))


def verify(folder: Path) -> None:
    """Raises UserError naming the first file that is not what the manifest says."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no readable manifest.json ({type(error).__name__})") from None
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing")
        if path.stat().st_size != expected["bytes"] or _digest(path) != expected["sha256"]:
            raise UserError(f"{path}: damaged (its checksum differs from manifest.json)")


def latest_checkpoint(root: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and what is wrong with newer ones."""
    problems = []
    for folder in reversed(_folders(root)):
        try:
            verify(folder)
        except UserError as error:
            problems.append(str(error))
        else:
            return folder, problems
    return None, problems


def load_state(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "state.pt", map_location="cpu", weights_only=True)


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of a module's weights and buffers, on their device."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def assign(module: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    """Copies weights into a module's own tensors, which keep their device and memory format."""
    module.load_state_dict(weights, strict=True)
