"""What a system is made of: layers, output shapes, parameters, FLOPs. Works on the meta device, without memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dlx.tasks.system import System


@dataclass(frozen=True)
class Row:
    """One layer: its dotted name, class, output shape without the batch, and own parameters."""

    name: str
    type: str
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Summary:
    """flops: of one forward pass of one sample; a multiply-add counts as 2."""

    rows: list[Row]
    parameters: int
    trainable: int
    flops: int


def summarize(system: System) -> Summary:
    """Runs one sample of the spec's shape through the system in eval mode. The system must be on the meta device."""
    rows: list[Row] = []

    def record(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                own = sum(p.numel() for p in module.parameters(recurse=False))
                rows.append(Row(name, type(module).__name__, tuple(output.shape[1:]), own))

        return hook

    leaves = [(name, module) for name, module in system.named_modules() if not any(module.children())]
    hooks = [module.register_forward_hook(record(name, module)) for name, module in leaves]
    modes = {module: module.training for module in system.modules()}
    system.eval()
    try:
        sample = torch.zeros(1, *system.spec.input_shape, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            system(sample)
    finally:
        for module, mode in modes.items():
            module.training = mode
        for hook in hooks:
            hook.remove()
    sizes = [(p.numel(), p.requires_grad) for p in system.parameters()]
    return Summary(
        rows, sum(n for n, _ in sizes), sum(n for n, trainable in sizes if trainable), counter.get_total_flops()
    )
