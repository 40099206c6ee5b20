"""The processes that train one run together, under torchrun. With one process the calls do nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from dlx.config.errors import UserError


def world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    text = os.environ.get("WORLD_SIZE") or "1"
    if not text.isdecimal() or not int(text):
        raise UserError(f"WORLD_SIZE={text}: must be a whole number from 1; torchrun sets it")
    return int(text)


def prints() -> bool:
    """Whether this process tells the result: torchrun's first, or the only one."""
    return world_size() == 1 or os.environ.get("RANK", "0") == "0"


def choose_device(name: str) -> torch.device:
    """`auto` takes cuda, then mps, then cpu. Raises UserError naming trainer.device for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"trainer.device: no such device {name!r}; auto, cuda, cuda:1, mps and cpu are known") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"trainer.device: {name} is not there ({torch.cuda.device_count()} CUDA devices); try auto or cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("trainer.device: mps is not there; try auto or cpu")
    return device


@dataclass(frozen=True)
class Dist:
    """This process's rank among `size`, and its device."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @classmethod
    def init(cls, device: str) -> Dist:
        """Joins the process group of torchrun (which sets RANK, WORLD_SIZE, LOCAL_RANK); without it, one process."""
        size = world_size()
        if size == 1:
            return cls(choose_device(device))
        chosen = choose_device(device)
        if chosen.type == "cuda":
            chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(chosen)
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        return cls(chosen, distributed.get_rank(), size)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Adds a tensor over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def all_gather(self, items: list[Any]) -> list[Any]:
        """Joins lists over all processes."""
        if self.size == 1:
            return items
        parts: list[Any] = [None] * self.size
        distributed.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def broadcast(self, value: Any) -> Any:
        """Process 0's value."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def average_gradients(self, params: list[torch.nn.Parameter]) -> None:
        """One flat all-reduce over all gradients, for systems that DDP cannot wrap."""
        gradients = [p.grad for p in params if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        parts = (flat / self.size).split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])

    def broadcast_buffers(self, module: torch.nn.Module) -> None:
        """Gives all processes the buffers of process 0 (running statistics), before they evaluate."""
        if self.size > 1:
            for buffer in module.buffers():
                distributed.broadcast(buffer, src=0)

    def destroy(self) -> None:
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()
