"""Checks the machine before a run: device, processes, a writable folder.

Looked at before anything is written, by the run and by --dry-run alike.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dlx.config.errors import UserError
from dlx.data.loader import check_shared
from dlx.runs.folder import slug
from dlx.training.distributed import choose_device, world_size

if TYPE_CHECKING:
    import torch

    from dlx.config import Config
    from dlx.training.prepare import Prepared

_RENDEZVOUS = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # beside WORLD_SIZE, from torchrun


def preflight(prepared: Prepared) -> torch.device:
    """Returns the run's device. Raises UserError for anything that would stop it before its first step."""
    check_processes(prepared)
    check_batch_norms(prepared)
    check_folder(prepared.config, str(prepared.config["name"] or prepared.config.choices["model"]))
    return choose_device(prepared.trainer.device)


def check_member(prepared: Prepared, *, here: bool = True) -> None:
    """`preflight` for a member of a plan, which has one process and shares a folder. here: it runs on this machine."""
    check_batch_norms(prepared)
    if here:
        choose_device(prepared.trainer.device)


def check_processes(prepared: Prepared) -> None:
    size = world_size()
    if size == 1:
        return
    if missing := [name for name in _RENDEZVOUS if not os.environ.get(name)]:
        raise UserError(
            f"WORLD_SIZE={size}: is set, but {', '.join(missing)} is not; torchrun sets them all, and one process "
            "needs none of them (unset WORLD_SIZE)"
        )
    for name, split in prepared.splits.items():
        if len(split) < size:
            raise UserError(f"dataset: {name} has {len(split)} samples, too few for {size} processes")
    check_shared(prepared.settings, size)


def check_batch_norms(prepared: Prepared) -> None:
    """Raises UserError if a batch norm would get a single value, whose variance is undefined."""
    settings, count = prepared.settings, prepared.trainer.accumulate
    samples = len(prepared.splits["train"])
    whole = settings.batch_size // world_size()
    last = 0 if settings.drop_last else samples % settings.batch_size
    parts_of = {size: -(-size // count) for size in (whole, last) if size}  # as `torch.chunk` cuts a batch
    smallest = {size: size % part or part for size, part in parts_of.items()}
    if 1 not in smallest.values() or not prepared.system.objectives():
        return
    from dlx.tasks.summary import single_value_norms

    if not (norms := single_value_norms(prepared.system)):
        return
    size = next(size for size, least in smallest.items() if least == 1)
    which = f"the last batch of {samples} samples has {last}" if size == last else f"a batch has {whole}"
    parts = f", in {count} parts" if count > 1 else ""
    remedy = "set dataset.drop_last=true" if size == last else "take a larger dataset.batch_size"
    raise UserError(f"dataset.batch_size: {which}{parts}, and {norms[0]} normalizes a batch of at least 2; {remedy}")


def check_folder(config: Config, name: str) -> None:
    """Raises UserError if a run folder cannot be created in output_root."""
    path = Path(config["output_root"]).expanduser() / slug(name)
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir():
        raise UserError(f"output_root: cannot write to {path} ({there} is no folder)")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"output_root: cannot write to {path} (no permission in {there})")
    if not os.statvfs(there).f_bavail:
        raise UserError(f"output_root: cannot write to {path} (the disk of {there} is full)")
