"""Kinds of parameters: biases and parameters of normalization layers, which penalties usually leave out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from dlx.tasks.system import System

KINDS = ("norm", "bias")
_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    nn.RMSNorm,
)


def check_kinds(name: str, kinds: Sequence[str]) -> tuple[str, ...]:
    """Raises ValueError, naming the argument, for a kind other than norm and bias."""
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"{name} must hold norm or bias, got {kind!r}")
    return tuple(kinds)


def params_of_kind(system: System, kinds: Sequence[str]) -> set[nn.Parameter]:
    """The parameters of normalization layers (`norm`) and those whose name ends in bias (`bias`)."""
    return {
        parameter
        for module in system.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if ("norm" in kinds and isinstance(module, _NORMS)) or ("bias" in kinds and name.endswith("bias"))
    }
