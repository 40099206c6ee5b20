"""Augmentation of image batches on the device: random crops of the padded image, left-right flips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from dlx.regularization.regularizer import Regularizer

if TYPE_CHECKING:
    from torch import Tensor

    from dlx.tasks.system import Batch, System


class Augmentation(Regularizer):
    """Draws once per sample.

    crop: pixels of black padding on each side, of which a window of the image's size is cut.
    flip: mirror left-right, with probability 1/2.
    """

    place = 0

    def __init__(self, *, crop: int = 4, flip: bool = True) -> None:
        if crop < 0:
            raise ValueError(f"crop must be at least 0, got {crop}")
        self.crop, self.flip = crop, flip

    def on_batch(self, batch: Batch, system: System) -> Batch:
        image = batch["image"]
        if self.crop:
            image = self._crop(image, black=system.spec.normalize(torch.zeros_like(image[:1, :, :1, :1])))
        if self.flip:
            mirrored_B = torch.rand(len(image), device=image.device) < 0.5
            image = torch.where(mirrored_B[:, None, None, None], image.flip(-1), image)
        return {**batch, "image": image}

    def _crop(self, x_BCHW: Tensor, black: Tensor) -> Tensor:
        B, _, H, W = x_BCHW.shape
        # Padding with zeros around black: in normalized values black is not zero.
        padded = F.pad(x_BCHW - black, [self.crop] * 4) + black
        top_B, left_B = torch.randint(2 * self.crop + 1, (2, B, 1), device=x_BCHW.device)
        rows_BH1 = (top_B + torch.arange(H, device=x_BCHW.device)).unsqueeze(-1)
        columns_B1W = (left_B + torch.arange(W, device=x_BCHW.device)).unsqueeze(-2)
        sample_B11 = torch.arange(B, device=x_BCHW.device).view(B, 1, 1)
        return padded.permute(0, 2, 3, 1)[sample_B11, rows_BH1, columns_B1W].permute(0, 3, 1, 2)
