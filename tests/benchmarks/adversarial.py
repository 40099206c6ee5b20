"""Training steps a second of DCGAN and WGAN-GP: dlx beside a bare loop over the same modules.

    make bench
    python tests/benchmarks/adversarial.py --rounds 5 --systems dcgan --steps 200

One thread, pinned to one core; the sides take turns within a round, and what is printed are medians, of the ratios to
the bare loop of the same round too. A step is one turn of each player on a batch; the same modules, images, optimizers
(Adam, one kernel) and memory format; no validation; the clock stops before checkpoints. Images are drawn at random: the
time does not depend on what is on them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F
from loop import train_seconds
from torch import Tensor

from dlx.data.dataset import Dataset, TensorSource
from dlx.models.generative.dcgan import DCGAN
from dlx.tasks.spec import Image, Images

SIDE, BATCH, WIDTH, PENALTY = 28, 64, 32, 10.0
SPEC = Images(image=Image(channels=1, height=SIDE, width=SIDE, mean=(0.5,), std=(0.5,)))
SYSTEMS = {"dcgan": [], "wgan-gp": ["model.loss=wasserstein", f"model.penalty={PENALTY:g}"]}


def make(name: str) -> DCGAN:
    torch.manual_seed(0)
    more = {"loss": "wasserstein", "penalty": PENALTY} if name == "wgan-gp" else {}
    return DCGAN(spec=SPEC, generator_width=WIDTH, discriminator_width=WIDTH, **more)


def images(count: int) -> Tensor:
    return torch.randint(256, (count, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def slope_penalty(discriminator: torch.nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    share = torch.rand(len(real), 1, 1, 1)
    x = (share * real + (1 - share) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return PENALTY * (slope.flatten(1).norm(dim=1) - 1).square().mean()


def bare(name: str, steps: int) -> float:
    """Two turns on each batch, as one writes them by hand for speed."""
    system = make(name).train().to(memory_format=torch.channels_last)
    generator, discriminator = system.generator, system.discriminator
    players = [list(part.parameters()) for part in (discriminator, generator)]
    turns = [torch.optim.Adam(params, lr=2e-4, betas=(0.5, 0.999), fused=True) for params in players]
    data = SPEC.image.normalize(images(steps * BATCH)).contiguous(memory_format=torch.channels_last)
    begin = time.perf_counter()
    for index in torch.randperm(len(data)).split(BATCH):
        real = data[index]
        with torch.no_grad():
            fake = generator(torch.randn(BATCH, 100, 1, 1))
        on_real, on_fake = discriminator(real), discriminator(fake)
        if name == "wgan-gp":
            loss = on_fake.mean() - on_real.mean() + slope_penalty(discriminator, real, fake)
        else:
            loss = F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        turns[0].zero_grad()
        loss.backward(inputs=players[0])
        turns[0].step()
        on_fake = discriminator(generator(torch.randn(BATCH, 100, 1, 1)))
        loss = -on_fake.mean() if name == "wgan-gp" else F.softplus(-on_fake).mean()
        turns[1].zero_grad()
        loss.backward(inputs=players[1])
        turns[1].step()
    return time.perf_counter() - begin


class _Random(Dataset):
    """The images as a dlx dataset whose training split is all of them."""

    spec = SPEC

    def __init__(self, count: int) -> None:
        self.count = count

    def splits(self):
        few = TensorSource(image=images(BATCH))
        return {"train": TensorSource(image=images(self.count)), "val": few, "test": few}


def dlx(name: str, steps: int) -> float:
    widths = [f"model.{player}_width={WIDTH}" for player in ("generator", "discriminator")]
    batches = [f"data.batch_size={BATCH}", f"trainer.max_steps={steps}", "optim.betas=[0.5,0.999]"]
    return train_seconds(_Random(steps * BATCH), ["model=dcgan", *widths, *SYSTEMS[name], *batches])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.chdir(tempfile.mkdtemp())
    print(f"{asked.steps} steps of {BATCH} images of {SIDE}x{SIDE}, medians of {asked.rounds} rounds")  # noqa: T201
    for name in asked.systems.split(","):
        rounds = [(bare(name, asked.steps), dlx(name, asked.steps)) for _ in range(asked.rounds)]
        seconds = [statistics.median(column) for column in zip(*rounds, strict=True)]
        ratio = statistics.median(ours / theirs for theirs, ours in rounds)
        rates = "   ".join(f"{side} {asked.steps / s:6.1f}" for side, s in zip(("bare", "dlx"), seconds, strict=True))
        print(f"  {name:<10}steps a second: {rates}   {ratio:5.2f} x bare")  # noqa: T201
    print(f"\ntorch {torch.__version__}, 1 thread, {Path('/proc/loadavg').read_text().split()[0]} load")  # noqa: T201


if __name__ == "__main__":
    main()
