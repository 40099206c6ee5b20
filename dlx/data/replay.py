"""Replay memory (Lin 1992; Mnih et al. 2013, arXiv:1312.5602): the last transitions, from which a batch is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.random import uniform_rows

if TYPE_CHECKING:
    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch

HELD = ("observation", "action", "reward", "next_observation", "terminated")
_DRAWS = 1 << 23  # different values of a float of `uniform_rows`


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
        device = self.tensors["action"].device
        # Two draws of 23 bits: one would leave out rows of a memory of millions.
        high_B, low_B = uniform_rows("replay", index.to(device) + draw % (1 << 40), 2).mul(_DRAWS).long().unbind(1)
        row_B = (high_B * _DRAWS + low_B) % self.filled
        return {name: tensor[row_B] for name, tensor in self.tensors.items()}

    def state(self) -> dict[str, Any]:
        return {"filled": self.filled, "next": self.next, "tensors": self.tensors}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError for a memory of another size."""
        sizes = {len(tensor) for tensor in state["tensors"].values()}
        if sizes - {self.size}:
            raise ValueError(f"replay: it held {sizes.pop()} transitions, not {self.size}")
        self.filled, self.next, self.tensors = state["filled"], state["next"], dict(state["tensors"])
