"""Scenes of real digits: scikit-learn's images, enlarged and placed apart on a noisy ground, with their boxes.

The writers' digits are split first, as the dataset `digits` is: what a test scene shows is in no training scene.
Shapes: N scenes, M objects of a scene at most, S side in pixels, D digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlx.config import checks
from dlx.data.dataset import Dataset, Source, TensorSource
from dlx.data.digits import Digits
from dlx.data.scenes import find_centres, padding_last, tight_boxes
from dlx.random import generator
from dlx.tasks.spec import BoxedImages, Boxes, Image

if TYPE_CHECKING:
    from dlx.data.splits import Split

SIDE = 8  # pixels of a digit
INK = 0.35  # of full ink: pixels that a box is tight around
TEST_PARTS, VAL_PARTS = 5, 10  # of the scenes: a fifth, then a tenth of the rest
CHUNK = 256  # scenes that are rendered at a time


class DigitScenes(Dataset):
    """Gray images of `side` pixels with `objects` digits, at least and at most.

    extent: range of a digit's square of 8x8 pixels, as a share of the side; a digit for which no place is found is left
    out. noise: standard deviation of the ground, where 1 is from black to white. data_seed: draws all of it, whatever
    the run's seed.
    """

    def __init__(
        self,
        *,
        samples: int = 2500,
        side: int = 64,
        objects: tuple[int, int] = (1, 3),
        extent: tuple[float, float] = (0.25, 0.5),
        noise: float = 0.06,
        data_seed: int = 0,
    ) -> None:
        checks.at_least(20, samples=samples)
        checks.at_least(24, side=side)
        checks.between("[0, 0.5]", noise=noise)
        if not 1 <= objects[0] <= objects[1] <= 20:
            raise ValueError(f"objects must be a range within 1..20 such as [1, 3], got {list(objects)}")
        if not 0 < extent[0] <= extent[1] <= 0.8 or extent[0] * side < SIDE:
            raise ValueError(f"extent must be a range within (0, 0.8], and {SIDE} pixels at least, got {list(extent)}")
        self.samples, self.side, self.objects = samples, side, objects
        self.extent, self.noise, self.data_seed = extent, noise, data_seed
        self.spec: BoxedImages = BoxedImages(
            image=Image(channels=1, height=side, width=side, mean=(0.25,), std=(0.15,)),
            boxes=Boxes(classes=Digits.spec.label.classes, most=objects[1]),
        )

    def splits(self) -> dict[str, Source]:
        from dlx.data.splits import SplitSettings

        digits: dict[str, Any] = dict(SplitSettings(batch_size=1).split(Digits()))
        test = self.samples // TEST_PARTS
        val = (self.samples - test) // VAL_PARTS
        counts = {"train": self.samples - test - val, "val": val, "test": test}
        return {name: self._scenes(name, counts[name], digits[name]) for name in counts}

    def _scenes(self, name: str, count: int, digits: Split) -> TensorSource:
        rng = generator(self.data_seed, f"digit_scenes/{name}")
        shown = digits.source.take(digits.index)
        ink_D1SS = shown["image"].float() / Digits.spec.image.scale
        placed = self._place(count, shown["label"], rng)
        chunks = [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]
        parts = [self._render({key: x[rows] for key, x in placed.items()}, ink_D1SS, rng) for rows in chunks]
        image, boxes = (torch.cat(column) for column in zip(*parts, strict=True))
        return TensorSource(image=image, boxes=padding_last(boxes))

    def _place(self, N: int, label_D: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Of all objects the digit, its class, radius and centre, and whether it is there."""
        M = self.objects[1]
        count_N1 = torch.randint(self.objects[0], M + 1, (N, 1), generator=rng)
        low, high = (share * self.side / 2 for share in self.extent)
        radius_NM = low + (high - low) * torch.rand(N, M, generator=rng)
        digit_NM = torch.randint(len(label_D), (N, M), generator=rng)
        centre_NM2, there_NM = find_centres(radius_NM, torch.arange(M) < count_N1, self.side, rng)
        return {
            "digit": digit_NM,
            "kind": label_D[digit_NM],
            "radius": radius_NM,
            "centre": centre_NM2,
            "there": there_NM,
        }

    def _render(self, placed: dict[str, Tensor], ink_D1SS: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images uint8 [N, 1, S, S] and boxes [N, M, 5]."""
        N, M = placed["digit"].shape
        S = self.side
        ground_N111 = 0.1 + 0.2 * torch.rand(N, 1, 1, 1, generator=rng)
        image = ground_N111 + self.noise * torch.randn(N, 1, S, S, generator=rng)
        at_S = torch.arange(S) + 0.5
        boxes = []
        for m in range(M):
            centre_N2, radius_N1 = placed["centre"][:, m], placed["radius"][:, m, None]
            x_NS, y_NS = ((at_S - centre_N2[:, axis : axis + 1]) / radius_N1 for axis in (0, 1))  # -1..1 in a digit
            grid_NSS2 = torch.stack([x_NS[:, None].expand(N, S, S), y_NS[:, :, None].expand(N, S, S)], -1)
            ink_N1SS = torch.nn.functional.grid_sample(ink_D1SS[placed["digit"][:, m]], grid_NSS2, align_corners=False)
            ink_N1SS = ink_N1SS * placed["there"][:, m, None, None, None]
            bright_N111 = 0.7 + 0.3 * torch.rand(N, 1, 1, 1, generator=rng)
            image = torch.lerp(image, bright_N111.expand_as(image), ink_N1SS)
            boxes.append(tight_boxes(ink_N1SS[:, 0] > INK, placed["kind"][:, m]))
        return image.clamp(0, 1).mul(255).round().to(torch.uint8), torch.stack(boxes, 1)
