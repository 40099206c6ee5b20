"""Names of architectures and weights from a local file, for torchvision and timm."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlx.config.errors import first_line
from dlx.config.groups import closest


def check_plain(arch: str) -> None:
    """Refuses names with an address or a path (timm reads `hf-hub:owner/model`)."""
    if not arch or ":" in arch or "/" in arch:
        raise ValueError(f"arch must be a plain name such as resnet18, got {arch!r}")


def check_known(arch: str, names: Sequence[str], package: str) -> None:
    if arch not in names:
        near = closest(arch, names, cutoff=0.0)
        raise ValueError(f"arch must be one of {package}'s {len(names)} classifiers; nearest to {arch!r} is {near}")


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """A state dict from a local .safetensors file, or a .pth file that holds nothing but tensors."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"weights must be a local .safetensors or .pth file; there is no file {path}")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has errors of its own
        raise ValueError(f"weights in {path} cannot be read: {first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"weights in {path} must be a state dict: tensors by name")
    return state


def load_weights(net: nn.Module, path: Path | str, *, arch: str, replaceable: Collection[str]) -> None:
    """Copies a file's tensors into the network; on the meta device only checks that they fit.

    replaceable: names of layers (the head, a first convolution for other channels) which stay new where the file has
    none that fit; a warning says which. Any other layer must be in the file with the same shape. Of the file's tensors
    that the network lacks, those of auxiliary heads are left out.
    """
    state, own = read_weights(path), net.state_dict()

    def counts(name: str) -> bool:
        """Older files lack num_batches_tracked (torch 0.4.1 made it), and nothing but momentum=None reads it."""
        return not name.endswith("num_batches_tracked") and name.rpartition(".")[0] not in replaceable

    unfit = [name for name in own if name not in state or state[name].shape != own[name].shape]
    unknown = [name for name in state if name not in own and not name.lower().startswith("aux")]
    differ = [name for name in (*unfit, *unknown) if counts(name)]
    if differ:
        names = ", ".join(differ[:3])
        raise ValueError(f"weights in {path} are not of {arch}: {len(differ)} tensors differ (such as {names})")
    new = [name for name in unfit if name.rpartition(".")[0] in replaceable]
    if new:
        warnings.warn(f"{path} has no fitting {', '.join(new)}: they start anew", stacklevel=3)
    fitting = {name: state[name] for name in own if name in state and name not in unfit}
    if not any(tensor.is_meta for tensor in own.values()):
        net.load_state_dict(fitting, strict=False)


def refused(arch: str, shape: tuple[int, ...], error: Exception) -> ValueError:
    """The error for images that an architecture does not take."""
    return ValueError(f"arch {arch} takes no images of {shape[1]}x{shape[2]}: {first_line(error)}")


def check_forward(net: nn.Module, shape: tuple[int, ...], arch: str, smallest: int = 0) -> None:
    """Runs one sample through a network on the meta device. Raises ValueError if that fails.

    smallest: the size of images that the architecture is known to need, for the message.
    """
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, *shape, device="meta"))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        if min(shape[1:]) < smallest:
            needs = f"arch {arch} needs images of {smallest}x{smallest}"
            raise ValueError(f"{needs}, got {shape[1]}x{shape[2]}") from error
        raise refused(arch, shape, error) from error
