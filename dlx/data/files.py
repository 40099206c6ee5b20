"""Files of datasets: their folder, downloads, and cached arrays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from dlx.config.errors import UserError
from dlx.runs.files import atomic_file, partial_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def data_root(root: Path | str | None) -> Path:
    """dataset.root, else $DLX_DATA, else ~/.cache/dlx/data."""
    return Path(root or os.environ.get("DLX_DATA") or "~/.cache/dlx/data").expanduser()


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"dataset.root: cannot write to {folder} ({error.strerror}); choose another folder") from error


def download(url: str, path: Path, md5: str) -> None:
    """Fetches a file, checks it, and only then gives it its name: a download that broke off is never used.

    Raises OSError without a network or a usable answer, RuntimeError for a wrong checksum.
    """
    from http.client import HTTPException

    from torchvision.datasets.utils import download_url

    make_folder(path.parent)
    try:
        with atomic_file(path, sync=False) as partial:
            download_url(url, str(path.parent), filename=partial.name, md5=md5)
    except HTTPException as error:  # no OSError: what a proxy answers that is not HTTP
        raise OSError(f"no usable answer: {error!r}") from error


def fetch(url: str, path: Path, md5: str, *, allowed: bool, advice: str) -> Path:
    """Downloads a dataset's file to `path`, if that is allowed. Raises UserError with the advice if it fails."""
    reason = "dataset.download is false"
    if allowed:
        try:
            download(url + path.name, path, md5)
            return path
        except (OSError, RuntimeError) as error:
            reason = f"cannot be downloaded ({error})"
    raise UserError(f"dataset {path.parent.name}: {path.name} is not there, and {reason}.\n{advice}")


def cached_dir(folder: Path, fill: Callable[[Path], None]) -> Path:
    """`folder`. If it is missing, `fill` writes a temporary one, which is then renamed: it is complete or absent."""
    if folder.is_dir():
        return folder
    partial = partial_name(folder)
    make_folder(partial)
    try:
        fill(partial)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def read_array(path: Path) -> Tensor:
    """A .npy file, memory-mapped; writing to the tensor does not change the file."""
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
