"""Augmentation of image batches on the device: crops, flips, affine maps, color, cutout. One draw per sample."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from dlx.regularization.regularizer import Regularizer
from dlx.tasks.spec import ImageSpec

if TYPE_CHECKING:
    from torch import Tensor

    from dlx.tasks.system import Batch, System


class Augmentation(Regularizer):
    """In this order; what is 0, false or null is left out. What comes from outside the image is black.

    crop: pixels of padding on each side, of which a window of the image's size is cut (He et al. 2015).
    flip: mirror left-right, with probability 1/2.
    rotate: degrees, up to that much either way. scale: range of sizes, such as [0.9, 1.1]. translate: shares of the
    image's sides, up to that much either way.
    resized_crop: range of shares of the image's area; such a window, of an aspect ratio from 3/4 to 4/3, is scaled to
    the image's size (Szegedy et al. 2014).
    color: brightness, contrast and (of color images) saturation change by a factor from 1 - color to 1 + color.
    cutout: side in pixels of a black square, its centre anywhere (DeVries and Taylor 2017, arXiv:1708.04552).
    """

    place = 0

    def __init__(
        self,
        *,
        crop: int = 4,
        flip: bool = True,
        rotate: float = 0.0,
        scale: tuple[float, float] | None = None,
        translate: float = 0.0,
        resized_crop: tuple[float, float] | None = None,
        color: float = 0.0,
        cutout: int = 0,
    ) -> None:
        for name, value in {"crop": crop, "rotate": rotate, "translate": translate, "cutout": cutout}.items():
            if value < 0:
                raise ValueError(f"{name} must be at least 0, got {value}")
        if not 0 <= color <= 1:
            raise ValueError(f"color must be in [0, 1], got {color}")
        for name, pair in {"scale": scale, "resized_crop": resized_crop}.items():
            if pair is not None and not 0 < pair[0] <= pair[1]:
                raise ValueError(f"{name} must be a range above 0 such as [0.8, 1.2], got {list(pair)}")
        if resized_crop is not None and resized_crop[1] > 1:
            raise ValueError(f"resized_crop must end at 1 or below, got {list(resized_crop)}")
        self.crop, self.flip, self.color, self.cutout = crop, flip, color, cutout
        self.rotate, self.scale, self.translate, self.resized_crop = rotate, scale, translate, resized_crop

    def check(self, system: System) -> None:
        if not isinstance(system.spec, ImageSpec):
            raise ValueError("needs images, and this dataset has none")

    def on_batch(self, batch: Batch, system: System) -> Batch:
        image, spec = batch["image"], system.spec
        assert isinstance(spec, ImageSpec)
        # In normalized values black is not zero.
        black = spec.normalize(torch.zeros_like(image[:1, :, :1, :1]))
        if self.crop:
            image = self._crop(image, black)
        if self.flip:
            mirrored_B = torch.rand(len(image), device=image.device) < 0.5
            image = torch.where(mirrored_B[:, None, None, None], image.flip(-1), image)
        if self.rotate or self.scale or self.translate or self.resized_crop:
            grid = F.affine_grid(self._affine(image), list(image.shape), align_corners=False)
            image = F.grid_sample(image - black, grid, align_corners=False) + black
        if self.color:
            image = spec.normalize(self._color(spec.denormalize(image)).mul(spec.scale))
        if self.cutout:
            image = torch.where(self._square(image), black, image)
        return {**batch, "image": image}

    def _crop(self, x_BCHW: Tensor, black: Tensor) -> Tensor:
        B, _, H, W = x_BCHW.shape
        padded = F.pad(x_BCHW - black, [self.crop] * 4) + black
        top_B, left_B = torch.randint(2 * self.crop + 1, (2, B, 1), device=x_BCHW.device)
        rows_BH1 = (top_B + torch.arange(H, device=x_BCHW.device)).unsqueeze(-1)
        columns_B1W = (left_B + torch.arange(W, device=x_BCHW.device)).unsqueeze(-2)
        sample_B11 = torch.arange(B, device=x_BCHW.device).view(B, 1, 1)
        return padded.permute(0, 2, 3, 1)[sample_B11, rows_BH1, columns_B1W].permute(0, 3, 1, 2)

    def _affine(self, x_BCHW: Tensor) -> Tensor:
        """[B, 2, 3]: where each place of the new image is taken from, in coordinates from -1 to 1."""
        B, _, H, W = x_BCHW.shape
        angle_B, size_B, area_B, aspect_B = _uniform(4, B, x_BCHW)
        shift_B2, place_B2 = _uniform(2, B, x_BCHW, 2)
        angle_B = angle_B * math.radians(self.rotate)
        low, high = self.scale or (1.0, 1.0)
        zoom_B = 2 / (low + high + size_B * (high - low))  # the inverse of the drawn size
        width_B = height_B = torch.ones_like(zoom_B)
        if self.resized_crop:
            low, high = self.resized_crop
            area_B = (low + high + area_B * (high - low)) / 2
            aspect_B = torch.exp(aspect_B * math.log(4 / 3))
            width_B, height_B = (area_B * aspect_B).sqrt().clamp(max=1), (area_B / aspect_B).sqrt().clamp(max=1)
        window_B2 = torch.stack([width_B, height_B], 1)
        centre_B2 = place_B2 * (1 - window_B2) - 2 * self.translate * shift_B2
        cos_B, sin_B = zoom_B * angle_B.cos(), zoom_B * angle_B.sin()
        # Angles are those of pixels: coordinates of a wide image are longer per unit.
        rows = [cos_B * width_B, -sin_B * height_B * H / W, sin_B * width_B * W / H, cos_B * height_B]
        matrix_B22 = torch.stack(rows, 1).view(B, 2, 2)
        return torch.cat([matrix_B22, centre_B2.unsqueeze(-1)], 2)

    def _color(self, x_BCHW: Tensor) -> Tensor:
        """On values in [0, 1]."""
        factors = 1 + self.color * _uniform(3, len(x_BCHW), x_BCHW)
        brightness, contrast, saturation = factors[..., None, None, None]
        x_BCHW = (x_BCHW * brightness).clamp(0, 1)
        x_BCHW = x_BCHW.mean((1, 2, 3), keepdim=True).lerp(x_BCHW, contrast).clamp(0, 1)
        if x_BCHW.shape[1] == 3:
            x_BCHW = x_BCHW.mean(1, keepdim=True).lerp(x_BCHW, saturation).clamp(0, 1)
        return x_BCHW

    def _square(self, x_BCHW: Tensor) -> Tensor:
        """A mask [B, 1, H, W] of a square in each image."""
        B, _, H, W = x_BCHW.shape
        inside = []
        for length in (H, W):
            first_B1 = torch.randint(length, (B, 1), device=x_BCHW.device) - self.cutout // 2
            place_BL = torch.arange(length, device=x_BCHW.device) - first_B1
            inside.append((place_BL >= 0) & (place_BL < self.cutout))
        return (inside[0].unsqueeze(-1) & inside[1].unsqueeze(-2)).unsqueeze(1)


def _uniform(count: int, size: int, like: Tensor, *more: int) -> Tensor:
    """[count, size, ...], from -1 to 1."""
    return torch.rand(count, size, *more, device=like.device) * 2 - 1
