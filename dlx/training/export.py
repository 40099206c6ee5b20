"""Trained systems as files for other programs: safetensors weights, torch.export programs, ONNX graphs.

A file is written beside its place, read back, and compared with the system; only one that gives the same outputs is
renamed into place.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.config import instantiate
from dlx.config.errors import UserError, first_line
from dlx.config.extras import require
from dlx.random import generator
from dlx.runs.checkpoint import assign, load_weights, save_weights
from dlx.runs.files import atomic_file
from dlx.tasks.spec import Image, Label, Tokens
from dlx.tasks.summary import has_forward
from dlx.tasks.supervised import Supervised
from dlx.training.load import load_system, spec_from

if TYPE_CHECKING:
    from dlx.runs.folder import RunFolder
    from dlx.tasks.system import System

TOLERANCE = 1e-4  # of the largest output
CHECKED_SIZES = (1, 3)  # batches that a file must give right; it is traced with 2

Forward = Callable[[Tensor], Tensor]


class ExportError(Exception):
    """A file that could not be written, or that gave other outputs than the system; it is not there."""


@dataclass(frozen=True)
class Exported:
    """difference: the largest one to the system's outputs, over the largest output."""

    format: str
    path: Path
    difference: float


class Exporter:
    """A run's best weights, ready to be written. Raises UserError for a system that is no map of inputs to outputs."""

    def __init__(self, run: RunFolder, *, trust: tuple[str, ...] = ()) -> None:
        self.trust = trust
        self.config = run.load_config(trust=trust)
        self.run = run
        self.system = load_system(run, self.config).requires_grad_(False)
        self.spec = self.system.spec
        name = type(self.system).__name__
        no_forward = UserError(f"{run.path}: {name} is no map of inputs to outputs that could be exported")
        if len(self.spec.inputs) != 1 or not has_forward(self.system):
            raise no_forward
        ((self.input_name, self.input),) = self.spec.inputs.items()
        self.inputs = [self._sample(size) for size in CHECKED_SIZES]
        try:
            self.outputs = [self.system(x) for x in self.inputs]
            if not all(map(self._is_answer, self.inputs, self.outputs)):
                raise no_forward
        except (NotImplementedError, AttributeError, TypeError, RuntimeError) as error:
            raise no_forward from error

    def _is_answer(self, x: Tensor, output: Any) -> bool:
        """Whether an output is what the system answers by: a translator's forward is for its use as a classifier."""
        if not isinstance(output, Tensor):
            return False
        if not isinstance(self.system, Supervised) or type(self.system).output is Supervised.output:
            return True
        return torch.equal(self.system.output({self.input_name: x}), output)

    def _sample(self, size: int) -> Tensor:
        rng = generator(0, "export", size)
        if isinstance(self.input, Tokens):
            return torch.randint(self.input.vocabulary, (size, *self.input.shape), generator=rng)
        return torch.randn(size, *self.input.shape, generator=rng)

    def write(self, format: str, path: Path) -> Exported:
        """Raises ExportError, and then leaves what was at `path` as it was."""
        write, load = FORMATS[format]
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as partial:
            partial.touch()
            mode = partial.stat().st_mode  # the umask's; safetensors would keep others from reading
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the exporters' talk about their own insides
                    write(self, partial)
                forward = load(self, partial)
                found = [_difference(forward(x), y) for x, y in zip(self.inputs, self.outputs, strict=True)]
            except Exception as error:  # what tracing raises is of many kinds
                raise ExportError(f"{type(error).__name__}: {first_line(error)}") from error
            if wrong := [difference for difference in found if not difference <= TOLERANCE]:  # NaN is wrong too
                raise ExportError(f"outputs differ by {wrong[0]:.1e} of the largest one; allowed is {TOLERANCE:.0e}")
            partial.chmod(mode)
        return Exported(format, path, max(found))

    def describe(self) -> dict[str, Any]:
        """What a program needs beside the file: how inputs are made, what outputs mean, how the network is built."""
        spec = self.spec
        described: dict[str, Any] = {
            "run": self.run.name,
            "model": self.config["model"],
            "spec": spec.to_dict(),
            "spec_files": spec.files(),
            "input": {
                "name": self.input_name,
                "shape": ["batch", *self.input.shape],
                "dtype": str(self.input.dtype).removeprefix("torch."),
            },
            "output": {"name": self.output_name, "shape": ["batch", *self.outputs[0].shape[1:]], "dtype": "float32"},
        }
        if isinstance(image := self.input, Image):
            described["preprocessing"] = _preprocessing(image)
        if self.classes:
            described["classes"] = self.classes
        return described

    @property
    def classes(self) -> tuple[str, ...]:
        """What the columns of the output mean, of a classifier."""
        for name in self.spec.targets if getattr(self.system, "is_classifier", False) else ():
            if isinstance(entry := self.spec.entries[name], Label):
                return entry.classes
        return ()

    @property
    def output_name(self) -> str:
        return "logits" if self.classes else "output"


def _preprocessing(image: Image) -> dict[str, Any]:
    """How an image file becomes an input, in this order; `Image.read` does the same."""
    return {
        "orientation": "upright, as the file's EXIF says",
        "background": image.background,  # 0 black to 1 white, under what is transparent
        "mode": "L" if image.channels == 1 else "RGB",  # Pillow's names, which are the order of the channels
        "resize": {
            "height": image.height, "width": image.width, "crop": "center", "filter": "bilinear, antialiased",
            "how": "scaled to cover height x width, what sticks out cut off evenly (PIL.ImageOps.fit)",
        },
        "levels": "round(pixel * scale / 255)",
        "normalize": "(level / scale - mean) / std, per channel",
        "scale": image.scale, "mean": image.mean, "std": image.std, "layout": "NCHW",
    }  # fmt: skip


def _difference(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        raise ValueError(f"outputs of shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    scale = expected.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    return float((found - expected).abs().max() / scale)


# The formats: how each is written, and how it is read back as a function of inputs.


def _write_safetensors(exporter: Exporter, path: Path) -> None:
    save_weights(path, exporter.system.state_dict())


def _load_safetensors(exporter: Exporter, path: Path) -> Forward:
    """Into a fresh system, built from the description alone."""
    description = json.loads(json.dumps(exporter.describe()))
    spec = spec_from(description["spec"], description["spec_files"], trust=exporter.trust)
    system: System = instantiate(
        description["model"], base="dlx.tasks.system.System", trust=exporter.trust, key="model", spec=spec
    )
    assign(system, load_weights(path))
    return system.eval().requires_grad_(False)


def _write_torch_export(exporter: Exporter, path: Path) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(exporter.system, (exporter._sample(2),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)


def _load_torch_export(exporter: Exporter, path: Path) -> Forward:
    return torch.export.load(path).module()


def check_packages(format: str) -> None:
    """Raises UserError, with the remedy, where a format needs packages that are not installed."""
    if format == "onnx":
        require(format, "export", "onnx", "onnxscript")


def _write_onnx(exporter: Exporter, path: Path) -> None:
    program = torch.onnx.export(
        exporter.system,
        (exporter._sample(2),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[exporter.input_name],
        output_names=[exporter.output_name],
        verbose=False,
    )
    assert program is not None
    described = exporter.describe()
    for key in ("run", "classes", "preprocessing"):
        if key in described:
            program.model.metadata_props[key] = described[key] if key == "run" else json.dumps(described[key])
    program.save(path, external_data=False)  # one file


def _load_onnx(exporter: Exporter, path: Path) -> Forward:
    name = exporter.input_name
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    else:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(str(path))
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


FORMATS: dict[str, tuple[Callable[[Exporter, Path], None], Callable[[Exporter, Path], Forward]]] = {
    "safetensors": (_write_safetensors, _load_safetensors),
    "torch_export": (_write_torch_export, _load_torch_export),
    "onnx": (_write_onnx, _load_onnx),
}
SUFFIXES = {"safetensors": ".safetensors", "torch_export": ".pt2", "onnx": ".onnx"}
