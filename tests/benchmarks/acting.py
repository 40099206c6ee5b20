"""Environment steps a second of DQN on CartPole: dlx beside a loop as one writes it by hand in a single file.

    make bench
    python tests/benchmarks/acting.py --rounds 5 --steps 3000

One thread, pinned to one core; the sides take turns within a round, and what is printed are medians of processor time,
of the ratios to the loop of the same round too. Both take one action in one environment and one update of the same
network on 128 transitions at each step (or 8 actions in 8 environments), with Adam in one kernel, a soft target, and
the same exploration; no validation. The loop steps gymnasium's environment (numpy), keeps transitions in numpy arrays,
and turns each batch into tensors, as cleanrl's single-file DQN does; dlx steps its own CartPole, and gymnasium's.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from loop import train_seconds
from torch import nn

from dlx.data.cartpole import CartPole
from dlx.data.gymnasium_ import Gymnasium

BATCH, REPLAY, WARMUP, HIDDEN = 128, 50_000, 200, 128
ACTING = {"replay": REPLAY, "warmup": WARMUP}


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2)
    )  # fmt: skip


def by_hand(steps: int, environments: int) -> float:
    import gymnasium

    games = gymnasium.vector.SyncVectorEnv(
        [lambda: gymnasium.make("CartPole-v1") for _ in range(environments)],
        autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
    )
    rng, online, target = np.random.default_rng(0), network(), network()
    target.load_state_dict(online.state_dict())
    optimizer = torch.optim.Adam(online.parameters(), lr=1e-3, fused=True)
    seen, after = (np.zeros((REPLAY, 4), np.float32) for _ in range(2))
    actions, rewards, ends = np.zeros(REPLAY, np.int64), np.zeros(REPLAY, np.float32), np.zeros(REPLAY, np.float32)
    now, _ = games.reset(seed=0)
    played, begin = 0, 0.0
    while played < WARMUP + steps * environments:
        if played == WARMUP:
            begin = time.process_time()
        epsilon = 0.01 + 0.89 * math.exp(-played / 2500)
        if played < WARMUP:
            chosen = rng.integers(2, size=environments)
        else:
            with torch.no_grad():
                best = online(torch.from_numpy(now)).argmax(1).numpy()
            chosen = np.where(rng.random(environments) < epsilon, rng.integers(2, size=environments), best)
        then, reward, terminated, truncated, more = games.step(chosen)
        last = then.copy()
        for number in np.flatnonzero(terminated | truncated):
            last[number] = more["final_obs"][number]
        rows = np.arange(played, played + environments) % REPLAY
        seen[rows], after[rows], actions[rows], rewards[rows], ends[rows] = now, last, chosen, reward, terminated
        now, played = then, played + environments
        if played <= WARMUP:
            continue
        drawn = rng.integers(min(played, REPLAY), size=BATCH)
        s, s2, a, r, d = (torch.from_numpy(values[drawn]) for values in (seen, after, actions, rewards, ends))
        with torch.no_grad():
            aim = r + 0.99 * (1 - d) * target(s2).amax(1)
        loss = F.smooth_l1_loss(online(s).gather(1, a.unsqueeze(1)).squeeze(1), aim)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for p, q in zip(target.parameters(), online.parameters(), strict=True):
                p.lerp_(q, 0.005)
    return time.process_time() - begin


def dlx(kind: type, steps: int, environments: int) -> float:
    """The processor's time from the end of the first step to the end of the last."""
    times = []

    class Timed(kind):
        def prepare(self, step, system):
            times.append(time.process_time())
            return super().prepare(step, system)

    data = Timed(**ACTING, environments=environments, update_every=environments, episodes=1, val_episodes=1)
    train_seconds(data, ["model=dqn", f"trainer.max_steps={steps + 2}"])
    return times[-1] - times[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.chdir(tempfile.mkdtemp())
    print(f"{asked.steps} updates of {BATCH} transitions, medians of {asked.rounds} rounds")  # noqa: T201
    for environments in (1, 8):
        sides = {
            "by hand": lambda: by_hand(asked.steps, environments),  # noqa: B023 (called at once)
            "dlx": lambda: dlx(CartPole, asked.steps, environments),  # noqa: B023
            "dlx, gymnasium": lambda: dlx(Gymnasium, asked.steps, environments),  # noqa: B023
        }
        rounds = [[play() for play in sides.values()] for _ in range(asked.rounds)]
        print(f"  {environments} environments, actions a second:")  # noqa: T201
        for name, column in zip(sides, zip(*rounds, strict=True), strict=True):
            ratio = statistics.median(own / row[0] for own, row in zip(column, rounds, strict=True))
            rate = asked.steps * environments / statistics.median(column)
            print(f"    {name:<16}{rate:8.0f}   {ratio:5.2f} x by hand")  # noqa: T201
    print(f"\ntorch {torch.__version__}, 1 thread, {Path('/proc/loadavg').read_text().split()[0]} load")  # noqa: T201


if __name__ == "__main__":
    main()
