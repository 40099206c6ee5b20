"""R-CNN and SPPNet: a network that tells regions apart, then SVMs and box regressors on its features.

Both differ in how a region becomes features: R-CNN looks at a crop of the image, SPPNet pools one pass over all of it.
Shapes: B images, P proposals, R sampled regions, M objects, F features, K classes (background is class K).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlx.config import checks
from dlx.models.detection import svm
from dlx.models.detection.regions import best_of, clip, decode, encode, sample_regions
from dlx.tasks.average_precision import box_iou
from dlx.tasks.detection import Detector, padded
from dlx.tasks.spec import ProposedBoxes, SizedProposedBoxes

if TYPE_CHECKING:
    from dlx.tasks.system import Batch, Objective

NEAR = 0.6  # overlap of the proposals from which boxes are learned
FAR = 0.3  # overlap below which a proposal is a negative of a class
AT_ONCE = 512  # regions whose features are computed together in an evaluation


class RegionClassifier(Detector):
    """A subclass defines `region_maps(image, regions) -> [N, C, h, w]` of regions [B, R, 4].

    units: of two dense layers. regions: an image's, to learn from, a quarter of them positive (from an overlap of 0.5
    on). machines: SVMs give the scores after the training, else the network's softmax. cost: C of the SVMs; a larger
    one fits the regions more closely. refine: boxes are corrected by ridge regression on the maps.
    """

    takes = ("weight",)
    spec: SizedProposedBoxes | ProposedBoxes

    def __init__(
        self,
        *,
        spec: SizedProposedBoxes | ProposedBoxes,
        map_features: int,
        units: int,
        dropout: float,
        regions: int,
        machines: bool,
        cost: float,
        refine: bool,
        overlap: float,
    ) -> None:
        super().__init__(spec=spec)
        checks.at_least(1, units=units, regions=regions)
        checks.between("[0, 1)", dropout=dropout)
        checks.between("(0, 1)", overlap=overlap)
        checks.above(0, cost=cost)
        self.regions, self.machines, self.refine, self.overlap = regions, machines, refine, overlap
        self.cost = cost
        K = len(self.classes)
        self.dense = nn.Sequential(
            nn.Linear(map_features, units), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(units, units), nn.ReLU(inplace=True), nn.Dropout(dropout),
        )  # fmt: skip
        self.score = nn.Linear(units, K + 1)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)
        self.svm = nn.Buffer(torch.zeros(K, units + 1))
        self.box = nn.Buffer(torch.zeros(K, map_features + 1, 4))
        self.scale = nn.Buffer(torch.ones(2))  # of the maps and of the features, in what is fitted on them
        self.fitted = nn.Buffer(torch.zeros((), dtype=torch.bool))

    def region_maps(self, image_BCHW: Tensor, regions_BR4: Tensor) -> Tensor:
        """The maps [B R, C, h, w] of regions in pixels of the image."""
        raise NotImplementedError(f"{type(self).__name__} defines no region_maps")

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy over the sampled regions of the images, objects among them."""
        proposals = batch["proposals"]
        regions_BR4, matched_BR5, positive_BR, taken_BR = sample_regions(
            proposals.clamp_min(0), proposals[..., 0] >= 0, batch["boxes"], count=self.regions, share=0.25
        )
        label_BR = torch.where(positive_BR, matched_BR5[..., 4].long().clamp_min(0), len(self.classes))
        logits = self.score(self.dense(self.region_maps(batch["image"], regions_BR4).flatten(1)))
        loss_BR = F.cross_entropy(logits.float(), label_BR.flatten(), reduction="none").view_as(label_BR)
        loss_B = (loss_BR * taken_BR).sum(1) / taken_BR.sum(1).clamp_min(1)
        loss = (loss_B * batch["weight"] if "weight" in batch else loss_B).mean()
        right = (logits.argmax(1).view_as(label_BR) == label_BR) & taken_BR
        return loss, {"accuracy": right.sum() / taken_BR.sum().clamp_min(1)}

    def features(self, image_1CHW: Tensor, regions_N4: Tensor) -> tuple[Tensor, Tensor]:
        """The flat maps and the features of the last dense layer of an image's regions."""
        maps = torch.cat(
            [self.region_maps(image_1CHW, part.unsqueeze(0)).flatten(1) for part in regions_N4.split(AT_ONCE)]
        )
        return maps, self.dense(maps)

    # What is fitted on the features of the trained network.

    def fit(self, data: Any) -> None:
        samples = list(self._images(data))
        norms = [torch.cat([found[name] for found in samples]).mean() for name in ("map_norm", "feature_norm")]
        self.scale.copy_(svm.NORM / torch.stack(norms).clamp_min(1e-6))
        map_scale, scale = self.scale.tolist()
        for kind in range(len(self.classes)):
            if self.machines:
                positive = torch.cat([found["objects"][found["kinds"] == kind] for found in samples]) * scale
                if len(positive):
                    negatives = (found["features"][found["far"][:, kind]] * scale for found in samples)
                    weight, bias = svm.fit_with_hard_negatives(positive, negatives, self.cost)
                    self.svm[kind] = torch.cat([weight, torch.tensor([bias])]).to(self.svm.device)
            if self.refine:
                rows, aims = (
                    torch.cat([found[name][found["near_kind"] == kind] for found in samples])
                    for name in ("near_maps", "near_aims")
                )
                if len(rows):
                    self.box[kind] = svm.fit_ridge(rows * map_scale, aims).to(self.box.device)
        self.fitted.fill_(True)

    def _images(self, data: Any) -> Iterator[dict[str, Tensor]]:
        """What the machines need of each training image, on the CPU."""
        for batch in data.train.eval_batches():
            for image_CHW, proposals_P4, boxes_M5 in zip(
                batch["image"], batch["proposals"], batch["boxes"], strict=True
            ):
                boxes_M5 = boxes_M5[boxes_M5[:, 4] >= 0]
                proposals_P4 = proposals_P4[proposals_P4[:, 0] >= 0]
                maps, features = self.features(image_CHW.unsqueeze(0), torch.cat([proposals_P4, boxes_M5[:, :4]]))
                iou_PM = box_iou(proposals_P4, boxes_M5[:, :4])
                far_PK = torch.stack(
                    [
                        (iou_PM.masked_fill(boxes_M5[:, 4] != kind, 0.0) < FAR).all(1)
                        for kind in range(len(self.classes))
                    ],
                    1,
                )
                best_P, object_P = iou_PM.max(1) if len(boxes_M5) else (iou_PM.new_zeros(len(proposals_P4)),) * 2
                near_P = best_P > NEAR
                matched = boxes_M5[object_P[near_P].long()]
                count = len(proposals_P4)
                yield {
                    "map_norm": maps.norm(dim=1).cpu(), "feature_norm": features.norm(dim=1).cpu(),
                    "features": features[:count].cpu(), "far": far_PK.cpu(), "objects": features[count:].cpu(),
                    "kinds": boxes_M5[:, 4].long().cpu(), "near_maps": maps[:count][near_P].cpu(),
                    "near_kind": matched[:, 4].long().cpu(),
                    "near_aims": encode(matched[:, :4], proposals_P4[near_P]).cpu(),
                }  # fmt: skip

    def detect(self, batch: Batch) -> Tensor:
        found = []
        size_B2 = self.image_sizes(batch)
        for image_CHW, proposals_P4, size_2 in zip(batch["image"], batch["proposals"], size_B2, strict=True):
            proposals_P4 = proposals_P4[proposals_P4[:, 0] >= 0]
            if not len(proposals_P4):
                found.append(proposals_P4.new_zeros(0, 6))
                continue
            maps, features = self.features(image_CHW.unsqueeze(0), proposals_P4)
            score_PK = self.score(features).softmax(1)[:, :-1]
            if self.machines:
                by_svm = (features * self.scale[1]) @ self.svm[:, :-1].T + self.svm[:, -1]
                score_PK = torch.where(self.fitted, by_svm.sigmoid(), score_PK)
            box_PK4 = proposals_P4.unsqueeze(1).expand(-1, len(self.classes), 4)
            if self.refine:
                delta_PK4 = torch.einsum("pf,kfc->pkc", maps * self.scale[0], self.box[:, :-1]) + self.box[:, -1]
                box_PK4 = clip(decode(delta_PK4, box_PK4), size_2)
            found.append(best_of(box_PK4, score_PK, LEAST, self.overlap))
        return padded(found)


LEAST = 0.05  # score of a detection, below which it is left out
