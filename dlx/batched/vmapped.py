"""VmappedSystem: the forward and backward passes of M members as one, by torch.func.vmap over stacked parameters.

The vmapped passes are traced into plain tensor operations once for each shape of batch, and the trace is what runs:
vmap's own work in Python would cost half as much again at each step of a small network.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from dlx.batched.fx_passes import optimize_graph
from dlx.batched.random_replay import Draw, RecordRandom, ReplayRandom
from dlx.regularization.regularizer import Regularizer
from dlx.tasks.system import Batch, Statistics, System

Passes = Callable[..., tuple[list[str], list[Tensor]]]  # of stacked parameters, buffers, batch and draws
Trace = tuple[list[str], Callable[..., list[Tensor]]]  # names of what is logged or summed; what is run


class NotBatchable(Exception):
    """Members cannot train as one program; the message says why."""


class _Loss(nn.Module):
    def __init__(self, system: System, penalties: Sequence[Regularizer]) -> None:
        super().__init__()
        self.system, self.penalties = system.train(), penalties
        (self.objective,) = system.objectives()
        for regularizer in penalties:
            regularizer.penalty(system)  # it looks up its parameters while they are nn.Parameters

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, logs = self.system.training_loss(batch, self.objective)
        for regularizer in self.penalties:
            loss = loss + regularizer.penalty(self.system)
        return loss, logs


class _Evaluation(nn.Module):
    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system.eval()

    def forward(self, batch: Batch) -> Statistics:
        return self.system.evaluate(batch)


class VmappedSystem:
    """system: a member, whose structure is copied. penalties: regularizers that add a term to the loss."""

    def __init__(self, system: System, penalties: Sequence[Regularizer]) -> None:
        self._loss = _Loss(copy.deepcopy(system), penalties)
        self._evaluation = _Evaluation(copy.deepcopy(system))
        self._traces: dict[Any, Trace] = {}
        self._draws: dict[Any, list[Draw]] = {}

    def draws(self, batch: Batch) -> list[Draw]:
        """The random calls of one member's forward pass on a stacked batch of this shape."""
        key = _shapes(batch)
        if key not in self._draws:
            module = copy.deepcopy(self._loss)  # whose buffers may change
            with RecordRandom() as recording, torch.no_grad():
                module({name: tensor[0] for name, tensor in batch.items()})
            self._draws[key] = recording.found
        return self._draws[key]

    def gradients(
        self, params: dict[str, Tensor], buffers: dict[str, Tensor], batch: Batch, draws: Sequence[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        """Losses [M], logs by name [M], and the gradients of the parameters [M, ...] in their order. All that is given
        is stacked; buffers are changed in place. Raises NotBatchable."""
        names, values = self._run("loss", self._gradients, params, buffers, batch, draws)
        count = len(values) - len(params)
        return values[0], dict(zip(names, values[1:count], strict=True)), values[count:]

    def _gradients(
        self, params: dict[str, Tensor], buffers: dict[str, Tensor], batch: Batch, draws: Sequence[Tensor]
    ) -> tuple[list[str], list[Tensor]]:
        def loss(
            params: dict[str, Tensor], buffers: dict[str, Tensor], batch: Batch, draws: Sequence[Tensor]
        ) -> tuple[Tensor, dict[str, Tensor]]:
            with ReplayRandom(draws):
                return functional_call(self._loss, _named(params, buffers), (batch,))

        leaves = {name: tensor.detach().requires_grad_() for name, tensor in params.items()}
        losses, logs = vmap(loss, randomness="error")(leaves, buffers, batch, draws)
        grads = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
        if any(grad is None for grad in grads):
            raise NotBatchable("some parameters have no gradient")
        return list(logs), [losses.detach(), *logs.values(), *grads]

    def evaluate(self, params: dict[str, Tensor], buffers: dict[str, Tensor], batch: Batch) -> Statistics:
        """The members' sums of an evaluation, [M, ...] each."""
        names, values = self._run("evaluation", self._evaluate, params, buffers, batch, ())
        return dict(zip(names, values, strict=True))

    def _evaluate(
        self, params: dict[str, Tensor], buffers: dict[str, Tensor], batch: Batch, _: Sequence[Tensor]
    ) -> tuple[list[str], list[Tensor]]:
        def sums(params: dict[str, Tensor], buffers: dict[str, Tensor], batch: Batch) -> Statistics:
            return functional_call(self._evaluation, _named(params, buffers), (batch,))

        found = vmap(sums, randomness="error")(params, buffers, batch)
        return list(found), list(found.values())

    def _run(
        self,
        kind: str,
        passes: Passes,
        params: dict[str, Tensor],
        buffers: dict[str, Tensor],
        batch: Batch,
        draws: Sequence[Tensor],
    ) -> tuple[list[str], list[Tensor]]:
        key = kind, _shapes(batch)  # which also say how many members there are
        if key not in self._traces:
            self._traces[key] = _trace(passes, params, buffers, batch, draws)
        names, run = self._traces[key]
        with torch.no_grad():
            return names, run(*params.values(), *buffers.values(), *batch.values(), *draws)


def _named(params: dict[str, Tensor], buffers: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the wrapped system has them."""
    return {f"system.{name}": tensor for name, tensor in {**params, **buffers}.items()}


def _trace(
    passes: Passes, params: dict[str, Tensor], buffers: dict[str, Tensor], batch: Batch, draws: Sequence[Tensor]
) -> Trace:
    """Raises NotBatchable with torch's message for a call that vmap cannot follow, or only by a loop over members."""
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.nn.attention import SDPBackend, sdpa_kernel

    # All as it lies in memory, which a trace depends on, but for buffers, which would be changed.
    given = [*params.values(), *(buffer.clone() for buffer in buffers.values()), *batch.values(), *draws]
    names: list[str] = []

    def flat(*tensors: Tensor) -> list[Tensor]:
        """Tensors in, tensors out: with dictionaries each call of the trace would look through them in Python."""
        rest = iter(tensors)
        named = [{name: next(rest) for name in like} for like in (params, buffers, batch)]
        names[:], values = passes(*named, list(rest))
        return values

    try:
        # The fused attention kernels have no rule for stacks; the plain one is matrix products.
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            warnings.filterwarnings("error", message=".*performance drop because we have not yet implemented.*")
            return names, optimize_graph(make_fx(flat)(*given))
    except (RuntimeError, NotImplementedError, UserWarning, ValueError) as error:
        raise NotBatchable(_why(str(error))) from error


def _why(text: str) -> str:
    """The first line of torch's message, or the name of the operation that vmap has no rule for."""
    if missing := re.search(r"batching rule for (aten::\w+)", text):
        return f"torch cannot stack {missing[1]}"
    return text.strip().splitlines()[0]


def _shapes(batch: Batch) -> tuple[Any, ...]:
    return tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items())
