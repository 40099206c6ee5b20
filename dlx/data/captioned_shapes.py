"""One or two shapes with a caption that says all of what is there: for images from texts, and control over them.

"a small red circle above a blue square": what a generator was asked for is known, and what it made can be read.
Shapes: N images, M objects of an image at most, K colours and kinds, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dlx.config import checks
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.data.shapes import BEGIN, CHUNK, COLOURS, END, KINDS, PAD, Shapes
from dlx.random import generator
from dlx.tasks.spec import Attributes, CaptionedImages, Image, Label, Tokens
from dlx.tasks.tokenizer import Words

SIZES = {"small": (0.125, 0.145), "large": (0.2, 0.215)}  # of a radius, as a share of the side
RELATIONS = ("above", "left of")
APART = (0.26, 0.74)  # centres of two objects, as shares of the side; one object is in the middle
JITTER = 0.12  # how far from there a centre may be, as a share of the side
SAID = 0.5  # how often a caption tells an object's size
LONGEST = 12  # tokens: "a small red circle left of a large blue square" between its marks


@dataclass(frozen=True, kw_only=True)
class CaptionedScenes(CaptionedImages):
    """attributes: the colours and kinds that are there. label: of the object that the caption names first."""

    attributes: Attributes
    label: Label
    targets = ("attributes", "label")


class CaptionedShapes(Dataset):
    """Images of `side` pixels. objects: at least and at most, 1 or 2. kinds: how many of circle, square, triangle,
    cross and ring there are. colours: how many of red, green, blue, yellow, purple and cyan. texture: of the
    background, as of `Shapes`.

    The caption begins with the upper one of two objects that lie one above the other, with the left one of two beside
    each other; it tells the size of half of the objects. label: what the class is: the kind, the colour or both of the
    object that it names first. data_seed: draws all of it, whatever the run's seed.
    """

    def __init__(
        self,
        *,
        samples: int = 4000,
        side: int = 32,
        objects: tuple[int, int] = (1, 2),
        kinds: int = 3,
        colours: int = 4,
        texture: Literal["plain", "noise", "pattern"] = "plain",
        label: Literal["kind", "colour", "both"] = "kind",
        data_seed: int = 0,
    ) -> None:
        checks.at_least(16, side=side)
        checks.one_of(("kind", "colour", "both"), label=label)
        if not 1 <= objects[0] <= objects[1] <= 2:
            raise ValueError(f"objects must be a range within 1..2 such as [1, 2], got {list(objects)}")
        if not 1 <= colours <= len(COLOURS):
            raise ValueError(f"colours must be 1..{len(COLOURS)}, got {colours}")
        self.painter = Shapes(
            samples=samples, side=side, objects=objects, kinds=kinds, extent=(0.4, 0.8), texture=texture
        )
        self.samples, self.side, self.objects, self.label, self.data_seed = samples, side, objects, label, data_seed
        self.kinds, self.colours = KINDS[:kinds], tuple(COLOURS)[:colours]
        words = ["a", *SIZES, *COLOURS, *KINDS, *dict.fromkeys(" ".join(RELATIONS).split())]
        self.tokenizer = Words(words, first=3, lower=True)
        classes = {"kind": self.kinds, "colour": self.colours}.get(label) or tuple(
            f"{colour} {kind}" for colour in self.colours for kind in self.kinds
        )
        self.spec: CaptionedScenes = CaptionedScenes(
            image=Image(channels=3, height=side, width=side, mean=(0.43,) * 3, std=(0.12,) * 3),
            caption=Tokens(
                vocabulary=self.tokenizer.size, length=LONGEST, pad=PAD, begin=BEGIN, end=END,
                tokenizer=self.tokenizer.to_json(),
            ),
            attributes=Attributes(names=(*self.colours, *self.kinds)),
            label=Label(classes=classes),
        )  # fmt: skip

    def splits(self) -> dict[str, Source]:
        rng = generator(self.data_seed, "captioned shapes")
        placed = self._place(rng)
        starts = range(0, self.samples, CHUNK)
        image = torch.cat(
            [self.painter.render({n: x[i : i + CHUNK] for n, x in placed.items()}, rng)[0] for i in starts]
        )
        colour_NM, kind_NM, there_NM = placed["colour"], placed["kind"], placed["there"].float()
        attributes = torch.zeros(self.samples, len(self.spec.attributes.names))
        attributes.scatter_reduce_(1, colour_NM, there_NM, "amax")
        attributes.scatter_reduce_(1, len(self.colours) + kind_NM, there_NM, "amax")
        colour_N, kind_N = colour_NM[:, 0], kind_NM[:, 0]
        label = {"kind": kind_N, "colour": colour_N, "both": colour_N * len(self.kinds) + kind_N}[self.label]
        source = TensorSource(image=image, caption=self._captions(placed, rng), attributes=attributes, label=label)
        return {"train": source}

    def _place(self, rng: torch.Generator) -> dict[str, Tensor]:
        """What is there and where: the object that is named first comes first. relation: number in RELATIONS."""
        N, M, S = self.samples, self.objects[1], self.side
        there_NM = torch.arange(M) < torch.randint(self.objects[0], M + 1, (N, 1), generator=rng)
        size_NM = torch.randint(len(SIZES), (N, M), generator=rng)
        low_NM, high_NM = torch.tensor(list(SIZES.values()))[size_NM].unbind(-1)
        radius_NM = S * (low_NM + (high_NM - low_NM) * torch.rand(N, M, generator=rng))
        relation_N = torch.randint(len(RELATIONS), (N,), generator=rng)
        one_NM = there_NM.sum(1, keepdim=True) == 1
        along_NM = torch.where(one_NM, 0.5, torch.tensor(APART)[:M])
        centre_NM2 = S * torch.stack([torch.full_like(along_NM, 0.5), along_NM], -1)
        jitter_NM2 = S * JITTER * (2 * torch.rand(N, M, 2, generator=rng) - 1)
        jitter_NM2[..., 1] *= torch.where(one_NM, 1.0, 0.1)  # two stay apart
        centre_NM2 = centre_NM2 + jitter_NM2
        centre_NM2 = torch.where((relation_N == 1).view(N, 1, 1), centre_NM2.flip(-1), centre_NM2)
        return {
            "kind": torch.randint(len(self.kinds), (N, M), generator=rng),
            "colour": torch.randint(len(self.colours), (N, M), generator=rng),
            "radius": radius_NM, "centre": centre_NM2, "there": there_NM, "size": size_NM,
            "relation": relation_N.unsqueeze(1).expand(N, M),
        }  # fmt: skip

    def _captions(self, placed: dict[str, Tensor], rng: torch.Generator) -> Tensor:
        said_NM = torch.rand(placed["size"].shape, generator=rng) < SAID
        sizes = list(SIZES)
        rows = []
        columns = (placed[name].tolist() for name in ("there", "size", "colour", "kind", "relation"))
        for there, size, colour, kind, relation, said in zip(*columns, said_NM.tolist(), strict=True):
            names = [
                f"a {sizes[size[m]] + ' ' if said[m] else ''}{self.colours[colour[m]]} {self.kinds[kind[m]]}"
                for m in range(len(there))
                if there[m]
            ]
            ids = self.tokenizer.encode(f" {RELATIONS[relation[0]]} ".join(names))
            rows.append([BEGIN, *ids, END] + [PAD] * (LONGEST - len(ids) - 2))
        return torch.tensor(rows)
