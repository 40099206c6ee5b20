"""Augmentation of image batches on the device: crops, flips, affine maps, color, cutout. One draw per sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dlx.config import checks
from dlx.regularization.regularizer import Regularizer
from dlx.tasks.spec import Attributes, Boxes, Image, Label, Mask, Size
from dlx.tasks.system import Batch, System

VISIBLE = 0.3  # share of a box's area that must stay in the picture


class Augmentation(Regularizer):
    """In this order; what is 0, false or null is left out. What comes from outside the image is black, or void in a
    mask; of images of several sizes each keeps its own, and its padding. Boxes and masks of an image move with it; a
    box is the smallest upright one around the moved one, cut by the border, and goes if less than 30 % of it, or no
    whole pixel, is left. Each of several images has draws of its own.

    crop: pixels of padding on each side, of which a window of the image's size is cut (He et al. 2015).
    flip: mirror left-right, with probability 1/2.
    rotate: degrees, up to that much either way. scale: range of sizes, such as [0.9, 1.1]. translate: shares of the
    image's sides, up to that much either way.
    resized_crop: range of shares of the image's area; such a window, of an aspect ratio from 3/4 to 4/3, is scaled to
    the image's size (Szegedy et al. 2014).
    color: brightness, contrast and (of color images) saturation change by a factor from 1 - color to 1 + color.
    cutout: side in pixels of a black square, its centre anywhere (DeVries and Taylor 2017, arXiv:1708.04552).
    """

    order = 0
    needs = (Image,)
    keeps_inputs = (Image, Size, Label, Attributes)
    keeps_targets = (Label, Attributes, Boxes, Mask)

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
        checks.at_least(0, crop=crop, rotate=rotate, translate=translate, cutout=cutout)
        checks.between("[0, 1]", color=color)
        for name, pair in {"scale": scale, "resized_crop": resized_crop}.items():
            if pair is not None and not 0 < pair[0] <= pair[1]:
                raise ValueError(f"{name} must be a range above 0 such as [0.8, 1.2], got {list(pair)}")
        if resized_crop is not None and resized_crop[1] > 1:
            raise ValueError(f"resized_crop must end at 1 or below, got {list(resized_crop)}")
        self.crop, self.flip, self.color, self.cutout = crop, flip, color, cutout
        self.rotate, self.scale, self.translate, self.resized_crop = rotate, scale, translate, resized_crop

    def on_batch(self, batch: Batch, system: System) -> Batch:
        for name, image in system.spec.of_kind(Image).items():
            masks = system.spec.of_kind(Mask, of=name)
            boxes = list(system.spec.of_kind(Boxes, of=name))
            sizes = [batch[key] for key in system.spec.of_kind(Size, of=name)]
            batch = {**batch, **self._moved(batch, name, image, masks, boxes, *sizes)}
        return batch

    def _moved(
        self,
        batch: Batch,
        name: str,
        spec: Image,
        masks: dict[str, Mask],
        boxes: Sequence[str],
        size_B2: Tensor | None = None,
    ) -> Batch:
        """Moves an image and its masks and boxes. size: of images of several sizes, height and width."""
        image = batch[name]
        mask = {key: batch[key] for key in masks}
        corners = {key: _corners(batch[key]) for key in boxes}
        # In normalized values black is not zero.
        black = spec.normalize(torch.zeros_like(image[:1, :, :1, :1]))
        height, width = image.shape[-2:]
        own_B2 = image.new_tensor([width, height]).expand(len(image), 2)
        if size_B2 is not None:
            own_B2, beyond_BHW = size_B2.flip(1).float(), _beyond(size_B2, height, width)
            image = torch.where(beyond_BHW.unsqueeze(1), black, image)
        if self.crop:
            top_B, left_B = torch.randint(2 * self.crop + 1, (2, len(image), 1), device=image.device)
            image = self._crop(image - black, top_B, left_B) + black
            for key, entry in masks.items():
                moved = self._crop((mask[key] - entry.void).unsqueeze(1), top_B, left_B)
                mask[key] = moved.squeeze(1) + entry.void
            for key in boxes:
                shift_B2 = self.crop - torch.cat([left_B, top_B], 1)
                corners[key] = corners[key] + shift_B2[:, None, None]
        if self.flip:
            mirrored_B = torch.rand(len(image), device=image.device) < 0.5
            image = torch.where(mirrored_B[:, None, None, None], _mirrored(image, size_B2), image)
            for key in masks:
                other = _mirrored(mask[key].unsqueeze(1), size_B2).squeeze(1)
                mask[key] = torch.where(mirrored_B[:, None, None], other, mask[key])
            for key in boxes:
                mirrored = torch.stack([own_B2[:, None, None, 0] - corners[key][..., 0], corners[key][..., 1]], -1)
                corners[key] = torch.where(mirrored_B[:, None, None, None], mirrored, corners[key])
        if self.rotate or self.scale or self.translate or self.resized_crop:
            matrix_B23 = self._affine(image, own_B2)
            grid = F.affine_grid(_in_padded(matrix_B23, own_B2, image), list(image.shape), align_corners=False)
            image = F.grid_sample(image - black, grid, align_corners=False) + black
            for key, entry in masks.items():
                shifted = (mask[key] - entry.void).float().unsqueeze(1)
                moved = F.grid_sample(shifted, grid, mode="nearest", align_corners=False)
                mask[key] = moved.squeeze(1).round().long() + entry.void
            for key in boxes:
                corners[key] = _moved_points(corners[key], matrix_B23, own_B2)
        if self.color:
            image = spec.normalize(self._color(spec.denormalize(image)).mul(spec.scale))
        if self.cutout:
            image = torch.where(self._square(image), black, image)
        if size_B2 is not None:
            image = image.masked_fill(beyond_BHW.unsqueeze(1), 0.0)
            mask = {key: mask[key].masked_fill(beyond_BHW, entry.void) for key, entry in masks.items()}
        found = {key: _upright(corners[key], batch[key][..., 4], own_B2) for key in boxes}
        return {name: image, **mask, **found}

    def _crop(self, x_BCHW: Tensor, top_B1: Tensor, left_B1: Tensor) -> Tensor:
        """Windows of a picture that is padded with zeros."""
        B, _, H, W = x_BCHW.shape
        padded = F.pad(x_BCHW, [self.crop] * 4)
        rows_BH1 = (top_B1 + torch.arange(H, device=x_BCHW.device)).unsqueeze(-1)
        columns_B1W = (left_B1 + torch.arange(W, device=x_BCHW.device)).unsqueeze(-2)
        sample_B11 = torch.arange(B, device=x_BCHW.device).view(B, 1, 1)
        return padded.permute(0, 2, 3, 1)[sample_B11, rows_BH1, columns_B1W].permute(0, 3, 1, 2)

    def _affine(self, x_BCHW: Tensor, own_B2: Tensor) -> Tensor:
        """[B, 2, 3]: from where in the image each position of the new one is sampled, in coordinates from -1 to 1. own:
        width and height."""
        B, (W_B, H_B) = len(x_BCHW), own_B2.unbind(1)
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
        rows = [cos_B * width_B, -sin_B * height_B * H_B / W_B, sin_B * width_B * W_B / H_B, cos_B * height_B]
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


def _corners(boxes_BM5: Tensor) -> Tensor:
    """The four corners of boxes, x and y, [B, M, 4, 2]."""
    x1, y1, x2, y2 = boxes_BM5[..., :4].unbind(-1)
    return torch.stack([torch.stack(pair, -1) for pair in ((x1, y1), (x2, y1), (x1, y2), (x2, y2))], -2)


def _mirrored(x_BCHW: Tensor, size_B2: Tensor | None) -> Tensor:
    """Left-right, each within its own width: its padding stays at the right."""
    if size_B2 is None:
        return x_BCHW.flip(-1)
    W = x_BCHW.shape[-1]
    column_BW = (size_B2[:, 1:] - 1 - torch.arange(W, device=x_BCHW.device)) % W
    return torch.take_along_dim(x_BCHW, column_BW[:, None, None], -1)


def _beyond(size_B2: Tensor, height: int, width: int) -> Tensor:
    """Where the padding of images is, bool [B, H, W]."""
    rows_BH = torch.arange(height, device=size_B2.device) >= size_B2[:, :1]
    columns_BW = torch.arange(width, device=size_B2.device) >= size_B2[:, 1:]
    return rows_BH.unsqueeze(2) | columns_BW.unsqueeze(1)


def _in_padded(matrix_B23: Tensor, own_B2: Tensor, x_BCHW: Tensor) -> Tensor:
    """The same map in coordinates of the padded images, whose share of width and height is each image's own."""
    share_B2 = own_B2 / own_B2.new_tensor([x_BCHW.shape[-1], x_BCHW.shape[-2]])
    matrix_B22 = matrix_B23[..., :2] * share_B2.unsqueeze(2) / share_B2.unsqueeze(1)
    offset_B2 = (matrix_B22 @ (1 - share_B2).unsqueeze(2)).squeeze(2) + share_B2 * matrix_B23[..., 2] + (share_B2 - 1)
    return torch.cat([matrix_B22, offset_B2.unsqueeze(2)], 2)


def _moved_points(points_BM42: Tensor, matrix_B23: Tensor, own_B2: Tensor) -> Tensor:
    """The positions of an image's points in the image that `matrix_B23` samples from it, in pixels."""
    size = own_B2[:, None, None]
    offset = points_BM42 / size * 2 - 1 - matrix_B23[:, None, None, :, 2]
    moved = torch.linalg.solve(matrix_B23[:, None, :, :2].float(), offset.transpose(-1, -2).float()).transpose(-1, -2)
    return (moved + 1) / 2 * size


def _upright(corners_BM42: Tensor, label_BM: Tensor, own_B2: Tensor) -> Tensor:
    """Upright boxes around the corners, cut by the border, [B, M, 5]; those of which too little is left are padding."""
    low, high = corners_BM42.amin(-2), corners_BM42.amax(-2)
    size = own_B2.unsqueeze(1)
    inside_low, inside_high = low.clamp(min=0).minimum(size), high.clamp(min=0).minimum(size)
    sides = inside_high - inside_low
    share_BM = sides.prod(-1) / (high - low).prod(-1).clamp_min(1e-6)
    stays_BM = (label_BM >= 0) & (share_BM >= VISIBLE) & (sides.amin(-1) >= 1)
    boxes = torch.cat([inside_low, inside_high, label_BM.unsqueeze(-1)], -1)
    gone = torch.cat([torch.zeros_like(boxes[..., :4]), -torch.ones_like(boxes[..., :1])], -1)
    return torch.where(stays_BM.unsqueeze(-1), boxes, gone)
