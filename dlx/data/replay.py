"""Replay memory (Lin 1992; Mnih et al. 2013, arXiv:1312.5602): the last transitions, from which a batch is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.random import derive

if TYPE_CHECKING:
    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch

HELD = ("observation", "action", "reward", "next_observation", "terminated")


class Replay:
    """The last `size` transitions, as a source. They stay on the device that they come from.

    A position of the source is no transition: which one it gives is drawn anew in each epoch, uniformly from what is
    filled. samples: positions, that is what an epoch draws. spec: of a transition.
    """

    def __init__(self, size: int, samples: int, spec: Spec) -> None:
        self.size, self.samples, self.spec = size, samples, spec
        self.filled, self.next = 0, 0  # both are known without the device
        self.tensors: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return self.samples

    def add(self, **rows: Tensor) -> None:
        """Transitions, [N, ...] each, in place of the oldest. Memory is taken with the first ones."""
        count = len(rows["action"])
        for name, row in rows.items():
            if name not in self.tensors:
                self.tensors[name] = row.new_zeros(self.size, *row.shape[1:])
            first = min(count, self.size - self.next)
            self.tensors[name][self.next : self.next + first] = row[:first]
            if first < count:
                self.tensors[name][: count - first] = row[first:]
        self.next = (self.next + count) % self.size
        self.filled = min(self.size, self.filled + count)

    def take(self, index: Tensor, draw: int = 0) -> Batch:
        """Raw transitions; of an empty memory zeros."""
        if not self.filled:
            entries = {name: self.spec.entries[name] for name in HELD}
            return {name: torch.zeros(len(index), *e.shape, dtype=e.dtype) for name, e in entries.items()}
        return self._at(self._rows(index, draw))

    @property
    def skipped(self) -> int:
        """How many of the oldest of a full memory are not drawn."""
        return 0

    def _at(self, row_B: Tensor) -> Batch:
        return {name: tensor[row_B] for name, tensor in self.tensors.items()}

    def _rows(self, index: Tensor, draw: int) -> Tensor:
        """Rows, uniformly from what is filled, for positions that are on the CPU."""
        device = self.tensors["action"].device
        # A batch is drawn by its first position, which no other of the epoch has: one draw for all of its rows.
        rng = torch.Generator(device).manual_seed(derive(draw, "replay", int(index[0])))
        if self.filled < self.size:
            return torch.randint(self.filled, (len(index),), device=device, generator=rng)
        count = self.size - self.skipped
        row_B = torch.randint(count, (len(index),), device=device, generator=rng)
        return (self.next + self.skipped + row_B) % self.size

    def state(self) -> dict[str, Any]:
        return {"filled": self.filled, "next": self.next, "tensors": self.tensors}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError for a memory of another size."""
        sizes = {len(tensor) for tensor in state["tensors"].values()}
        if sizes - {self.size}:
            raise ValueError(f"replay: it held {sizes.pop()} transitions, not {self.size}")
        self.filled, self.next, self.tensors = state["filled"], state["next"], dict(state["tensors"])


class FrameReplay(Replay):
    """The same of images whose channels are the last C frames of an environment, the newest last, and the first one
    repeated at an episode's start. Two frames of a transition are kept, of the 2 C that it has; a batch is the same.

    Shapes: N environments, B batch, C frames, H height, W width. Transitions of one environment are N rows apart.
    """

    def add(self, **rows: Tensor) -> None:
        seen_NCHW, after_NCHW = rows.pop("observation"), rows.pop("next_observation")
        newest_NHW = seen_NCHW[:, -1]
        self.stack, self.apart = seen_NCHW.shape[1], len(seen_NCHW)
        # How many frames back an observation reaches: none where all are alike, as at a start.
        alike_N = (seen_NCHW == newest_NHW.unsqueeze(1)).flatten(1).all(1)
        last_N = torch.arange(self.next - self.apart, self.next, device=alike_N.device) % self.size
        before_N = self.tensors["reach"][last_N] if self.filled else torch.zeros_like(rows["action"])
        reach_N = torch.where(alike_N, 0, (before_N + 1).clamp_max(self.stack - 1))
        super().add(frame=newest_NHW, after=after_NCHW[:, -1], reach=reach_N, **rows)

    @property
    def skipped(self) -> int:
        """Those whose frames before are overwritten."""
        return self.apart * (self.stack - 1)

    def _at(self, row_B: Tensor) -> Batch:
        batch = super()._at(row_B)
        back_C = torch.arange(self.stack - 1, -1, -1, device=row_B.device)
        back_BC = torch.minimum(back_C, batch.pop("reach").unsqueeze(1))
        seen_BCHW = self.tensors["frame"][(row_B.unsqueeze(1) - self.apart * back_BC) % self.size]
        batch["observation"] = seen_BCHW
        batch["next_observation"] = torch.cat([seen_BCHW[:, 1:], batch.pop("after").unsqueeze(1)], 1)
        del batch["frame"]
        return batch

    def state(self) -> dict[str, Any]:
        return {**super().state(), "stack": getattr(self, "stack", 1), "apart": getattr(self, "apart", 1)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.stack, self.apart = state["stack"], state["apart"]
