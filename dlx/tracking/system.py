"""system.jsonl: CPU, memory and GPU use of the training process."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from dlx.runs.metrics import MetricsWriter

EVERY_SECONDS = 10.0
MIB = 2**20


def _resident() -> int:
    """Bytes of memory that the process holds; where the system does not say (macOS), the most it ever held."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _device() -> dict[str, float]:
    """Memory of the CUDA device, if the process uses one; does not import torch."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    try:
        free, total = torch.cuda.mem_get_info()
        return {
            "gpu/allocated_mib": round(torch.cuda.memory_allocated() / MIB, 1),
            "gpu/peak_mib": round(torch.cuda.max_memory_allocated() / MIB, 1),
            "gpu/used_share": round(1 - free / total, 4),
        }
    except RuntimeError:  # after an error of the device, which ends the run with words of its own
        return {}


class SystemMonitor:
    """A row now, every ten seconds and at the end, from a thread: `cpu/percent` (100 is one core, of this process
    since the last row), `memory/mib` (resident), `gpu/...`."""

    def __init__(self, path: Path, every: float = EVERY_SECONDS) -> None:
        self._writer = MetricsWriter(path)
        self._every = every
        self._stop = threading.Event()
        self._clock, self._cpu = time.monotonic(), time.process_time()
        self._thread = threading.Thread(target=self._work, daemon=True, name="system-monitor")
        self._thread.start()

    def _row(self) -> dict[str, Any]:
        clock, cpu = time.monotonic(), time.process_time()
        busy = (cpu - self._cpu) / max(clock - self._clock, 1e-9)
        self._clock, self._cpu = clock, cpu
        return {"cpu/percent": round(100 * busy, 1), "memory/mib": round(_resident() / MIB, 1), **_device()}

    def _work(self) -> None:
        self._write()
        while not self._stop.wait(self._every):
            self._write()

    def _write(self) -> None:
        with suppress(OSError):  # of /proc, where the process has no descriptor left
            self._writer.write(self._row())

    def stop(self) -> None:
        """Writes the last row."""
        self._stop.set()
        self._thread.join()
        self._write()
        self._writer.close()

    @property
    def losses(self) -> str | None:
        return self._writer.losses
