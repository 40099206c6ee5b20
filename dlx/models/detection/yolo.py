"""YOLO v1 (Redmon, Divvala, Girshick, Farhadi 2015, arXiv:1506.02640): one look at the image gives all boxes.

The image is a grid of S x S cells. Each cell predicts B boxes (x and y within the cell, square roots of width and
height in shares of the image, and how sure it is) and one set of class probabilities; the cell of an object's centre
answers for it.
Shapes: N images, M objects of an image at most, S cells of a side, B boxes and K classes of a cell.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.detection.regions import best_of
from dlx.tasks.average_precision import pair_iou
from dlx.tasks.classification import soft_labels
from dlx.tasks.detection import Detector, padded
from dlx.tasks.spec import BoxedImages, SizedBoxedImages
from dlx.tasks.system import Batch, Objective

# (kernel, channels) of a convolution, or with its stride; `P` is a pooling: figure 3 up to the dense layers.
Layer = tuple[int, int] | tuple[int, int, int] | Literal["P"]
PAPER: tuple[Layer, ...] = (
    (7, 64, 2), "P", (3, 192), "P", (1, 128), (3, 256), (1, 256), (3, 512), "P",
    *((1, 256), (3, 512)) * 4, (1, 512), (3, 1024), "P", *((1, 512), (3, 1024)) * 2, (3, 1024), (3, 1024, 2),
    (3, 1024), (3, 1024),
)  # fmt: skip
SMALL: tuple[Layer, ...] = (
    (3, 16), "P", (3, 32), "P", (3, 64), "P", (3, 128), "P", (3, 256), (3, 256),
)  # fmt: skip
COORDINATES, EMPTY = 5.0, 0.5  # weights in the loss (section 2.2)
OVERLAP = 0.5  # of two boxes of a class, of which the better one is kept


class YOLO(Detector):
    """network: `paper` is the 24 convolutions, for 448 pixels; `small` six convolutions with batch norm.

    head: `dense`, the paper's two layers, sees the whole image; `conv` is a 1x1 convolution, whose cells are those of
    the last maps. cells: S, of the dense head; the other has as many as its maps. boxes: B. units: of the dense layer.
    size: a side or [height, width] that each image, whole, is stretched to (448 in the paper); None: that of the
    images, or of the largest. least_score: of a detection, below which it is left out.
    """

    takes = ("weight",)
    shown_score = 0.2  # the paper's threshold: a score is a probability times an overlap

    def __init__(
        self,
        *,
        spec: SizedBoxedImages | BoxedImages,
        network: Literal["paper", "small"] = "paper",
        head: Literal["dense", "conv"] = "dense",
        cells: int = 7,
        boxes: int = 2,
        units: int = 4096,
        dropout: float = 0.5,
        size: int | tuple[int, int] | None = None,
        least_score: float = 0.01,
    ) -> None:
        super().__init__(spec=spec)
        checks.one_of(("paper", "small"), network=network)
        checks.one_of(("dense", "conv"), head=head)
        checks.at_least(1, cells=cells, boxes=boxes, units=units)
        checks.between("[0, 1)", dropout=dropout, least_score=least_score)
        sides = (size, size) if isinstance(size, int) else size
        checks.at_least(1, size=min(sides) if sides else None)
        self.height, self.width = sides or (spec.image.height, spec.image.width)
        self.boxes, self.least_score = boxes, least_score
        self.outputs = 5 * boxes + len(self.classes)
        layers, strides = PAPER if network == "paper" else SMALL, 1
        parts: list[nn.Module] = []
        channels = spec.image.channels
        for layer in layers:
            if layer == "P":
                parts.append(nn.MaxPool2d(2))
                strides *= 2
                continue
            kernel, width, *stride = layer
            strides *= stride[0] if stride else 1
            parts.append(
                nn.Conv2d(
                    channels, width, kernel, stride[0] if stride else 1, padding=kernel // 2, bias=network == "paper"
                )
            )
            parts += [] if network == "paper" else [nn.BatchNorm2d(width)]
            parts.append(nn.LeakyReLU(0.1, inplace=True))
            channels = width
        if min(self.height, self.width) < strides:
            raise ValueError(f"network {network} needs images of {strides} pixels at least")
        self.convolutions = nn.Sequential(*parts)
        rows, columns = self.height // strides, self.width // strides
        if head == "dense":
            self.rows = self.columns = cells
            self.head: nn.Module = nn.Sequential(
                nn.Flatten(), nn.Linear(channels * rows * columns, units), nn.LeakyReLU(0.1), nn.Dropout(dropout),
                nn.Linear(units, cells * cells * self.outputs), nn.Unflatten(1, (cells, cells, self.outputs)),
            )  # fmt: skip
        else:
            self.rows, self.columns = rows, columns
            self.head = nn.Sequential(nn.Conv2d(channels, self.outputs, 1), Last())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.1)

    def features(self, x_NCHW: Tensor) -> Tensor:
        maps: Tensor = self.convolutions(x_NCHW)
        return maps

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """[N, S, S, 5 B + K]: of each box x, y, root of the width, root of the height, confidence; then the classes."""
        cells: Tensor = self.head(self.features(x_NCHW))
        return cells

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        image, factor_N4 = self.stretched(batch)
        boxes_NM5 = torch.cat([batch["boxes"][..., :4] * factor_N4.unsqueeze(1), batch["boxes"][..., 4:]], -1)
        return self.total(self.losses(self(image), self.targets(boxes_NM5)), batch)

    def stretched(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The images without padding, each scaled to the input's height and width, and the factors of x, y, x and y,
        [N, 4]."""
        image: Tensor = batch["image"]
        size_N2 = self.image_sizes(batch)
        factor_N2 = size_N2.new_tensor([self.width, self.height]).float() / size_N2.flip(1)
        if "size" in batch or image.shape[-2:] != (self.height, self.width):
            share_N2 = size_N2.flip(1) / size_N2.new_tensor([image.shape[-1], image.shape[-2]])
            # From places in the input to places in the padded image, both from -1 to 1.
            place_N23 = torch.cat([torch.diag_embed(share_N2), (share_N2 - 1).unsqueeze(2)], 2).to(image.dtype)
            shape = [*image.shape[:2], self.height, self.width]
            grid_NHW2 = F.affine_grid(place_N23, shape, align_corners=False)
            image = F.grid_sample(image, grid_NHW2, padding_mode="border", align_corners=False)
        return image, torch.cat([factor_N2, factor_N2], 1)

    def targets(self, boxes_NM5: Tensor) -> dict[str, Tensor]:
        """Of each object in pixels of the input: whether it is there and the first of its cell (which predicts one set
        of classes), the cell, the class, and centre and size as shares of the image, [N, M, 4]."""
        H, W = self.height, self.width
        size_4 = boxes_NM5.new_tensor([W, H, W, H])
        share_NM4 = boxes_NM5[..., :4] / size_4
        centre_NM2 = (share_NM4[..., :2] + share_NM4[..., 2:]) / 2
        extent_NM2 = (share_NM4[..., 2:] - share_NM4[..., :2]).clamp_min(0)
        grid_2 = boxes_NM5.new_tensor([self.columns, self.rows])
        cell_NM2 = (centre_NM2 * grid_2).long().clamp_min(0)
        column_NM, row_NM = cell_NM2[..., 0].clamp_max(self.columns - 1), cell_NM2[..., 1].clamp_max(self.rows - 1)
        there_NM = boxes_NM5[..., 4] >= 0
        flat_NM = row_NM * self.columns + column_NM
        same_NMM = (flat_NM.unsqueeze(2) == flat_NM.unsqueeze(1)) & there_NM.unsqueeze(1)
        first_NM = there_NM & ~same_NMM.tril(-1).any(2)
        return {
            "there": first_NM, "cell": flat_NM, "class": boxes_NM5[..., 4].long().clamp_min(0),
            "box": torch.cat([centre_NM2, extent_NM2], -1), "corner": torch.stack([column_NM, row_NM], -1),
        }  # fmt: skip

    def losses(self, cells_NSSO: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms of equation 3, [N] each, weighted: coordinates, object, empty, class."""
        N, M = targets["there"].shape
        K, B = len(self.classes), self.boxes
        flat_NCO = cells_NSSO.flatten(1, 2).float()
        own_NMO = flat_NCO.gather(1, targets["cell"].unsqueeze(-1).expand(-1, -1, self.outputs))
        predicted_NMB5 = own_NMO[..., : 5 * B].view(N, M, B, 5)
        grid_2 = cells_NSSO.new_tensor([self.columns, self.rows])
        wanted_NM1 = targets["there"].unsqueeze(-1)
        box_NM4 = targets["box"]
        aim_NM4 = torch.cat([box_NM4[..., :2] * grid_2 - targets["corner"], box_NM4[..., 2:].sqrt()], -1)

        corner_NM12 = targets["corner"].unsqueeze(2)
        centre_NMB2 = (predicted_NMB5[..., :2] + corner_NM12) / grid_2
        found_NMB4 = torch.cat([centre_NMB2, predicted_NMB5[..., 2:4].square()], -1)
        iou_NMB = pair_iou(corners(found_NMB4), corners(box_NM4).unsqueeze(2)).detach()
        far_NMB = (found_NMB4 - box_NM4.unsqueeze(2)).detach().square().sum(-1)
        none_NM1 = iou_NMB.amax(-1, keepdim=True) <= 0  # where none overlaps the closest one answers (darknet's rule)
        answers_NMB = soft_labels(torch.where(none_NM1, -far_NMB, iou_NMB).argmax(-1), B) * wanted_NM1

        coordinates_NMB = (predicted_NMB5[..., :4] - aim_NM4.unsqueeze(2)).square().sum(-1)
        confidence_NMB = predicted_NMB5[..., 4]
        all_confidence_NCB = flat_NCO[..., : 5 * B].unflatten(-1, (B, 5))[..., 4]
        empty_N = all_confidence_NCB.square().sum((1, 2)) - (confidence_NMB.square() * answers_NMB).sum((1, 2))
        class_NM = (own_NMO[..., 5 * B :] - soft_labels(targets["class"], K)).square().sum(-1)
        return {
            "coordinates": COORDINATES * (coordinates_NMB * answers_NMB).sum((1, 2)),
            "object": ((confidence_NMB - iou_NMB).square() * answers_NMB).sum((1, 2)),
            "empty": EMPTY * empty_N,
            "class": (class_NM * wanted_NM1[..., 0]).sum(1),
        }

    def decode(self, cells_NSSO: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes in pixels of the input [N, S S B, 4], and scores of the classes, confidence times probability,
        [N, S S B, K]."""
        H, W, B = self.height, self.width, self.boxes
        box_NSSB5 = cells_NSSO[..., : 5 * B].float().unflatten(-1, (B, 5))
        rows, columns = (torch.arange(size, device=cells_NSSO.device) for size in (self.rows, self.columns))
        corner_SS2 = torch.stack([columns.expand(self.rows, -1), rows.unsqueeze(1).expand(-1, self.columns)], -1)
        grid_2 = cells_NSSO.new_tensor([self.columns, self.rows])
        size_2 = cells_NSSO.new_tensor([W, H])
        centre = (box_NSSB5[..., :2] + corner_SS2.unsqueeze(2)) / grid_2 * size_2
        half = box_NSSB5[..., 2:4].square() * size_2 / 2
        low, high = (torch.minimum((centre + sign * half).clamp_min(0), size_2) for sign in (-1, 1))
        score = box_NSSB5[..., 4:5].clamp(0, 1) * cells_NSSO[..., 5 * B :].float().clamp(0, 1).unsqueeze(3)
        return torch.cat([low, high], -1).flatten(1, 3), score.flatten(1, 3)

    def detect(self, batch: Batch) -> Tensor:
        image, factor_N4 = self.stretched(batch)
        boxes_NA4, score_NAK = self.decode(self(image))
        boxes_NA4 = boxes_NA4 / factor_N4.unsqueeze(1)
        pairs = zip(boxes_NA4.unsqueeze(2).expand(*score_NAK.shape, 4), score_NAK, strict=True)
        return padded([best_of(box_AK4, score_AK, self.least_score, OVERLAP) for box_AK4, score_AK in pairs])


class Last(nn.Module):
    """Channels last: [N, O, S, S] to [N, S, S, O]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1)


def corners(box: Tensor) -> Tensor:
    """x1, y1, x2, y2 of boxes of centre, width and height, [..., 4]."""
    return torch.cat([box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2], -1)
