"""What deep learning calls convolution is cross-correlation: convolution with the kernel flipped in both directions."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from dlx.claims.claim import Claim, Figure, Measured, Runs, Verdict
from dlx.config import Config, build
from dlx.config.checks import at_least
from dlx.random import generator

KERNELS = {
    "blur": [[1 / 16, 2 / 16, 1 / 16], [2 / 16, 4 / 16, 2 / 16], [1 / 16, 2 / 16, 1 / 16]],
    "sharpen": [[0.0, -1.0, 0.0], [-1.0, 5.0, -1.0], [0.0, -1.0, 0.0]],
    "outline": [[-1.0, -1.0, -1.0], [-1.0, 8.0, -1.0], [-1.0, -1.0, -1.0]],
    "vertical edges": [[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]],  # Sobel
    "horizontal edges": [[-1.0, -2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]],
}


class Convolution(Claim):
    """digits: digits that are filtered (the first image of each). scale: factor of their bicubic enlargement."""

    claim = "conv2d is the sum (f * g)(i, j) = sum f(a, b) g(i - a, j - b) with the kernel g flipped"
    reads = ("seed", "dataset")

    def __init__(self, *, digits: tuple[int, ...] = (0, 3, 5, 7), scale: int = 4) -> None:
        if not digits or not set(digits) <= set(range(10)):
            raise ValueError(f"digits must be some of 0 to 9, got {list(digits)}")
        at_least(1, scale=scale)
        self.digits, self.scale = digits, scale

    def measure(self, base: Config, runs: Runs) -> Measured:
        images = self._images(base)
        random = torch.randn(3, 3, dtype=torch.float64, generator=generator(base["seed"], "convolution"))
        kernels = {name: torch.tensor(kernel, dtype=torch.float64) for name, kernel in KERNELS.items()}
        differences, maps = {}, {}
        for name, kernel in {**kernels, "random": random}.items():
            library_NHW = torch.stack([F.conv2d(image[None, None], kernel[None, None])[0, 0] for image in images])
            sums = {"flipped": kernel.flip(0, 1), "not_flipped": kernel}
            off = {
                way: (library_NHW - torch.stack([convolved(image, g) for image in images])) / library_NHW.abs().max()
                for way, g in sums.items()
            }
            differences[name] = {way: float(map_NHW.abs().max()) for way, map_NHW in off.items()}
            maps[name] = {way: map_NHW[0].tolist() for way, map_NHW in off.items()}  # of the first digit
        drawn = {
            name: [F.conv2d(image[None, None], kernel[None, None], padding=1)[0, 0].tolist() for image in images]
            for name, kernel in kernels.items()
        }
        return {
            "differences": differences,
            "maps": maps,
            "images": [image.tolist() for image in images],
            "filtered": drawn,
        }

    def _images(self, base: Config) -> list[Tensor]:
        """The first image of each digit, values in [0, 1], [H, W] each."""
        dataset = build(base, "dataset")
        source = dataset.splits()["train"]
        samples = source.take(torch.arange(len(source)))
        first = [int((samples["label"] == digit).nonzero()[0]) for digit in self.digits]
        image_BCHW = samples["image"][first].double() / dataset.spec.image.scale
        image_BCHW = F.pad(image_BCHW, (1, 1, 1, 1))  # else a stroke that is cut off is the strongest edge
        larger = F.interpolate(image_BCHW, scale_factor=self.scale, mode="bicubic").clamp(0, 1)
        return list(larger.mean(1))

    def draw(self, measured: Measured, figure: Figure) -> None:
        filtered, images = measured["filtered"], measured["images"]
        figure.set_size_inches(1.9 * (len(filtered) + 1), 1.75 * (len(images) + 3))
        rows = figure.subplots(len(images) + 3, len(filtered) + 1)
        figure.suptitle("conv2d(f, g) of digits; below, its difference from the sum f * g, of the first digit")
        flips = ("flipped", "as it is")
        words = ("kernel g", *(f"difference from\nf * (g {how})\nover largest output" for how in flips))
        for row, text in zip((rows[0], *rows[-2:]), words, strict=True):
            row[0].text(0.5, 0.5, text, ha="center", va="center", transform=row[0].transAxes)
        for axes, name in zip(rows[0, 1:], filtered, strict=True):
            kernel = torch.tensor(KERNELS[name])
            limit = float(kernel.abs().max())
            axes.imshow(kernel.numpy(), cmap="RdBu", vmin=-limit, vmax=limit, alpha=0.6)
            for i, row in enumerate(KERNELS[name]):
                for j, value in enumerate(row):
                    text = f"{round(16 * value)}/16" if name == "blur" else f"{value:g}"
                    axes.text(j, i, text, ha="center", va="center", fontsize=9)
            axes.set_title(name)
        for number, (row, image) in enumerate(zip(rows[1:-2], images, strict=True)):
            row[0].imshow(image, cmap="gray", vmin=0, vmax=1)
            for axes, (name, maps) in zip(row[1:], filtered.items(), strict=True):
                if name in ("blur", "sharpen"):
                    axes.imshow(maps[number], cmap="gray", vmin=0, vmax=1)
                else:
                    limit = float(torch.tensor(maps).abs().max())
                    axes.imshow(maps[number], cmap="RdBu", vmin=-limit, vmax=limit)
        for row, way in zip(rows[-2:], ("flipped", "not_flipped"), strict=True):
            for axes, name in zip(row[1:], filtered, strict=True):
                axes.imshow(measured["maps"][name][way], cmap="RdBu", vmin=-2, vmax=2)
                axes.set_title(f"at most {measured['differences'][name][way]:.2g}", fontsize=9)
        for axes in rows.flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)

    def verdict(self, measured: Measured) -> Verdict:
        differences = measured["differences"]
        flipped = max(found["flipped"] for found in differences.values())
        unlike = {name: found["not_flipped"] for name, found in differences.items() if found["not_flipped"] > 1e-12}
        alike = [name for name in differences if name not in unlike]
        return Verdict(
            flipped < 1e-12 and bool(unlike),
            f"largest difference between conv2d and the sum with the flipped kernel {flipped:.1g}, over the largest "
            f"output, in float64; without the flip up to {max(unlike.values(), default=0.0):.2g} with "
            f"{', '.join(unlike) or 'none'}, and 0 with {', '.join(alike) or 'none'}, which are their own flip",
        )


def convolved(f: Tensor, g: Tensor) -> Tensor:
    """(f * g)(i, j) = sum over (a, b) of f(a, b) g(i - a, j - b), at the positions where g lies wholly on f.

    f [H, W], g [h, w]; the result is [H - h + 1, W - w + 1]. It loops over positions, as the formula is written.
    """
    (height, width), (rows, columns) = f.shape, g.shape
    result = torch.zeros(height - rows + 1, width - columns + 1, dtype=f.dtype)
    for i in range(rows - 1, height):
        for j in range(columns - 1, width):
            positions = product(range(i - rows + 1, i + 1), range(j - columns + 1, j + 1))
            result[i - rows + 1, j - columns + 1] = sum(float(f[a, b] * g[i - a, j - b]) for a, b in positions)
    return result
