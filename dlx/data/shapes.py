"""Scenes of circles, squares and triangles, rendered from a seed: with boxes, masks, a caption and a class.

Each system reads what it needs: a detector the boxes, a segmenter the mask, a generator the image and perhaps the
caption, a classifier the class of the largest object.
Shapes: N scenes, M objects of a scene at most, S side in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dlx.config import checks
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.data.scenes import find_centres, padding_last, tight_boxes
from dlx.random import generator
from dlx.tasks.spec import Boxes, CaptionedImages, Image, Label, Mask, Tokens
from dlx.tasks.tokenizer import Words

KINDS = ("circle", "square", "triangle", "cross", "ring")
COLOURS = {
    "red": (214, 48, 49), "green": (46, 160, 67), "blue": (52, 101, 214), "yellow": (236, 200, 40),
    "purple": (150, 70, 190), "cyan": (40, 190, 200),
}  # fmt: skip
PLACES = ("top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right")
PAD, BEGIN, END = range(3)
CHUNK = 256  # scenes that are rendered at a time


@dataclass(frozen=True, kw_only=True)
class Scenes(CaptionedImages):
    boxes: Boxes
    mask: Mask
    label: Label
    targets = ("boxes", "mask", "label")


class Shapes(Dataset):
    """Images of `side` pixels with `objects` of them, at least and at most.

    kinds: how many of circle, square, triangle, cross and ring there are. extent: range of an object's width, as a
    share of the side. overlap: objects may hide others, at most half of one; else they are apart, and one for which no
    place is found is left out. texture: of the background: noise, a smooth pattern with noise, or plain. data_seed:
    draws all of it, whatever the run's seed.
    """

    def __init__(
        self,
        *,
        samples: int = 2500,
        side: int = 96,
        objects: tuple[int, int] = (1, 3),
        kinds: int = 3,
        extent: tuple[float, float] = (0.15, 0.4),
        overlap: bool = False,
        texture: Literal["plain", "noise", "pattern"] = "noise",
        data_seed: int = 0,
    ) -> None:
        checks.at_least(20, samples=samples)
        checks.at_least(16, side=side)
        checks.one_of(("plain", "noise", "pattern"), texture=texture)
        if not 1 <= objects[0] <= objects[1] <= 20:
            raise ValueError(f"objects must be a range within 1..20 such as [1, 3], got {list(objects)}")
        if not 1 <= kinds <= len(KINDS):
            raise ValueError(f"kinds must be 1..{len(KINDS)}, got {kinds}")
        if not 0 < extent[0] <= extent[1] <= 0.8 or extent[0] * side < 4:
            raise ValueError(f"extent must be a range within (0, 0.8], and 4 pixels at least, got {list(extent)}")
        self.samples, self.side, self.objects, self.kinds = samples, side, objects, KINDS[:kinds]
        self.extent, self.overlap, self.texture, self.data_seed = extent, overlap, texture, data_seed
        most = objects[1]
        self.tokenizer = Words(_vocabulary(), first=3)
        self.spec: Scenes = Scenes(
            image=Image(channels=3, height=side, width=side, mean=(0.42,) * 3, std=(0.17,) * 3),
            boxes=Boxes(classes=self.kinds, most=most),
            mask=Mask(classes=("background", *self.kinds), height=side, width=side),
            label=Label(classes=self.kinds),
            caption=Tokens(
                vocabulary=self.tokenizer.size, length=8 * most + 1, pad=PAD, begin=BEGIN, end=END,
                tokenizer=self.tokenizer.to_json(),
            ),
        )  # fmt: skip

    def splits(self) -> dict[str, Source]:
        rng = generator(self.data_seed, "shapes")
        placed = self._place(rng)
        parts = [self.render({name: x[rows] for name, x in placed.items()}, rng) for rows in self._chunks()]
        image, mask, boxes = (torch.cat(column) for column in zip(*parts, strict=True))
        kind_NM, there_NM = placed["kind"], boxes[..., 4] >= 0
        area_NM = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) * there_NM
        label_N = kind_NM.gather(1, area_NM.argmax(1, keepdim=True))[:, 0]
        boxes = padding_last(boxes)
        caption = self._captions(placed, there_NM)
        return {"train": TensorSource(image=image, boxes=boxes, mask=mask, label=label_N, caption=caption)}

    def _chunks(self) -> list[slice]:
        return [slice(start, start + CHUNK) for start in range(0, self.samples, CHUNK)]

    def _place(self, rng: torch.Generator) -> dict[str, Tensor]:
        """Kind, colour, radius and centre of the objects of all scenes, and which there are."""
        N, M, S = self.samples, self.objects[1], self.side
        count_N1 = torch.randint(self.objects[0], M + 1, (N, 1), generator=rng)
        low, high = (share * S / 2 for share in self.extent)
        radius_NM = low + (high - low) * torch.rand(N, M, generator=rng)
        kind_NM = torch.randint(len(self.kinds), (N, M), generator=rng)
        colour_NM = torch.randint(len(COLOURS), (N, M), generator=rng)
        there_NM = torch.arange(M) < count_N1
        centre_NM2, there_NM = find_centres(radius_NM, there_NM, S, rng, overlap=self.overlap)
        return {"kind": kind_NM, "colour": colour_NM, "radius": radius_NM, "centre": centre_NM2, "there": there_NM}

    def render(self, placed: dict[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Images uint8 [N, 3, S, S], masks uint8 [N, S, S] and boxes [N, M, 5], later objects before earlier ones."""
        N, M = placed["kind"].shape
        S = self.side
        image = self._background(N, rng)
        mask = torch.zeros(N, S, S, dtype=torch.uint8)
        owner = torch.full((N, S, S), -1)
        palette_K3 = torch.tensor(list(COLOURS.values())).float() / 255
        place_S = torch.arange(S) + 0.5
        for m in range(M):
            centre_N2, radius_N = placed["centre"][:, m], placed["radius"][:, m]
            y_NSS = (place_S.view(1, S, 1) - centre_N2[:, 1, None, None]).expand(N, S, S) / radius_N[:, None, None]
            x_NSS = (place_S.view(1, 1, S) - centre_N2[:, 0, None, None]).expand(N, S, S) / radius_N[:, None, None]
            outside_NSS = torch.full((N, S, S), 9.0)
            for number, kind in enumerate(self.kinds):
                own_N = (placed["kind"][:, m] == number) & placed["there"][:, m]
                outside_NSS[own_N] = DISTANCES[kind](x_NSS[own_N], y_NSS[own_N])
            pixels_NSS = outside_NSS * radius_N[:, None, None]
            cover_N1SS = (0.5 - pixels_NSS).clamp(0, 1).unsqueeze(1)  # a soft edge of one pixel
            colour_N3 = palette_K3[placed["colour"][:, m]] * (0.85 + 0.3 * torch.rand(N, 1, generator=rng))
            image = torch.lerp(image, colour_N3[:, :, None, None].clamp(max=1).expand_as(image), cover_N1SS)
            inside = pixels_NSS < 0
            mask = torch.where(inside, (placed["kind"][:, m, None, None] + 1).to(torch.uint8), mask)
            owner = torch.where(inside, m, owner)
        boxes = torch.stack([tight_boxes(owner == m, placed["kind"][:, m]) for m in range(M)], 1)
        return image.clamp(0, 1).mul(255).round().to(torch.uint8), mask, boxes

    def _background(self, count: int, rng: torch.Generator) -> Tensor:
        S = self.side
        base = 0.3 + 0.25 * torch.rand(count, 3, 1, 1, generator=rng)
        if self.texture == "plain":
            return base.expand(count, 3, S, S)
        image = base + 0.04 * torch.randn(count, 3, S, S, generator=rng)
        if self.texture == "pattern":
            coarse = torch.rand(count, 3, 7, 7, generator=rng) - 0.5
            image = image + 0.35 * torch.nn.functional.interpolate(coarse, (S, S), mode="bicubic", align_corners=True)
        return image

    def _captions(self, placed: dict[str, Tensor], there_NM: Tensor) -> Tensor:
        """ "a red circle at the top left and a blue square at the middle", from left to right."""
        colours = list(COLOURS)
        cell_NM2 = (placed["centre"] / self.side * 3).long().clamp(0, 2)
        place_NM = cell_NM2[..., 1] * 3 + cell_NM2[..., 0]
        order_NM = placed["centre"][..., 0].argsort(1)
        rows = []
        for order, there, kind, colour, place in zip(
            *(x.tolist() for x in (order_NM, there_NM, placed["kind"], placed["colour"], place_NM)), strict=True
        ):
            parts = [
                f"a {colours[colour[m]]} {self.kinds[kind[m]]} at the {PLACES[place[m]]}" for m in order if there[m]
            ]
            rows.append([BEGIN, *self.tokenizer.encode(" and ".join(parts)), END])
        length = self.spec.caption.length
        return torch.tensor([row + [PAD] * (length - len(row)) for row in rows])


def _vocabulary() -> list[str]:
    return [*dict.fromkeys(["a", "and", "at", "the", *COLOURS, *KINDS, *" ".join(PLACES).split()])]


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return (x.square() + y.square()).sqrt() - 1


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.9


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    """Upright, of three equal sides, its corners on the circle of radius 1 around a point a little below."""
    y = y - 0.15
    side = math.cos(math.pi / 6) * x.abs() - 0.5 * y
    return torch.maximum(side, y) - 0.5


def _cross(x: Tensor, y: Tensor) -> Tensor:
    long, wide = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    return torch.maximum(long - 0.95, wide - 0.32)


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return ((x.square() + y.square()).sqrt() - 0.75).abs() - 0.25


DISTANCES = {"circle": _circle, "square": _square, "triangle": _triangle, "cross": _cross, "ring": _ring}
"""How far a point is outside a shape of radius 1 around 0; below 0 inside."""
