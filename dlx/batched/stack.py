"""Several trainings as one program: each step takes one optimizer step of every member.

Each member keeps its `Loop`: order and noise of its data, schedule, logs, validations, best weights, checkpoints. The
members share the arithmetic (`VmappedSystem`, `StackedOptimizer`). A member's result is that of its own run, to
rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from dlx.batched.loader import StackedLoader
from dlx.batched.optimizer import StackedOptimizer
from dlx.batched.rules import flatten
from dlx.batched.vmapped import NotBatchable, VmappedSystem
from dlx.data.dataset import Dataset
from dlx.data.loader import DeviceLoader, WindowsLoader
from dlx.random import reseed
from dlx.tasks.system import Batch, System
from dlx.tracking.recorder import Display
from dlx.training.clock import Clock
from dlx.training.diverged import Diverged
from dlx.training.evaluate import counters, evaluate
from dlx.training.interval import Due, Interval
from dlx.training.loop import Loop
from dlx.training.signals import Signals
from dlx.training.trainer import Trainer

REBUILD_SHARE = 0.25  # share of ended members from which the stack is rebuilt without them


def check_batchable(trainer: Trainer, loop: Loop) -> None:
    """Raises NotBatchable for features that only a single training has."""
    system, loader = loop.system, loop.loaders.train
    reasons = {
        "trainer.accumulate": trainer.accumulate > 1,
        "trainer.precision": trainer.precision != "fp32",
        "trainer.ema": trainer.ema is not None,
        "trainer.compile": trainer.compile,
        "several objectives, or none": len(system.objectives()) != 1,
        "before_step": system.defines("before_step"),
        "stages": len(loop.state.stages) > 1,
        "views": bool(system.views),
        "a loss that compares the samples of a batch": system.whole_batch,
        "a fit after the training": system.defines("fit") and bool(system.objectives()),
        "no evaluation": not system.defines("evaluate"),
        "an evaluation that looks at training data": system.defines("before_evaluation"),
        "batches of similar length": bool(loader.lengths),
        "a dataset that acts": type(loop.loaders.dataset).prepare is not Dataset.prepare,
        "windows of a stream": isinstance(loader, WindowsLoader),
        "data that do not stay on the device": not isinstance(loader, DeviceLoader | WindowsLoader),
    }
    alone = [part for hook in ("around_loss", "on_gradients", "after_step") for part in loop.hooks[hook]]
    reasons |= {f"regularization.{name}": part in alone for name, part in loop.regularizers.items()}
    for reason, holds in reasons.items():
        if holds:
            raise NotBatchable(reason)


class Stack:
    """Members at the same step. A member that ended keeps its row until the stack is rebuilt. Raises NotBatchable."""

    def __init__(self, trainer: Trainer, loops: Sequence[Loop], program: VmappedSystem | None = None) -> None:
        for loop in loops:
            check_batchable(trainer, loop)
        shares = [sum(part.soft_labels for part in parts) / len(parts) for parts in loops[0].batch_hooks]
        if len({loop.seed for loop in loops}) > 1 and any(shares) and 1 not in shares:
            raise NotBatchable("labels are soft in some batches only, and in others of each member")
        self.trainer, self.loops = trainer, list(loops)
        self.active = [True] * len(loops)
        self.clip_norm = trainer.clip_norm
        first = loops[0]
        self.device, self.is_cpu = first.dist.device, first.dist.device.type == "cpu"
        self.program = program or VmappedSystem(first.system, first.hooks["penalty"])
        names = {p: name for name, p in first.system.named_parameters()}
        try:
            self.optimizer = StackedOptimizer([loop.optimizers[0] for loop in loops], names, first.state.step)
        except ValueError as error:
            raise NotBatchable(str(error)) from None
        trained = {name: view for group in self.optimizer.groups for name, view in group.views.items()}
        self.params = {name: trained[name] for name in names.values() if name in trained}
        tensors = [dict(named_tensors(loop.system)) for loop in loops]
        self.buffers: dict[str, Tensor] = {}  # and parameters that are not trained; the members' own become views
        for name in [name for name in tensors[0] if name not in trained]:
            self.buffers[name] = torch.stack([own[name].detach() for own in tensors])
            for own, row in zip(tensors, self.buffers[name], strict=True):
                own[name].data = row
        self.loader = StackedLoader([cast(DeviceLoader, loop.loaders.train) for loop in loops])
        self.pending = self._take_pending()
        self.finite = torch.ones(len(loops), dtype=torch.bool, device=self.device)
        self.bad_step = torch.zeros(len(loops), dtype=torch.int64, device=self.device)

    def _take_pending(self) -> dict[str, list[Tensor]]:
        """Takes over the scalars that the members noted since their last row (a checkpoint can hold some)."""
        noted = [loop.state.pending for loop in self.loops]
        if len({tuple((name, len(values)) for name, values in own.items()) for own in noted}) > 1:
            raise NotBatchable("the members noted different scalars since their last row")
        for loop in self.loops:
            loop.state.pending = {}
        return {
            name: [torch.stack(values) for values in zip(*(own[name] for own in noted), strict=True)]
            for name in noted[0]
        }

    def _write_back(self, row: int) -> None:
        """The member's loop has the state that it would have alone."""
        self.optimizer.write_back(row)
        self.loops[row].state.pending = {name: [own[row] for own in noted] for name, noted in self.pending.items()}

    @property
    def members(self) -> list[tuple[int, Loop]]:
        return [(row, loop) for row, loop in enumerate(self.loops) if self.active[row]]

    def own(self, batch: Batch, row: int) -> Batch:
        """A member's part of a stacked batch, in the memory format of its own run."""
        return self.loops[row].to_memory_format({name: tensor[row] for name, tensor in batch.items()})

    def regularized(self, batch: Batch) -> Batch:
        """Applies each member's regularizers to its batch."""
        if not self.loops[0].batch_hooks:
            return batch
        changed = [loop.regularized(self.own(batch, row)) for row, loop in enumerate(self.loops)]
        return {name: torch.stack([own[name] for own in changed]) for name in changed[0]}

    def counters(self, *, evaluating: bool = False) -> Batch:
        """The counters of a batch (`step`, `stage`, `progress`), equal for all members."""
        own = counters(self.device) if evaluating else self.loops[0].counters
        return {name: value.expand(len(self.loops)) for name, value in own.items()}

    def drawn(self, batch: Batch) -> list[Tensor]:
        """The random tensors of the forward pass, drawn per member from its own counters."""
        draws = self.program.draws(batch)
        if not draws:
            return []
        members = []
        for loop in self.loops:
            reseed(loop.seed, loop.objectives[0].name, loop.state.step, 0, loop.dist.rank, device=self.device)
            members.append([draw() for draw in draws])
        return [torch.stack(tensors) for tensors in zip(*members, strict=True)]

    def step(self, batch: Batch, step: int, logging: bool) -> dict[int, Diverged]:
        """One optimizer step of all members. Returns those whose loss or gradient is not finite, by row; they did not
        step. (On a GPU they are found when a row is logged.)"""
        for loop in self.loops:
            loop.set_lr()
        batch = {**self.regularized(batch), **self.counters()}
        losses, logs, grads = self.program.gradients(self.params, self.buffers, batch, self.drawn(batch))
        named = dict(zip(self.params, grads, strict=True))
        matrices = [flatten({name: named[name] for name in group.views}) for group in self.optimizer.groups]
        norms = None
        if logging or self.clip_norm is not None:
            norms = torch.stack([matrix.square().sum(1) for matrix in matrices]).sum(0).sqrt()
            if self.clip_norm is not None:
                scale = (self.clip_norm / (norms + 1e-6)).clamp(max=1.0)
                matrices = [matrix * scale.unsqueeze(1) for matrix in matrices]
        self._note("loss", losses)
        for name, values in logs.items():
            self._note(name, values)
        if logging and norms is not None:
            self._note("grad_norm", norms)
        diverged = self._check(losses, norms, batch["index"], step)
        self.optimizer.step(matrices, None if self.is_cpu else self.finite)
        return diverged

    def _note(self, name: str, values: Tensor) -> None:
        self.pending.setdefault(f"train/{name}", []).append(values.detach())

    def _check(self, losses: Tensor, norms: Tensor | None, index: Tensor, step: int) -> dict[int, Diverged]:
        finite = torch.isfinite(losses) if norms is None else torch.isfinite(losses) & torch.isfinite(norms)
        if not self.is_cpu:
            first = ~finite & self.finite
            self.bad_step = torch.where(first, step + 1, self.bad_step)
            self.finite = self.finite & finite
            return {}
        if finite.all():
            return {}
        diverged = {}
        for row, loop in self.members:
            try:
                loop.check_finite(losses[row].item(), None if norms is None else norms[row].item(), index[row])
            except Diverged as error:
                diverged[row] = error
        return diverged

    def read_pending(self) -> tuple[list[dict[str, float]], dict[int, Diverged]]:
        """Each member's means since the last row, in one transfer, and the members that diverged since."""
        names = list(self.pending)
        means = torch.stack([torch.stack(noted).double().mean(0) for noted in self.pending.values()], 1)
        self.pending = {}
        values, bad = means.tolist(), self.bad_step.tolist()
        diverged = {
            row: Diverged(f"a loss or gradient is not finite at step {bad[row]}", bad[row])
            for row, _ in self.members
            if bad[row]
        }
        return [dict(zip(names, row, strict=True)) for row in values], diverged

    def evaluate(self, loaders: Sequence[Any]) -> list[dict[str, float]]:
        """Each member's metrics on its own split."""
        sizes = {(len(loader.split), loader.batch_size) for loader in loaders}
        if len(sizes) > 1 or not all(isinstance(loader, DeviceLoader) for loader in loaders):
            pairs = zip(self.loops, loaders, strict=True)
            return [evaluate(loop.system, loader, loop.dist, loop.seed) for loop, loader in pairs]
        sums: dict[str, Tensor] = {}
        extra = self.counters(evaluating=True)
        for batch in StackedLoader(loaders).eval_batches():
            batch = {**batch, **extra}
            for name, value in self.program.evaluate(self.params, self.buffers, batch).items():
                sums[name] = sums[name] + value if name in sums else value
        rows = ({name: value[row] for name, value in sums.items()} for row in range(len(self.loops)))
        return [loop.system.metrics(own) for loop, own in zip(self.loops, rows, strict=True)]

    def validate(self, display: Display) -> list[int]:
        """Validates the members and displays the mean of their metrics. Returns the rows of those that end here."""
        probes = [loop.loaders.probe for loop in self.loops]
        metrics = self.evaluate([loop.loaders.val for loop in self.loops])
        fitted = self.evaluate(probes) if probes[0] is not None else [None] * len(self.loops)
        ends = [row for row, loop in self.members if loop.on_validation(metrics[row], fitted[row])]
        shown = [metrics[row] for row, _ in self.members]
        means = {f"val/{name}": sum(own[name] for own in shown) / len(shown) for name in shown[0]}
        loop = self.members[0][1]
        display.row(loop.state.step, loop.epoch, means)
        return ends

    def save(self) -> dict[int, Diverged]:
        """Saves a checkpoint of each member. Returns those whose weights are not finite."""
        diverged = {}
        for row, loop in self.members:
            self._write_back(row)
            try:
                loop.save()
            except Diverged as error:
                diverged[row] = error
            loop.state.pending = {}
        return diverged

    def release(self, row: int) -> Loop:
        """Gives a member its own tensors back; its row in the stack is unused from then on."""
        loop = self.loops[row]
        self._write_back(row)
        self.optimizer.release(row)
        for name, tensor in named_tensors(loop.system):
            if name in self.buffers:
                tensor.data = tensor.data.clone()
        self.active[row] = False
        return loop

    def rebuilt(self) -> Stack:
        """A stack of the members that have not ended."""
        for row, _ in self.members:
            self._write_back(row)
        return Stack(self.trainer, [loop for _, loop in self.members], self.program)


def named_tensors(system: System) -> Iterator[tuple[str, Tensor]]:
    yield from system.named_buffers()
    yield from system.named_parameters()


Ended = Callable[["Loop", Diverged | None], None]


def fit_stack(stack: Stack, ended: Ended, display: Display) -> int:
    """Trains the members, and calls `ended` with each as it ends.

    Returns the signal that ended the stack (all members are saved then), or 0.
    """
    trainer, first = stack.trainer, stack.loops[0]
    step, total, per_epoch = first.state.step, first.total, first.loaders.train.steps_per_epoch
    validation = Due(Interval.parse(trainer.validate_every, per_epoch))
    saving = Due(Interval.parse(trainer.checkpoint_every, per_epoch))
    received = 0

    def end(row: int, spent: float, diverged: Diverged | None = None, signum: int = 0) -> None:
        loop = stack.release(row)
        loop.state.seconds += spent
        try:
            if diverged:
                diverged = diverged.explained(loop.loaders.train)
            else:
                loop.finish(signum)
        except Diverged as error:  # its last weights cannot be saved
            diverged = error
        ended(loop, diverged)

    display.begin(step, total, per_epoch, first.shown_metrics)
    with Signals() as signals:
        clock = Clock(step)
        for row, loop in stack.members:
            if loop.state.stopped_of == total > step:  # it had stopped when what comes after was cut off
                end(row, 0.0)
        while step < total and stack.members and not received:
            if len(stack.members) <= (1 - REBUILD_SHARE) * len(stack.loops):
                stack = stack.rebuilt()
            epoch, position = divmod(step, per_epoch)
            batches = stack.loader.epoch(epoch, position)
            for _ in range(min(per_epoch - position, total - step)):
                batch = clock.next(batches)
                logging = (step + 1) % trainer.log_every == 0 or step + 1 == total
                diverged = stack.step(batch, step, logging)
                rows: list[dict[str, float]] = []
                if logging:
                    rows, found = stack.read_pending()
                    diverged |= found
                with clock.stopped() as spent:
                    for row, error in diverged.items():
                        end(row, spent, error)
                step += 1
                for _, loop in stack.members:
                    loop.system.after_step(loop.state.step)
                    loop.state.step = step
                received = signals.received
                if logging:
                    times = clock.read(step)
                    for row, loop in stack.members:
                        loop.log(rows[row], times)
                with clock.stopped() as spent:
                    stops: list[int] = []
                    if stack.members and (validation.at(step) or step == total):
                        stops = stack.validate(display)
                        for row in stops if step < total else ():
                            if not stack.loops[row].pruned:
                                stack.loops[row].state.stopped_of = total
                            end(row, spent)
                    if saving.at(step) and step < total:
                        unsaved = stack.save()
                        for row, error in unsaved.items():
                            end(row, spent, error)
                        diverged |= unsaved
                if diverged or stops or received:
                    break
        with clock.stopped() as spent:
            for row, _ in stack.members:
                end(row, spent, signum=received if step < total else 0)
    display.end()
    return received if step < total else 0
