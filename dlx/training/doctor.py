"""Whether dlx works here: versions, devices, folders, optional packages, and a real training of seconds."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from dlx.config import compose
from dlx.data.files import data_root
from dlx.runs.folder import RunFolder
from dlx.training.distributed import choose_device
from dlx.training.run import train

PACKAGES = (
    "dlx", "torch", "torchvision", "numpy", "hydra-core", "omegaconf", "typer", "safetensors", "scikit-learn",
    "matplotlib", "wandb",
)  # fmt: skip
SECONDS = 10
GOOD_ACCURACY = 0.9  # ten epochs reach 0.97


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    return {"python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}}


def extras() -> dict[str, dict[str, str | None]]:
    """What each extra of the installed dlx brings, by extra: package and version, None where it is missing."""
    found: dict[str, dict[str, str | None]] = {}
    try:
        required = importlib.metadata.requires("dlx") or []
    except importlib.metadata.PackageNotFoundError:  # a checkout that was not installed
        return found
    for line in required:
        package, extra = re.match(r"[\w.-]+", line), re.search(r"""extra\s*==\s*['"]([\w-]+)""", line)
        if package and extra and package[0] != "dlx":  # "all" and "test" list other extras
            found.setdefault(extra[1], {})[package[0]] = version(package[0])
    return found


def devices() -> dict[str, dict[str, Any]]:
    """cpu, and what else there is: names, memory in GiB, and whether it computes in bf16 itself."""
    able = torch.cpu.get_capabilities()
    found: dict[str, dict[str, Any]] = {
        "cpu": {
            "name": able.get("cpu_name") or able.get("architecture", ""),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "bf16": any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")),
        }
    }
    for number in range(torch.cuda.device_count()):
        try:
            found[f"cuda:{number}"] = _cuda(number)
        except RuntimeError as error:  # a driver that does not fit, a device that others hold
            found[f"cuda:{number}"] = {"name": f"NOT usable: {str(error).splitlines()[0]}", "bf16": False}
    if torch.backends.mps.is_available():
        memory = torch.mps.recommended_max_memory() / 2**30
        found["mps"] = {"name": "Apple GPU", "memory_gib": round(memory, 1), "bf16": _computes_bf16("mps")}
    return found


def _cuda(number: int) -> dict[str, Any]:
    with torch.cuda.device(number):
        free, total = torch.cuda.mem_get_info()
        return {
            "name": torch.cuda.get_device_name(),
            "memory_gib": round(total / 2**30, 1),
            "free_gib": round(free / 2**30, 1),
            "bf16": torch.cuda.is_bf16_supported(including_emulation=False),
        }


def _computes_bf16(device: str) -> bool:
    try:
        torch.ones(2, 2, dtype=torch.bfloat16, device=device).mm(torch.ones(2, 2, dtype=torch.bfloat16, device=device))
    except (RuntimeError, TypeError):
        return False
    return True


def check_dir(path: Path) -> dict[str, Any]:
    """Whether files can be made at `path`, tried where it is or would be made, and the free space in GiB."""
    path = path.expanduser().absolute()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            writable = True
    except OSError:
        writable = False
    free = round(shutil.disk_usage(there).free / 2**30, 1)
    return {"path": str(path), "exists": path.exists(), "writable": writable, "free_gib": free}


def check_dirs(root: Path) -> dict[str, dict[str, Any]]:
    return {"runs": check_dir(root), "data": check_dir(data_root(None))}


def try_training(seconds: float = SECONDS) -> dict[str, Any]:
    """Trains a small network on digits, in a temporary folder. `ok`, and `reason` where it is not.

    seconds: after which it ends at the next validation; there are ten.
    """
    deadline = time.monotonic() + seconds
    found: dict[str, Any] = {"ok": False, "device": str(choose_device("auto"))}
    with tempfile.TemporaryDirectory(prefix="dlx-doctor-") as folder:
        words = ["model=mlp", "data=digits", "trainer.epochs=10"]
        try:
            result = train(
                compose([*words, f"output_root={folder}"]), quiet=True, command=["dlx", "doctor"],
                should_prune=lambda _: time.monotonic() > deadline,
            )  # fmt: skip
            summary = RunFolder(result.run).summary()
        except Exception as error:  # whatever is wrong here is what is asked for
            return {**found, "reason": f"{type(error).__name__}: {error}"}
    if result.status == "pruned":
        return {**found, "reason": f"not done after {seconds:g} s, where 1 to 2 s are usual"}
    if result.code or not summary:
        return {**found, "reason": f"{result.status}: {result.reason}"}
    accuracy = summary["test/accuracy"]
    found |= {"accuracy": accuracy, "throughput": summary.get("train/throughput", 0.0), "seconds": summary["seconds"]}
    if accuracy < GOOD_ACCURACY:
        return {**found, "reason": f"accuracy {accuracy:.4f}, where {GOOD_ACCURACY} is the least to expect"}
    return {**found, "ok": True}
