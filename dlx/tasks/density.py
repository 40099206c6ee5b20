"""Densities: how probable a sample is, log p(x) in nats, exactly or, of a model with latents, a bound.

Every explicit model gives `log_prob(batch)` and has the same metrics: `nll`, the mean of -log p(x) in nats a sample,
and `bpd`, bits a dimension: nll / (D ln 2). Values of images are levels (0 or 1, or 256 of a byte), so that p is a
probability and nll at least 0; of points it is a density.
A model of conditionals inherits `Autoregressive`, which draws sample after sample in the order of the dimensions.

Shapes: B batch, C channels, H height, W width, D = H W C dimensions (the channels of a pixel follow each other), K
levels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlx.config.errors import UserError
from dlx.runs.draw import subplots
from dlx.runs.media import grid
from dlx.tasks import structure
from dlx.tasks.analyses import anomaly, normalization
from dlx.tasks.answer import Answer, Report
from dlx.tasks.spec import Image, Images
from dlx.tasks.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dlx.runs.draw import Figure
    from dlx.tasks.spec import Spec
    from dlx.tasks.system import Batch, Objective, Statistics

SHOWN = 36  # samples of a picture
POINTS = 1000  # of a picture of points
COMPLETED = 8  # images of a picture that are half given


def levels_of(image: Image) -> int:
    """How many values a pixel has: 2 of binary images, 256 of bytes."""
    return int(image.scale) + 1


def is_binary(image: Image) -> bool:
    return levels_of(image) == 2


def require_binary(image: Image, system: str) -> None:
    """Raises ValueError for images of more levels than black and white, or with colours."""
    if not is_binary(image) or image.channels != 1:
        kind = "colour" if image.channels != 1 else f"{levels_of(image)} gray levels"
        raise ValueError(
            f"spec must be of binary images for {system}, got {kind} (data=binary_digits, binary_mnist, "
            f"binary_fashion_mnist)"
        )


class Density(System):
    """Base of all explicit models. A subclass defines `log_prob`; that is all it needs to train.

    It reads images, in [0, 1], or points.
    """

    film = True
    takes = ("weight",)

    def __init__(self, *, spec: Spec) -> None:
        super().__init__()
        ((self.input_name, entry),) = spec.inputs.items()
        if isinstance(entry, Image):
            entry = entry.in_range(0, 1)
            spec = Images(image=entry)
        self.spec, self.input = spec, entry
        self.dimensions = math.prod(entry.shape)

    @property
    def monitor(self) -> tuple[str, str]:
        return "val/nll", "min"

    @property
    def metric_names(self) -> tuple[str, ...]:
        return "nll", "bpd"

    def log_prob(self, batch: Batch) -> Tensor:
        """log p(x) of each sample in nats, [B]; a lower bound where the model has no more."""
        raise NotImplementedError(f"{type(self).__name__} defines no log_prob")

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        return self.weighted_mean(-self.log_prob(batch), batch), {}

    def weighted_mean(self, loss_B: Tensor, batch: Batch) -> Tensor:
        return (loss_B * batch["weight"] if "weight" in batch else loss_B).mean()

    def evaluate(self, batch: Batch) -> Statistics:
        log_prob_B = self.log_prob(batch).double()
        return {"nll": -log_prob_B.sum(), "count": torch.tensor(len(log_prob_B), device=log_prob_B.device)}

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        found = {name: float(value / statistics["count"]) for name, value in statistics.items() if name != "count"}
        return {**found, "bpd": self.bits(found["nll"])}

    def bits(self, nats: float) -> float:
        """Bits a dimension."""
        return nats / (self.dimensions * math.log(2))

    @property
    def analyses(self) -> Mapping[str, Callable[..., Report]]:
        return {**super().analyses, "anomaly": anomaly}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        return {"log_prob": self.log_prob(batch)}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        """log p(x), and of models of conditionals a picture of the surprisal of each pixel."""
        maps_BHW = predicted.get("surprisal")
        answers = []
        for number, log_prob in enumerate(predicted["log_prob"].tolist()):
            bits = self.bits(-log_prob)
            picture = None
            if maps_BHW is not None:
                picture = self._surprisal_picture(batch[self.input_name][number : number + 1], maps_BHW[number])
            line = f"log p {log_prob:.3f} nats, {bits:.4f} bits a dimension"
            answers.append(Answer(line, {"log_prob": log_prob, "bpd": bits}, picture))
        return answers

    def _surprisal_picture(self, image_1CHW: Tensor, map_HW: Tensor) -> Callable[[str], Figure]:
        assert isinstance(self.input, Image)
        pixels, nats = self.input.draw(image_1CHW)[0], map_HW.cpu()

        def picture(title: str) -> Figure:
            return draw_surprisal(pixels[None], nats[None], title)

        return picture

    def showcase(self, batch: Batch) -> dict[str, Any]:
        if not self.defines("sample"):
            return {}
        made: Any = self.sample(SHOWN if isinstance(self.input, Image) else POINTS)
        if isinstance(made, Iterator):
            *_, made = made
        if isinstance(self.input, Image):
            return {"samples": grid(self.input.draw(made[self.input_name]))}
        return {"samples": draw_points(batch[self.input_name], made[self.input_name])}


class Autoregressive(Density):
    """log p(x) = sum over i of log p(x_i | those before it): each dimension of an image given those before it.

    A subclass defines `logits`, and `next_logits` where it can draw with less work than a whole `logits` for each
    dimension. The order is the raster's, left to right and from the top, R, G, B of each pixel, unless `order` says
    otherwise.
    """

    order: Tensor
    """Positions in the raster in the order of the conditionals, int64 [D]."""

    spec: Images
    input: Image

    def __init__(self, *, spec: Images) -> None:
        super().__init__(spec=spec)
        self.levels = levels_of(self.input)
        self.register_buffer("order", torch.arange(self.dimensions), persistent=False)

    @property
    def free_numbers(self) -> int:
        """How many numbers determine p(x): the parameters, and of tables fewer, since rows sum to one."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def outputs(self) -> int:
        """Logits of each dimension: one where there are two levels, that of level 1; else one for each level."""
        return 1 if self.levels == 2 else self.levels

    def logits(self, x_BCHW: Tensor) -> Tensor:
        """Logits of every dimension given those before it, [B, D, 1 or K]. x: levels over K - 1, in [0, 1]."""
        raise NotImplementedError(f"{type(self).__name__} defines no logits")

    def next_logits(self, x_BCHW: Tensor, step: int, cache: dict[str, Any]) -> Tensor:
        """Logits of dimension order[step] given those before it, [B, 1 or K]; the others of x are not read.

        cache: what earlier steps left, empty at step 0. The steps come one after another.
        """
        return self.logits(x_BCHW)[:, int(self.order[step])]

    @property
    def analyses(self) -> Mapping[str, Callable[..., Report]]:
        return {**super().analyses, "normalization": normalization}

    def report(self, statistics: Statistics) -> Report:
        """How many numbers p(x) takes, beside what tables of all kinds would."""
        return Report(tables={"parameters": structure.rows(self, type(self).__name__, self.free_numbers)})

    def flat_levels(self, x_BCHW: Tensor) -> Tensor:
        """Levels in raster order, int64 [B, D]."""
        return self.input.levels(x_BCHW).movedim(1, -1).flatten(1)

    def image_of(self, levels_BD: Tensor) -> Tensor:
        """The inverse of `flat_levels`, normalized, [B, C, H, W]."""
        C, H, W = self.input.shape
        return (levels_BD.float() / (self.levels - 1)).view(-1, H, W, C).movedim(-1, 1)

    def conditionals(self, x_BCHW: Tensor) -> Tensor:
        """log p(x_i | those before it) of every dimension, in raster order, [B, D]."""
        return log_probs(self.logits(x_BCHW), self.flat_levels(x_BCHW))

    def log_prob(self, batch: Batch) -> Tensor:
        return self.conditionals(batch[self.input_name]).sum(1)

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """log_prob [B], and surprisal [B, H, W]: -log p of each pixel given those before it, nats."""
        C, H, W = self.input.shape
        surprisal_BHW = -self.conditionals(batch[self.input_name]).view(-1, H, W, C).sum(-1)
        return {"log_prob": -surprisal_BHW.flatten(1).sum(1), "surprisal": surprisal_BHW}

    def sample(
        self, count: int, *, half: Path | None = None, temperature: float = 1.0, use_cache: bool = True
    ) -> Iterator[Batch]:
        """Images, a row at a time: each yields what there is so far.

        half: an image of the data's size whose upper half is kept and whose lower half is drawn. temperature: 0 takes
        the most probable level. use_cache: false computes all conditionals anew for each dimension, and gives the same.
        """
        if temperature < 0:
            raise UserError(f"--given temperature: must be at least 0, got {temperature:g}")
        start_BD, given = torch.zeros(count, self.dimensions, dtype=torch.int64), 0
        if half is not None:
            image_1CHW = self.input.read_exact(half)
            start_BD = self.flat_levels(image_1CHW).expand(count, -1)
            given = self.input.height // 2 * self.input.width * self.input.channels
        return self.complete(start_BD.to(self.device), given, temperature=temperature, use_cache=use_cache)

    def complete(
        self, levels_BD: Tensor, given: int, *, temperature: float = 1.0, use_cache: bool = True
    ) -> Iterator[Batch]:
        """Images whose first `given` dimensions of the raster are kept. Raises UserError where others come before
        them in the order: what is kept could not be conditioned on."""
        order = self.order.tolist()
        if sorted(order[:given]) != list(range(given)):
            raise UserError(
                f"--given half: {type(self).__name__} draws in an order in which what is covered does not come last; "
                "one whose order is the raster's completes images"
            )
        return self._draw_rows(levels_BD, given, order, temperature, use_cache)

    @torch.no_grad()
    def _draw_rows(
        self, levels_BD: Tensor, given: int, order: list[int], temperature: float, use_cache: bool
    ) -> Iterator[Batch]:
        C, _, W = self.input.shape
        x_BCHW = self.image_of(levels_BD).contiguous()
        cache: dict[str, Any] = {}
        for step, position in enumerate(order):
            row, column, channel = position // (W * C), position // C % W, position % C
            if step >= given:
                logits = self.next_logits(x_BCHW, step, cache) if use_cache else self.logits(x_BCHW)[:, position]
                x_BCHW[:, channel, row, column] = draw_level(logits, temperature).float() / (self.levels - 1)
            elif use_cache:
                self.next_logits(x_BCHW, step, cache)  # fills the cache with what is given
            if step + 1 >= given and ((step + 1) % (W * C) == 0 or step + 1 == len(order)):
                yield {self.input_name: x_BCHW.clone()}

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """Samples; test images whose lower half is drawn, beside the whole ones; where an image is unexpected."""
        x_BCHW = batch[self.input_name][:COMPLETED]
        media = super().showcase(batch)
        if bool((self.order.diff() == 1).all()):
            C, H, W = self.input.shape
            given = H // 2 * W * C
            *_, made = self.complete(self.flat_levels(x_BCHW), given)
            covered = x_BCHW.clone()
            covered[:, :, H // 2 :] = 0.5
            rows = [self.input.draw(part) for part in (x_BCHW, covered, made[self.input_name])]
            media["completions"] = grid(torch.cat(rows), columns=len(x_BCHW))
        found = self.predict({self.input_name: x_BCHW[:4]})
        media["surprisal"] = draw_surprisal(self.input.draw(x_BCHW[:4]), found["surprisal"].cpu())
        return media


def log_probs(logits: Tensor, levels_BD: Tensor) -> Tensor:
    """log p of levels [B, D] under logits [B, D, 1] of level 1 (Bernoulli) or [B, D, K] (softmax), [B, D]."""
    logits = logits.float()
    if logits.shape[-1] == 1:
        return -F.binary_cross_entropy_with_logits(logits[..., 0], levels_BD.float(), reduction="none")
    return -F.cross_entropy(logits.movedim(-1, 1), levels_BD, reduction="none")


def draw_level(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """A level for each sample, int64 [B], from logits [B, 1 or K], by one uniform number for each: the first level
    whose cumulative probability is above it."""
    logits = logits.double()
    if logits.shape[-1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], -1)
    if temperature == 0:
        return logits.argmax(-1)
    below = (logits / temperature).softmax(-1).cumsum(-1)
    u_B1 = torch.rand(len(logits), 1, device=logits.device, dtype=torch.float64)
    return (below <= u_B1).sum(-1).clamp_max(logits.shape[-1] - 1)


def draw_surprisal(pixels: Tensor, nats_NHW: Tensor, title: str = "") -> Figure:
    """Images uint8 [N, H, W, C], and under each the nats of its pixels."""
    count = len(pixels)
    figure, axes = subplots(2, count, size=(1.9 * count + 1.2, 4.2), squeeze=False)
    most = max(float(nats_NHW.max()), 1e-6)
    for number in range(count):
        picture = pixels[number].numpy()
        axes[0, number].imshow(
            picture.squeeze(-1) if picture.shape[-1] == 1 else picture, cmap="gray", vmin=0, vmax=255
        )
        shown = axes[1, number].imshow(nats_NHW[number].float().numpy(), cmap="inferno", vmin=0, vmax=most)
        axes[1, number].set_title(f"{float(nats_NHW[number].sum()):.1f} nats", fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
    figure.colorbar(shown, ax=list(axes[1]), label="surprisal of a pixel, nats", shrink=0.9)
    if title:
        figure.suptitle(title)
    return figure


def draw_points(data_BF: Tensor, drawn_BF: Tensor, density: tuple[Tensor, Tensor, Tensor] | None = None) -> Figure:
    """The first two columns of the data, and beside them those of samples, on the same axes. density: x [G], y [G] and
    p [G, G], a row for each y, drawn between them."""
    panels = {"data": data_BF, **({} if density is None else {"p(x)": None}), "samples": drawn_BF}
    figure, axes = subplots(1, len(panels), size=(3.75 * len(panels), 3.8), sharex=True, sharey=True)
    for axis, (title, points) in zip(axes, panels.items(), strict=True):
        if points is None:
            assert density is not None
            x_G, y_G, p_GG = (part.float().cpu().numpy() for part in density)
            axis.pcolormesh(x_G, y_G, p_GG, cmap="magma", shading="nearest", rasterized=True)
        else:
            columns = points[:, :2].float().cpu()
            second = columns[:, 1] if columns.shape[1] > 1 else torch.zeros(len(columns))
            axis.plot(columns[:, 0].numpy(), second.numpy(), ".", markersize=2.5, alpha=0.6)
        axis.set(title=title, aspect="equal")
    return figure
