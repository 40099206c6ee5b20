"""Builds optimizers: parameter groups, parameters without weight decay, settings of single players."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer

from dlx.tasks.parameters import check_kinds, params_of_kind
from dlx.tasks.system import Objective, System


class ParamGroups:
    """The keys of the `optimizer` group that are not the optimizer's own.

    no_decay: kinds of parameters without weight decay: `norm` (of normalization layers), `bias`.
    players: settings by objective's name, merged over the common ones; with its own `_target_` it inherits nothing.
    `clip_norm` among them takes the place of trainer.clip_norm.
    """

    def __init__(self, *, no_decay: Sequence[str] = (), players: dict[str, Any] | None = None) -> None:
        self.no_decay = check_kinds("no_decay", no_decay)
        self.players: dict[str, dict[str, Any]] = {}
        self.clip_norms: dict[str, float] = {}
        for player, own in (players or {}).items():
            self.players[player] = {name: value for name, value in own.items() if name != "clip_norm"}
            if (norm := own.get("clip_norm")) is not None:
                if isinstance(norm, bool) or not isinstance(norm, int | float) or norm <= 0:
                    raise ValueError(f"players: {player}.clip_norm must be above 0, got {norm}")
                self.clip_norms[player] = norm

    def settings(self, common: dict[str, Any], player: str) -> dict[str, Any]:
        """The optimizer's settings for one player."""
        own = self.players.get(player, {})
        return dict(own) if "_target_" in own else {**common, **own}

    def groups(self, system: System, objective: Objective) -> list[dict[str, Any]]:
        """The objective's parameters in groups with and without weight decay, each in the system's order."""
        if not self.no_decay:
            return [{"params": objective.params}]
        spared = params_of_kind(system, self.no_decay)
        decayed = [p for p in objective.params if p not in spared]
        rest = [p for p in objective.params if p in spared]
        groups: list[dict[str, Any]] = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]


def build_optimizers(
    system: System,
    objectives: list[Objective],
    common: dict[str, Any],
    grouping: ParamGroups,
    make: Callable[..., Optimizer],
) -> list[Optimizer]:
    """One optimizer per objective.

    common: the optimizer's own settings with `_target_`; make(settings, params=groups) builds one from such settings.
    """
    return [
        make(
            _one_kernel(grouping.settings(common, objective.name), objective), params=grouping.groups(system, objective)
        )
        for objective in objectives
    ]


def _one_kernel(settings: dict[str, Any], objective: Objective) -> dict[str, Any]:
    """`fused: true` where the optimizer has it, its user left it open and it runs on this device: the update in one
    kernel. torch itself never chooses it."""
    device = objective.params[0].device.type if objective.params else "cpu"
    open_choices = all(settings.get(key) is None for key in ("fused", "foreach"))
    plain = not any(settings.get(key) for key in ("differentiable", "capturable"))
    if "fused" in settings and open_choices and plain and device in ("cpu", "cuda", "mps"):
        return {**settings, "fused": True}
    return settings
