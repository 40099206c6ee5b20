"""Checkpoints: folders that are complete or are not there.

`checkpoints/step-00000123/` holds `last.safetensors` (the weights in training), `best.safetensors` (the weights that
the run is judged by), `state.pt` (optimizers, schedule, counters; loadable with weights_only=True) and, written last,
`manifest.json` with sizes and SHA-256. The folder is written under another name and renamed; `latest` names it. If a
step is saved twice, the first folder is `.old-step-00000123` until the second has its name: after a kill between the
two renames, readers use it as the checkpoint of its step.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dlx.config.errors import UserError, first_line
from dlx.runs.files import fsync_path, inside, is_folder, open_plain, read_json, write_atomic

KEEP = 2  # the newest, and one to fall back on
PARTS = ("last.safetensors", "best.safetensors", "state.pt")
ASIDE = ".old-"
_NAME = re.compile(r"(?:\.old-)?step-(\d{8,15})")


def save_weights(path: Path, weights: dict[str, Tensor]) -> None:
    """Contiguous CPU copies as safetensors; a tensor under several names is stored once, the others in the header."""
    stored: dict[str, Tensor] = {}
    names: dict[tuple[int, int, tuple[int, ...]], str] = {}
    tied: dict[str, str] = {}
    for name, tensor in weights.items():
        storage = (tensor.data_ptr(), tensor.numel(), tuple(tensor.stride()))
        if tensor.numel() and storage in names:
            tied[name] = names[storage]
            continue
        names[storage] = name
        stored[name] = tensor.detach().cpu().contiguous()
    save_file(stored, path, metadata={"tied": json.dumps(tied)})


def load_weights(path: Path) -> dict[str, Tensor]:
    """Reads a file of `save_weights`. Raises UserError naming any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            tied = json.loads((file.metadata() or {}).get("tied", "{}"))
        return {**weights, **{name: weights[stored] for name, stored in tied.items()}}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({first_line(error)})") from None


def _digest(path: Path) -> tuple[int, str]:
    """The bytes of a plain file, and their SHA-256."""
    with os.fdopen(open_plain(path), "rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(
    root: Path, step: int, last: dict[str, Tensor], best: dict[str, Tensor], state: dict[str, Any]
) -> Path:
    """Writes the checkpoint of `step`, makes it the latest, then deletes old ones. Returns its folder.

    Raises ValueError for non-finite weights (such a checkpoint is never good) and OSError when the disk refuses; in
    both cases what was there stays as it was.
    """
    for name, tensor in last.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has non-finite values")
    inside(root.parent, root.name).mkdir(parents=True, exist_ok=True)
    _tidy(root)
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
            fsync_path(path)
            size, digest = _digest(path)
            files[path.name] = {"bytes": size, "sha256": digest}
        write_atomic(beside / "manifest.json", json.dumps({"step": step, "files": files}, indent=2) + "\n")
        target = root / f"step-{step:08d}"
        _put(beside, target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    fsync_path(root)
    try:
        verify(target)
    except UserError as error:
        raise OSError(errno.EIO, str(error)) from None
    write_atomic(root / "latest", target.name + "\n")
    _tidy(root)
    for old in _folders(root)[:-KEEP]:
        shutil.rmtree(old)
    return target


def _put(beside: Path, target: Path) -> None:
    """Renames a folder to `target`. A checkpoint that is there (of the same step, at a signal, an early stop or after a
    resume without a step) first moves aside: one of the two exists at any moment."""
    aside = target.with_name(f"{ASIDE}{target.name}")
    there = os.path.lexists(target)
    if there:
        target.rename(aside)
    try:
        beside.rename(target)
    except BaseException:
        if there:
            aside.rename(target)
        raise


def _tidy(root: Path) -> None:
    """Repairs the folder after a kill: a checkpoint that was moved aside and not replaced moves back."""
    for aside in root.glob(f"{ASIDE}step-*"):
        target = aside.with_name(aside.name.removeprefix(ASIDE))
        if os.path.lexists(target):
            shutil.rmtree(aside)
        else:
            aside.rename(target)
    for stray in root.glob(".tmp-*"):
        shutil.rmtree(stray)


def step_of(folder: Path) -> int:
    """The step after which a checkpoint was taken."""
    found = _NAME.fullmatch(folder.name)
    if found is None:
        raise ValueError(f"{folder}: no name of a checkpoint")
    return int(found[1])


def _folders(root: Path) -> list[Path]:
    """All checkpoints, oldest first; of two of one step the one that was moved aside comes first."""
    if not is_folder(root):
        return []
    found = [path for path in root.iterdir() if _NAME.fullmatch(path.name) and is_folder(path)]
    return sorted(found, key=lambda path: (step_of(path), not path.name.startswith(ASIDE)))


def verify(folder: Path) -> None:
    """Raises UserError naming the first file that differs from the manifest."""
    path = folder / "manifest.json"
    try:
        manifest = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no readable manifest.json ({type(error).__name__})") from None
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict) or not all(isinstance(listed.get(name), dict) for name in PARTS):
        raise UserError(f"{path}: damaged (it does not list {', '.join(PARTS)})")
    for name in PARTS:
        part, expected = folder / name, listed[name]
        try:
            found = _digest(part)
        except FileNotFoundError:
            raise UserError(f"{part}: missing") from None
        except OSError as error:
            raise UserError(f"{part}: cannot be read ({error.strerror})") from None
        if found != (expected.get("bytes"), expected.get("sha256")):
            raise UserError(f"{part}: damaged (its checksum differs from manifest.json)")


def latest_checkpoint(root: Path) -> tuple[Path | None, list[str]]:
    """The newest valid checkpoint, and the errors of newer ones."""
    there = os.path.lexists(root) and not is_folder(root)
    problems = [f"{root}: is {'a link' if root.is_symlink() else 'no folder'}"] if there else []
    for folder in reversed(_folders(root)):
        try:
            verify(folder)
        except UserError as error:
            problems.append(str(error))
        else:
            return folder, problems
    return None, problems


def load_state(folder: Path) -> dict[str, Any]:
    """Loads a training state. Raises UserError naming a file that is not one."""
    path = folder / "state.pt"
    try:
        os.close(open_plain(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a pickle that is none fails in many ways
        raise UserError(f"{path}: damaged, or no training state ({first_line(error)})") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: damaged, or no training state")
    return found


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of a module's weights and buffers, on their device."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def assign(module: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    """Copies weights into a module's own tensors, which keep their device and memory format."""
    module.load_state_dict(weights, strict=True)
