"""Step: what one optimizer step does, in the order of its lines."""

from __future__ import annotations

import math
import signal
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlx.random import reseed
from dlx.tasks.spec import Image
from dlx.training.job import Diverged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from dlx.regularization.regularizer import Regularizer
    from dlx.tasks.system import Batch, Objective, System
    from dlx.training.job import Job, State
    from dlx.training.signals import Signals
    from dlx.training.trainer import Trainer

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SHOWN = 8  # samples that a message about a bad step names
_HOOKS = ("around_loss", "penalty", "on_gradients", "after_step", "on_validation")


def alternatives(regularizers: Iterable[Regularizer]) -> list[list[Regularizer]]:
    """Those that change batches, in the order of their places; the ones in one place together, but for place 9."""
    hooked = sorted((part for part in regularizers if part.defines("on_batch")), key=lambda part: part.order)
    grouped = groupby(enumerate(hooked), key=lambda item: (item[1].order, item[0] if item[1].order == 9 else 0))
    return [[part for _, part in group] for _, group in grouped]


class Step:
    """The objectives, their optimizers and the regularizers' hooks, and how a batch goes through them.

    Nothing here waits for the device: scalars stay on it in `state.pending` until `read_pending`.
    """

    def __init__(self, trainer: Trainer, job: Job, state: State) -> None:
        self.job, self.world, self.state, self.system = job, job.world, state, job.system
        self.accumulate, self.clip_norm, self.precision = trainer.accumulate, trainer.clip_norm, trainer.precision
        self.compile = trainer.compile
        self.to_channels_last = trainer.to_channels_last
        # Reading a CPU scalar waits for nothing. Elsewhere it stays on the device and is read with the next row.
        self.images = list(self.system.spec.of_kind(Image))
        self.reads_at_once = self.world.device.type == "cpu"
        self.bad_step = torch.zeros((), dtype=torch.int64, device=self.world.device)  # counted from 1; 0: none
        self.bad_index: Tensor = torch.zeros((), dtype=torch.int64, device=self.world.device)
        self.scaler = torch.amp.GradScaler(self.world.device.type) if self.precision == "fp16" else None
        parts = job.regularizers.values()
        self.hooks = {hook: [part for part in parts if part.defines(hook)] for hook in _HOOKS}
        self.places = alternatives(parts)
        device = self.world.device
        # Filled anew at each step, without a copy from the host.
        self.counters = {
            "step": torch.zeros((), dtype=torch.int64, device=device),
            "stage": torch.zeros((), dtype=torch.int64, device=device),
            "progress": torch.zeros((), device=device),
        }

    def begin_stage(self, stage: int, start: int, length: int) -> None:
        """The objectives of a stage that begins at a step and has so many, with optimizers of their own."""
        self.stage_start, self.stage_length = start, length
        self.counters["stage"].fill_(stage)
        self.objectives = self.system.objectives(stage)
        self.several = len(self.objectives) > 1
        # DDP takes one loss over all parameters that train, without gradients inside it.
        trained = {p for p in self.system.parameters() if p.requires_grad}
        whole = not self.several and self.objectives and trained == set(self.objectives[0].params)
        self.wraps = self.world.size > 1 and bool(whole) and self.system.compiles
        self.optimizers = self.job.make_optimizers(self.system, self.objectives)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        self.losses = [self._wrap(objective) for objective in self.objectives]

    def _wrap(self, objective: Objective) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
        """The objective's loss; DDP averages gradients as they come, where it can."""
        if not self.wraps:

            def loss_of(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
                return self.system.training_loss(batch, objective)

            return torch.compile(loss_of) if self.compile else loss_of
        wrapped = nn.parallel.DistributedDataParallel(_Loss(self.system, objective))
        return torch.compile(wrapped) if self.compile else wrapped

    @property
    def lr(self) -> float:
        """The learning rate of this step (the first optimizer's)."""
        return self.optimizers[0].param_groups[0]["lr"] if self.optimizers else 0.0

    @property
    def rates(self) -> dict[str, float]:
        """The learning rates of this step: `lr`, or `lr/PLAYER` of each."""
        if not self.several:
            return {"lr": self.lr}
        pairs = zip(self.objectives, self.optimizers, strict=True)
        return {f"lr/{objective.name}": optimizer.param_groups[0]["lr"] for objective, optimizer in pairs}

    def _named(self, name: str, objective: Objective) -> str:
        """Of several players each has rows of its own."""
        return f"train/{objective.name}/{name}" if self.several else f"train/{name}"

    def __call__(self, batch: Batch, logging: bool, signals: Signals) -> int:
        """One optimizer step. Of several processes it returns the signal that any of them received, or 0: the same
        answer on all."""
        seed, step, device, rank = self.job.seed, self.state.step, self.world.device, self.world.rank
        self.set_lr()
        micros, told = self._split(batch), 0
        if self.places or self.system.views:
            micros = [self.regularized(micro, number) for number, micro in enumerate(micros)]
        for micro in micros:
            micro.update(self.counters)
        for objective, optimizer, loss_of in zip(self.objectives, self.optimizers, self.losses, strict=True):
            if (step + 1) % objective.every:
                continue
            optimizer.zero_grad(set_to_none=True)
            losses: list[Tensor] = []
            for number, micro in enumerate(micros):
                reseed(seed, objective.name, step, number, rank, device=device)
                # Of the batch's mean: micro-batches of a partial batch may be of different sizes.
                share = 1.0 if len(micros) == 1 else len(micro["index"]) / len(batch["index"])
                last = number + 1 == len(micros)
                losses.append(self._backward(loss_of, objective, micro, share, last))
            loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
            if self.world.size > 1:
                told = self._share(loss, signals.received) or told
                if not self.wraps:
                    self.world.average_gradients(objective.params)
            self._note(self._named("loss", objective), loss)
            self._update(objective, optimizer, loss, batch, logging)
        if self.scaler and any((step + 1) % objective.every == 0 for objective in self.objectives):
            self.scaler.update()
        return told

    def set_lr(self) -> None:
        """The learning rates of this step, and the counters that the batch gets."""
        position = self.state.step - self.stage_start
        self.counters["step"].fill_(self.state.step)
        self.counters["progress"].fill_(position / max(1, self.stage_length))
        factor = self.job.schedule.factor(position, self.stage_length)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def regularized(self, micro: Batch, number: int = 0) -> Batch:
        """The micro-batch of that number as the regularizers change it."""
        seed, step, device, rank = self.job.seed, self.state.step, self.world.device, self.world.rank
        if self.system.views:
            original = self.system.views[0]
            drawn: Batch = {}
            for view in self.system.views:
                reseed(seed, f"view/{view}", step, number, rank, device=device)
                part: Any = self.system.augmentation
                drawn[view] = part.on_batch(micro, self.system)[original]
            micro = {**micro, **drawn}
        for regularizers in self.places:
            regularizer = regularizers[0]
            if len(regularizers) > 1:
                reseed(seed, "batch/choice", step, number, rank)
                regularizer = regularizers[int(torch.randint(len(regularizers), ()))]
            reseed(seed, f"batch/{type(regularizer).__name__}", step, number, rank, device=device)
            micro = regularizer.on_batch(micro, self.system)
        return micro

    def placed(self, batch: Batch) -> Batch:
        """The batch in the memory format that the system is in."""
        for name in self.images if self.to_channels_last else ():
            if name in batch:
                batch[name] = batch[name].contiguous(memory_format=torch.channels_last)
        return batch

    def _split(self, batch: Batch) -> list[Batch]:
        batch = self.placed(batch)
        if self.accumulate == 1:
            return [batch]
        chunks = {name: value.chunk(self.accumulate) for name, value in batch.items()}
        return [dict(zip(chunks, values, strict=True)) for values in zip(*chunks.values(), strict=True)]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.world.device.type, DTYPES[self.precision])

    def _backward(self, loss_of: Any, objective: Objective, micro: Batch, share: float, last: bool) -> Tensor:
        with ExitStack() as around:
            for regularizer in self.hooks["around_loss"]:
                around.enter_context(regularizer.around_loss(self.system))
            if not last and isinstance(loss_of, nn.parallel.DistributedDataParallel):
                around.enter_context(loss_of.no_sync())
            with self._autocast():
                loss, logs = loss_of(micro)
                for regularizer in self.hooks["penalty"]:
                    loss = loss + regularizer.penalty(self.system)
            if share < 1:
                loss = loss * share
            scaled = self.scaler.scale(loss) if self.scaler else loss
            scaled.backward(inputs=objective.params if self.several else None)
        for name, value in logs.items():
            self._note(f"train/{name}", value.detach())
        return loss.detach()

    def _share(self, loss: Tensor, mine: int) -> int:
        """Averages the loss over the processes, so that all take the same branch, and tells them of a signal that any
        of them received (its own number where it did, else SIGTERM)."""
        shared = self.world.sum_(torch.stack([loss / self.world.size, loss.new_tensor(float(mine > 0))]))
        loss.copy_(shared[0])
        return (mine or signal.SIGTERM) if shared[1].item() else 0

    def note(self, scalars: Mapping[str, Tensor]) -> None:
        """Scalars for the next row."""
        for name, value in scalars.items():
            self._note(f"train/{name}", torch.as_tensor(value, device=self.world.device))

    def _note(self, name: str, value: Tensor) -> None:
        self.state.pending.setdefault(name, []).append(value)

    def _update(
        self, objective: Objective, optimizer: torch.optim.Optimizer, loss: Tensor, batch: Batch, logging: bool
    ) -> None:
        if self.scaler:
            self.scaler.unscale_(optimizer)
        for regularizer in self.hooks["on_gradients"]:
            regularizer.on_gradients(objective.params)
        norm = None
        clip_norm = self.job.clip_norms.get(objective.name, self.clip_norm)
        if clip_norm is not None:
            norm = nn.utils.clip_grad_norm_(objective.params, clip_norm)
        elif logging:
            norm = nn.utils.get_total_norm([p.grad for p in objective.params if p.grad is not None])
        if logging and norm is not None:
            self._note(self._named("grad_norm", objective), norm)
        checked = None if self.scaler else norm  # the scaler itself skips steps whose gradients are infinite
        if self.reads_at_once:
            player = objective.name if self.several else ""
            self.check(loss.item(), None if checked is None else checked.item(), batch["index"], player)
        else:
            self._flag(loss, checked, batch["index"])
            if getattr(optimizer, "_step_supports_amp_scaling", False) and not self.scaler:
                optimizer.found_inf = (self.bad_step > 0).float()  # type: ignore[attr-defined]
        if self.scaler:
            self.scaler.step(optimizer)
        else:
            optimizer.step()

    def check(self, loss: float, norm: float | None, index: Tensor, player: str = "") -> None:
        """Before the update, so that the step that would do harm is not taken. Raises Diverged."""
        what = None
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        elif norm is not None and not math.isfinite(norm):
            what = f"the gradient's norm is {norm}"
        if what:
            samples = index.flatten()[:SHOWN].tolist()
            who = f"{player}: " if player else ""
            step = self.state.step + 1
            raise Diverged(f"{who}{what} at step {step} (lr {self.lr:g}, samples {samples}...)", step)

    def _flag(self, loss: Tensor, norm: Tensor | None, index: Tensor) -> None:
        """Keeps the first bad step and its samples on the device; gates fused updates from there on."""
        finite = torch.isfinite(loss) if norm is None else torch.isfinite(loss) & torch.isfinite(norm)
        is_first = ~finite & (self.bad_step == 0)
        self.bad_step = torch.where(is_first, self.state.step + 1, self.bad_step)
        shown = index.flatten()[:SHOWN]
        shown = nn.functional.pad(shown, (0, SHOWN - len(shown)), value=-1)  # a last batch may be smaller
        self.bad_index = torch.where(is_first, shown, self.bad_index)

    def read_pending(self) -> dict[str, float]:
        """Means of what was noted since the last row, in one transfer."""
        pending, self.state.pending = self.state.pending, {}
        means = [torch.stack(noted).double().mean() for noted in pending.values()]
        *values, bad_step = torch.stack([*means, self.bad_step.double()]).tolist()
        if bad_step:
            samples = [number for number in self.bad_index.tolist() if number >= 0]
            step = int(bad_step)
            raise Diverged(f"a loss or gradient is not finite at step {step} (samples {samples}...)", step)
        return dict(zip(pending, values, strict=True))


class _Loss(nn.Module):
    """A module whose forward is the loss, which is what DDP wraps."""

    def __init__(self, system: System, objective: Objective) -> None:
        super().__init__()
        self.system, self.objective = system, objective

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.system.training_loss(batch, self.objective)
