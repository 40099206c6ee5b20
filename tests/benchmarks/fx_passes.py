"""What the graph passes of dlx/batched/fx_passes.py gain: forward and backward of 16 stacked members, with and without.

    python tests/benchmarks/fx_passes.py

CPU time of one thread, the two sides in turn; medians of 40 rounds of 20 passes. Seen on one core: 1.68 for an MLP of
128 units, 1.43 for one of 64 with dropout and label smoothing, 0.95 for the small CNN.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from dlx.batched import vmapped
from dlx.batched.loader import SourceStore
from dlx.batched.stack import Stack
from dlx.config import compose
from dlx.tracking.recorder import Recorder
from dlx.training.distributed import Dist
from dlx.training.prepare import Preparer
from dlx.training.run import build_loop

MEMBERS, ROUNDS, PASSES = 16, 40, 20
SYSTEMS = (
    ["model=mlp", "model.hidden=[128]"],
    ["model=mlp", "model.hidden=[64]", "model.dropout=0.2", "reg=[label_smoothing]"],
    ["model=cnn"],
)


def passes_of(words: list[str], optimize: Callable[[Any], Any]) -> Callable[[], Any]:
    vmapped.optimize_graph = optimize
    prepare, store, dist = Preparer(), SourceStore(), Dist(torch.device("cpu"))
    folder: Any = SimpleNamespace(checkpoints=Path("unused"))
    configs = [compose([*words, f"seed={seed}"]) for seed in range(MEMBERS)]
    loops = [build_loop(prepare(config), dist, Recorder(), folder, None, store=store) for config in configs]
    stack = Stack(loops[0].trainer, loops)
    batch = {**stack.regularized(next(stack.loader.epoch(0, 0))), **stack.counters()}
    draws = stack.drawn(batch)

    def run() -> None:
        stack.program.gradients(stack.params, stack.buffers, batch, draws)

    run()  # which traces
    return run


def main() -> None:
    torch.set_num_threads(1)
    optimize = vmapped.optimize_graph
    for words in SYSTEMS:
        sides = {"with": passes_of(words, optimize), "without": passes_of(words, lambda graph: graph)}
        times: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(ROUNDS):
            for name in list(sides)[:: 1 if number % 2 else -1]:
                started = time.process_time()
                for _ in range(PASSES):
                    sides[name]()
                times[name].append((time.process_time() - started) / PASSES)
        ratio = statistics.median(a / b for a, b in zip(times["without"], times["with"], strict=True))
        ms = 1e3 * statistics.median(times["with"])
        print(f"{' '.join(words):<70} without / with {ratio:.2f}   with {ms:.2f} ms")  # noqa: T201


if __name__ == "__main__":
    main()
