"""Summary of a system: layers, output shapes, parameters, FLOPs. Works on the meta device, without memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dlx.tasks.system import System

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Row:
    """One layer: its dotted name, class, output shape without the batch, and own parameters."""

    name: str
    type: str
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Summary:
    """flops: of one pass of one sample, forward, or where a system has no forward through its losses; a multiply-add
    counts as 2. None, and no rows, where the meta device cannot run it."""

    rows: list[Row]
    parameters: int
    trainable: int
    flops: int | None


def summarize(system: System) -> Summary:
    """Runs an example of the spec's shapes through the system in eval mode. The system must be on the meta device."""
    rows: dict[str, Row] = {}

    def record(name: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                own = sum(p.numel() for p in module.parameters(recurse=False))
                rows.setdefault(name, Row(name, type(module).__name__, tuple(output.shape[1:]), own))

        return hook

    leaves = [(name, module) for name, module in system.named_modules() if not any(module.children())]
    hooks = [module.register_forward_hook(record(name, module)) for name, module in leaves]
    modes = {module: module.training for module in system.modules()}
    system.eval()
    flops: int | None = None
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            samples = _run(system)
        flops = counter.get_total_flops() // samples
    except Exception:  # losses that read values, or need a gradient: what a meta tensor has not
        rows.clear()
    finally:
        for module, mode in modes.items():
            module.training = mode
        for hook in hooks:
            hook.remove()
    sizes = [(p.numel(), p.requires_grad) for p in system.parameters()]
    return Summary(list(rows.values()), sum(n for n, _ in sizes), sum(n for n, trainable in sizes if trainable), flops)


def _run(system: System) -> int:
    """Returns the number of samples that it ran: one where there is a forward of the inputs alone."""
    inputs = system.spec.inputs
    if has_forward(system) and len(inputs) == 1:
        (entry,) = inputs.values()
        system(entry.example(1, "meta"))
        return 1
    compute_losses(system, 2)
    return 2


def compute_losses(system: System, samples: int) -> None:
    """All losses of a meta system, on an example batch. Raises what they raise: some read values."""
    batch = {**system.spec.example(samples, "meta"), "step": torch.zeros((), dtype=torch.int64, device="meta")}
    batch |= {"stage": batch["step"], "progress": torch.zeros((), device="meta")}
    for view in system.views[1:]:
        batch[view] = batch[system.views[0]]
    for objective in system.objectives():
        system.training_loss(batch, objective)


def single_value_norms(system: System) -> list[str]:
    """Batch norms of a meta system that see a single value of each channel in a training batch of one sample, from
    which there is no variance. The system is left in training mode."""
    found = []
    norms = {name: part for name, part in system.named_modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)}

    def looks(name: str) -> Callable[..., None]:
        def look(part: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            if part.training and given[0].numel() == given[0].shape[1]:
                found.append(name)

        return look

    hooks = [part.register_forward_pre_hook(looks(name)) for name, part in norms.items()]
    try:
        compute_losses(system.train(), 1)
    except Exception:  # a norm's own, or of a loss that reads values; what was seen until then is seen
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(found))


def has_forward(system: System) -> bool:
    """True if the system can be called on its inputs."""
    return type(system).forward is not nn.Module.forward
