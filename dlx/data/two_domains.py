"""The same kind of scene in two lights, whose colours are known functions of each other: unpaired images to learn from,
pairs to measure by.

A translation that is learned without pairs is hard to judge where the truth is not known. Here it is: a light is an
affine map of colours, which has an inverse. No light is a mere inversion of another, and a red object becomes a blue
one by night: a generator that keeps the colours is far off.
Shapes: N scenes, S side in pixels.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dlx.config import checks
from dlx.data.dataset import Dataset, TensorSource, Unpaired
from dlx.data.shapes import COLOURS, DISTANCES, KINDS
from dlx.random import generator
from dlx.tasks.spec import Image, Match, MatchedImages

LIGHTS = {
    "day": (((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (0.0, 0.0, 0.0)),
    "night": (((0.0, 0.15, 0.6), (0.1, 0.6, 0.1), (0.85, 0.1, 0.0)), (0.02, 0.05, 0.05)),
    "dusk": (((0.1, 0.75, 0.0), (0.8, 0.0, 0.1), (0.0, 0.15, 0.65)), (0.1, 0.05, 0.05)),
}
"""Matrix and offset from a scene's colours (red, green, blue in 0..1) to those that it has in a light."""
Light = Literal["day", "night", "dusk"]
EXTENT = (0.4, 0.65)  # of the object, as a share of the side
CELLS = 5  # of the ground's spots, along a side
GROUND = (0.16, 0.22, 0.2), (0.85, 0.75, 0.5)  # dark, light


def in_light(image_NCSS: Tensor, light: str, before: str = "day") -> Tensor:
    """What images in 0..1 of one light are in another, float32 [N, 3, S, S]."""
    matrix, offset = (torch.tensor(part) for part in LIGHTS[light])
    old_matrix, old_offset = (torch.tensor(part) for part in LIGHTS[before])
    scene = torch.einsum("ij,njhw->nihw", old_matrix.inverse(), image_NCSS - old_offset.view(-1, 1, 1))
    return torch.einsum("ij,njhw->nihw", matrix, scene) + offset.view(-1, 1, 1)


def draw_scenes(count: int, side: int, kinds: int, data_seed: int) -> tuple[Tensor, Tensor]:
    """Images in 0..1 of one red object each, on a dark ground with light spots, [count, 3, S, S]; and the
    objects' kinds, int64 [count].

    The spots are fewer than the ground between them: on a ground that is as often light as dark its negative would look
    as likely, and nothing would tell an unpaired translator which is meant. Each image has all tints: one of a whole
    image would be lost in the instance norms of a generator.
    """
    rng = generator(data_seed, "lights")
    N, S = count, side
    low, high = (share * S / 2 for share in EXTENT)
    radius_N1 = low + (high - low) * torch.rand(N, 1, generator=rng)
    kind_N = torch.randint(kinds, (N,), generator=rng)
    centre_N2 = radius_N1 + 1 + (S - 2 * radius_N1 - 2) * torch.rand(N, 2, generator=rng)
    shade_N1 = 0.8 + 0.35 * torch.rand(N, 1, generator=rng)
    coarse = torch.rand(N, 1, CELLS, CELLS, generator=rng)
    light_N1SS = F.interpolate(coarse, (S, S), mode="bicubic", align_corners=True).clamp(0, 1) ** 3
    dark, light = (torch.tensor(colour).view(1, 3, 1, 1).expand(N, 3, S, S) for colour in GROUND)
    image = torch.lerp(dark, light, light_N1SS.expand(N, 3, S, S))
    place_S = torch.arange(S) + 0.5
    x_NSS, y_NSS = (
        (place - centre_N2[:, axis, None, None]).expand(N, S, S) / radius_N1.unsqueeze(-1)
        for axis, place in enumerate((place_S.view(1, 1, S), place_S.view(1, S, 1)))
    )
    outside_NSS = torch.stack([DISTANCES[kind](x_NSS, y_NSS) for kind in KINDS[:kinds]])[kind_N, torch.arange(N)]
    cover_N1SS = (0.5 - outside_NSS * radius_N1.unsqueeze(-1)).clamp(0, 1).unsqueeze(1)
    red_N3 = torch.tensor(COLOURS["red"]) / 255 * shade_N1
    return torch.lerp(image, red_N3[:, :, None, None].expand_as(image), cover_N1SS).clamp(0, 1), kind_N


def lit(scene_NCSS: Tensor, light: str) -> Tensor:
    """Scenes as they are stored in a light, uint8 [N, 3, S, S]."""
    return in_light(scene_NCSS, light).mul(255).round().clamp(0, 255).to(torch.uint8)


class TwoDomains(Dataset):
    """a, b: the lights of the two sides: day, night or dusk. samples: to train on, of each side, of other scenes; a
    tenth of that validates and another tests, where both sides have the same scenes. side: in pixels. kinds: of
    objects, of circle, square, triangle, cross and ring. data_seed: draws the scenes, whatever the run's seed."""

    def __init__(
        self, *, a: Light = "day", b: Light = "night", samples: int = 1000, side: int = 32, kinds: int = 3,
        data_seed: int = 0,
    ) -> None:  # fmt: skip
        checks.one_of(LIGHTS, a=a, b=b)
        if a == b:
            raise ValueError(f"b must be another light than a, got {b}")
        checks.at_least(20, samples=samples)
        checks.at_least(16, side=side)
        checks.between("[1, 5]", kinds=kinds)
        self.lights, self.samples, self.side, self.kinds, self.data_seed = (a, b), samples, side, kinds, data_seed

    @cached_property
    def spec(self) -> MatchedImages:  # type: ignore[override]
        image = Image(channels=3, height=self.side, width=self.side, mean=(0.4,) * 3, std=(0.2,) * 3)
        return MatchedImages(image_a=image, image_b=image, match_a=Match(of="image_a"), match_b=Match(of="image_b"))

    def splits(self) -> dict[str, Unpaired]:
        held = self.samples // 10
        scenes, _ = draw_scenes(2 * (self.samples + held), self.side, self.kinds, self.data_seed)
        a, b, val, test = torch.arange(len(scenes)).split([self.samples, self.samples, held, held])
        found = {}
        for name, rows in {"train": (a, b), "val": (val, val), "test": (test, test)}.items():
            sides = zip("ab", rows, self.lights, strict=True)
            found[name] = Unpaired(
                *(
                    TensorSource(**{f"image_{side}": lit(scenes[chosen], light), f"match_{side}": chosen})
                    for side, chosen, light in sides
                )
            )
        return found
