"""Samples a second of PixelCNN and PixelRNN at 28x28: one pixel at a time from a cache, and all of them anew for each.

    make bench
    python tests/benchmarks/densities.py --rounds 3 --networks "pixel_cnn,row"

One thread, pinned to one core; both sides take turns within a round and draw the same images, which is checked. What is
printed are medians over rounds, of the ratios within a round too. The networks are not trained: what is drawn does not
change the time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from dlx.models.generative.pixel_cnn import PixelCNN
from dlx.models.generative.pixel_rnn import PixelRNN
from dlx.random import reseed
from dlx.tasks.density import Autoregressive
from dlx.tasks.spec import Image, Images

SIDE = 28
SPEC = Images(image=Image(channels=1, height=SIDE, width=SIDE, mean=(0.0,), std=(1.0,), scale=1.0))
NETWORKS: dict[str, Callable[[], Autoregressive]] = {
    "pixel_cnn": lambda: PixelCNN(spec=SPEC, hidden=32, depth=7, head_width=32),
    "gated": lambda: PixelCNN(spec=SPEC, hidden=32, depth=7, head_width=32, gated=True),
    "row": lambda: PixelRNN(spec=SPEC, hidden=16, depth=7, head_width=32),
    "diagonal": lambda: PixelRNN(spec=SPEC, hidden=16, depth=7, head_width=32, layer="diagonal"),
}


def sampled(system: Autoregressive, count: int, use_cache: bool) -> tuple[float, Tensor]:
    """Seconds, and the images."""
    reseed(0, "sample")
    begin = time.perf_counter()
    *_, made = system.sample(count, use_cache=use_cache)
    return time.perf_counter() - begin, made["image"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--count", type=int, default=8, help="of the images that are drawn at a time")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"{asked.count} images of {SIDE}x{SIDE} at a time, medians of {asked.rounds} rounds")  # noqa: T201
    for name in asked.networks.split(","):
        torch.manual_seed(0)
        system = NETWORKS[name]().eval()
        rounds = []
        for _ in range(asked.rounds):
            (cached, drawn), (naive, again) = (sampled(system, asked.count, use_cache) for use_cache in (True, False))
            assert torch.equal(drawn, again), "the cache changes what is drawn"
            rounds.append((asked.count / cached, asked.count / naive, naive / cached))
        cached_rate, naive_rate, ratio = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(  # noqa: T201
            f"  {name:<12}{cached_rate:8.2f} samples/s with the cache {naive_rate:8.3f} without   {ratio:6.1f} times"
        )
    print(f"\ntorch {torch.__version__}, 1 thread, {Path('/proc/loadavg').read_text().split()[0]} load")  # noqa: T201


if __name__ == "__main__":
    main()
