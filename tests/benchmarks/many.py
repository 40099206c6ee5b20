"""What many runs cost: the same members one after another, as one batched program, and as processes of their own.

    python tests/benchmarks/many.py                       16 seeds of the digits MLP, 200 epochs
    python tests/benchmarks/many.py --members 64 --device cuda --processes 0 -- data=fashion_mnist trainer.epochs=10

Run folders, validation, checkpoints and pictures included; one thread, pinned to one core; the sides take turns within
a round; medians of seconds and of the ratios of a round. `processes` is `dlx train` started anew for each member, of
which a few are timed and the time is scaled up.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from dlx.sweeps.executors.execution import Execution
from dlx.sweeps.grid import combine, compose_points, read_axes
from dlx.sweeps.sweep import start_sweep

SIDES = ("inprocess", "batched")


def sweep(executor: str, words: list[str], root: str) -> float:
    axes = read_axes([*words, f"output_root={root}"])
    points = compose_points(combine(axes), axes)
    started = time.perf_counter()
    swept = start_sweep(points, Execution(executor))
    assert swept.code == 0, swept
    return time.perf_counter() - started


def processes(count: int, words: list[str], root: str) -> float:
    started = time.perf_counter()
    for seed in range(count):
        command = [sys.executable, "-m", "dlx", "train", *words, f"seed={seed}", f"output_root={root}"]
        subprocess.run(command, check=True, capture_output=True)
    return (time.perf_counter() - started) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="members that are timed as processes; 0: none")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("words", nargs="*", default=["model=mlp", "trainer.epochs=200"])
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity") and options.device == "cpu":
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    words = [*options.words, f"trainer.device={options.device}", "trainer.threads=1"]
    seconds: dict[str, list[float]] = {side: [] for side in (*SIDES, "processes")}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as root:
            for side in SIDES:
                seconds[side].append(sweep(side, [*words, f"seed=range({options.members})"], root))
            if options.processes:
                seconds["processes"].append(options.members * processes(options.processes, words, root))
    for side, times in seconds.items():
        if times:
            ratio = statistics.median(a / b for a, b in zip(times, seconds["batched"], strict=True))
            print(f"{side:<12}{statistics.median(times):8.1f} s   {ratio:5.2f} times batched")  # noqa: T201


if __name__ == "__main__":
    assert Path("pyproject.toml").exists(), "run it in the repository"
    main()
