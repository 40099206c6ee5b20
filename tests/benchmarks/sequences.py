"""Tokens a second: gpt and lstm through a bare PyTorch loop, dlx and the HF Trainer; the cache of keys; buckets.

    make bench
    python tests/benchmarks/sequences.py --rounds 5 --sides bare,dlx

One thread, pinned to one core; the sides take turns within a round, and what is printed are medians, of the ratios to
the bare loop of the same round too. The same module, windows, batch, steps and optimizer (Adam, one kernel); no
validation; the clock stops before checkpoints. Tokens are drawn at random: the time does not depend on them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from loop import hf_seconds, train_seconds
from torch import Tensor, nn

from dlx.data.dataset import Dataset, TensorSource, Windows
from dlx.data.reverse import Reverse
from dlx.models.sequence.gpt import GPT
from dlx.models.sequence.lstm import LSTM
from dlx.random import reseed
from dlx.tasks.sequence import SequenceModel
from dlx.tasks.spec import Streams, Tokens

VOCABULARY, LENGTH, BATCH = 65, 65, 16
SPEC = Streams(tokens=Tokens(vocabulary=VOCABULARY, length=LENGTH))
WORDS = {"gpt": ["model.dim=384", "model.depth=6", "model.heads=6"], "lstm": ["model.hidden=384", "model.num_layers=2"]}


def make(name: str) -> SequenceModel:
    torch.manual_seed(0)
    if name == "gpt":
        return GPT(spec=SPEC, dim=384, depth=6, heads=6, dropout=0.0)
    return LSTM(spec=SPEC, hidden=384, num_layers=2)


def stream(steps: int) -> Tensor:
    """As many tokens as `steps` batches of windows read."""
    rng = torch.Generator().manual_seed(0)
    return torch.randint(VOCABULARY, (steps * BATCH * (LENGTH - 1) + 1,), generator=rng)


def bare(name: str, steps: int) -> float:
    """A loop over windows of a tensor, as one writes it by hand for speed."""
    network, tokens = make(name).train(), stream(steps)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    starts, within = torch.arange(steps * BATCH) * (LENGTH - 1), torch.arange(LENGTH)
    begin = time.perf_counter()
    for index in torch.randperm(len(starts)).split(BATCH):
        x_BL = tokens[starts[index].unsqueeze(1) + within]
        logits_BLV = network(x_BL)[:, :-1]
        loss = nn.functional.cross_entropy(logits_BLV.flatten(0, 1), x_BL[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - begin


def dlx(name: str, steps: int) -> float:
    tokens = stream(steps)

    class Random(Dataset):
        spec = SPEC

        def splits(self):
            train = Windows(tokens, LENGTH, stride=LENGTH - 1)
            few = Windows(tokens[: 4 * LENGTH], LENGTH, stride=LENGTH - 1)
            return {"train": train, "val": few, "test": few}

    words = [f"model={name}", *WORDS[name], "trainer=default", "trainer.epochs=1", f"data.batch_size={BATCH}"]
    return train_seconds(Random(), words)


def hf(name: str, steps: int) -> float:
    """The HF Trainer with a dataset of windows."""
    network, tokens = make(name), stream(steps)

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, tokens, labels):
            logits_BLV = self.network(tokens)[:, :-1]
            return {"loss": nn.functional.cross_entropy(logits_BLV.flatten(0, 1), labels[:, 1:].flatten())}

    class Rows(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return steps * BATCH

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            window = tokens[index * (LENGTH - 1) :][:LENGTH]
            return {"tokens": window, "labels": window}

    return hf_seconds(Module(), Rows(), BATCH, max_grad_norm=0.0)


SIDES: dict[str, Callable[[str, int], float]] = {"bare": bare, "dlx": dlx, "hf trainer": hf}


def sampled(length: int, use_cache: bool) -> tuple[float, Tensor]:
    """Seconds that a GPT takes for `length` tokens, and the tokens."""
    spec = Streams(tokens=Tokens(vocabulary=VOCABULARY, length=length + 1))
    torch.manual_seed(0)
    network = GPT(spec=spec, dim=384, depth=6, heads=6).eval()
    reseed(0, "sample")
    begin = time.perf_counter()
    with torch.no_grad():
        *_, made = network.sample(1, length=length, use_cache=use_cache)
    return time.perf_counter() - begin, made["tokens"]


def batched(buckets: bool, steps: int) -> int:
    """Tokens, padding included, of an epoch of strings of 4 to 64 letters; buckets: batches of similar length."""
    from dlx.data.loader import make_loader
    from dlx.data.splits import SplitSettings

    data = Reverse(samples=32 * steps, shortest=4, longest=64)
    settings = SplitSettings(batch_size=32)
    split = settings.split(data)["train"]
    if not buckets:
        assert isinstance(split.source, TensorSource)
        split.source.lengths = None
    loader = make_loader(split, data.spec.entries, settings, device=torch.device("cpu"))
    return sum(batch["source"].numel() + batch["target"].numel() for batch in loader.epoch(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", default="gpt,lstm")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--length", type=int, default=255, help="of the text that is sampled")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.chdir(tempfile.mkdtemp())
    for name in asked.networks.split(","):
        seconds: dict[str, list[float]] = {side: [] for side in asked.sides.split(",")}
        for _ in range(asked.rounds):
            for side, times in seconds.items():
                times.append(SIDES[side](name, asked.steps))
        tokens = asked.steps * BATCH * (LENGTH - 1)
        print(f"\n{name}: {tokens:,} tokens, medians of {asked.rounds} rounds")  # noqa: T201
        for side, times in seconds.items():
            ratio = statistics.median(t / b for t, b in zip(times, seconds["bare"], strict=True))
            speed = tokens / statistics.median(times)
            print(f"  {side:<14}{speed:10,.0f} tokens/s   {ratio:6.2f} x bare")  # noqa: T201
    ratios = []
    for _ in range(asked.rounds):
        (without, plain), (with_cache, made) = sampled(asked.length, False), sampled(asked.length, True)
        assert torch.equal(plain, made), "the cache changes what is sampled"
        ratios.append(without / with_cache)
    print(f"\n{asked.length} tokens with a cache: {statistics.median(ratios):.1f} times as fast, the same tokens")  # noqa: T201
    share = batched(True, 60) / batched(False, 60)
    print(f"batches of similar length: {share:.2f} of the tokens, padding included")  # noqa: T201
    print(f"\ntorch {torch.__version__}, 1 thread, {Path('/proc/loadavg').read_text().split()[0]} load")  # noqa: T201


if __name__ == "__main__":
    main()
