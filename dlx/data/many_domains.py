"""Scenes in one of three lights each, with the light as the class: what a translator between many domains is tried on,
since the truth in the other lights is known (dlx/data/two_domains.py)."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import torch

from dlx.config import checks
from dlx.data.dataset import Dataset, TensorSource
from dlx.data.shapes import KINDS
from dlx.data.two_domains import LIGHTS, draw_scenes, in_light, lit
from dlx.tasks.spec import Image, Label, LabeledImages


class ManyDomains(Dataset):
    """samples: to train on, of each light; a tenth of that validates and another tests. No scene is in two lights.
    label: what the class says: the light, or the kind of object, for a classifier that judges what a translator kept.
    side, kinds, data_seed: as of TwoDomains.
    """

    def __init__(
        self,
        *,
        samples: int = 500,
        side: int = 32,
        kinds: int = 3,
        label: Literal["light", "kind"] = "light",
        data_seed: int = 0,
    ) -> None:
        checks.one_of(("light", "kind"), label=label)
        checks.at_least(20, samples=samples)
        checks.at_least(16, side=side)
        checks.between("[1, 5]", kinds=kinds)
        self.samples, self.side, self.kinds, self.label, self.data_seed = samples, side, kinds, label, data_seed

    @cached_property
    def spec(self) -> LabeledImages:  # type: ignore[override]
        image = Image(channels=3, height=self.side, width=self.side, mean=(0.4,) * 3, std=(0.2,) * 3)
        classes = tuple(LIGHTS) if self.label == "light" else KINDS[: self.kinds]
        return LabeledImages(image=image, label=Label(classes=classes))

    def translated(self, image_NCSS: torch.Tensor, before: str, after: str) -> torch.Tensor:
        """What images in 0..1 of one light are in another, by the lights' names, float32 [N, 3, S, S]."""
        return in_light(image_NCSS, after, before)

    def splits(self) -> dict[str, TensorSource]:
        held = self.samples // 10
        scenes, kind = draw_scenes(len(LIGHTS) * (self.samples + 2 * held), self.side, self.kinds, self.data_seed)
        light_N = torch.arange(len(scenes)) % len(LIGHTS)
        image = torch.empty(scenes.shape, dtype=torch.uint8)
        for number, light in enumerate(LIGHTS):
            image[light_N == number] = lit(scenes[light_N == number], light)
        label = light_N if self.label == "light" else kind
        sizes = [len(LIGHTS) * count for count in (self.samples, held, held)]
        parts = zip(("train", "val", "test"), image.split(sizes), label.split(sizes), strict=True)
        return {name: TensorSource(image=image, label=label) for name, image, label in parts}
