"""SimCLR (Chen, Kornblith, Norouzi, Hinton 2020, arXiv:2002.05709): features without labels, from views of images.

Each image of a batch is augmented twice. An encoder f gives features h = f(view), a projection head g gives z = g(h),
and the loss asks which of all the other views is of the same image. h is kept, g is thrown away.
Shapes: B batch of this process, N of all processes, F features h, P of a projection z, K neighbours, M bank, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from dlx.config import checks
from dlx.models.layers import synchronize_norms
from dlx.random import uniform_rows
from dlx.regularization.simclr_views import SimCLRViews
from dlx.runs.media import grid, with_legend
from dlx.tasks.gather import gather_with_grad
from dlx.tasks.spec import Images, LabeledImages
from dlx.tasks.system import Answer, Batch, Objective, Statistics, System, Trunk

Projection = Literal["nonlinear", "linear", "none"]
NEGATIVES = 1024  # training images whose views an evaluated pair is told from
SHARPNESS = 0.07  # of a neighbour's vote, exp(cos / 0.07) (Wu et al. 2018, arXiv:1805.01978)
PICTURED = 1 << 24  # numbers of the images that are kept for the picture of neighbours
SHOWN, ROWS, WIDTH = 5, 6, 640  # neighbours or views of an image, and images in a picture; its pixels


def nt_xent(one_BP: Tensor, two_BP: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The normalized temperature-scaled cross-entropy (equation 1), in nats, and how often the pair is the nearest.

    one, two: z of both views of the images, on this process. For each of the 2B views here: -ln of the softmax over
    the other 2N - 1 views, of all processes, of cos / temperature, at the view of the same image; the mean of those
    (the paper's own code adds the means of both views: twice as much). ln(2N - 1) where all are equally near.
    """
    # In float32 at least, also under autocast: a small temperature makes much of small differences of cosines.
    dtype = torch.promote_types(one_BP.dtype, torch.float32)
    one_BP, two_BP = (F.normalize(z.to(dtype), dim=1) for z in (one_BP, two_BP))
    all_NP = torch.cat([gather_with_grad(one_BP), gather_with_grad(two_BP)])
    B, N = len(one_BP), len(all_NP) // 2
    first = distributed.get_rank() * B if N > B else 0
    place_B = first + torch.arange(B, device=one_BP.device)
    own_B, partner_B = torch.cat([place_B, place_B + N]), torch.cat([place_B + N, place_B])
    with full_precision(one_BP):
        score_BN = torch.cat([one_BP, two_BP]) @ all_NP.T / temperature
    score_BN = score_BN.scatter(1, own_B.unsqueeze(1), float("-inf"))
    nearest_B = score_BN.detach().argmax(1) == partner_B
    return F.cross_entropy(score_BN, partner_B), nearest_B.float().mean()


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Inside, autocast is off (it knows no meta device)."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def make_projection(kind: Projection, features: int, dim: int) -> nn.Module:
    """g: W2 relu(norm(W1 h)), W h, or h itself (section 4.2)."""
    if kind == "none":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(features, dim, bias=False)
    return nn.Sequential(
        nn.Linear(features, features, bias=False), nn.BatchNorm1d(features), nn.ReLU(),
        nn.Linear(features, dim, bias=False),
    )  # fmt: skip


class SimCLR(System):
    """encoder: f, any classifier without its head; h is its features, averaged over positions. augmentation: makes the
    views. dim: P. projection: g, `nonlinear` as in the paper, `linear` or `none`. temperature: of the loss. neighbours:
    K training images whose classes tell that of a held-out one.

    `loss` and `pair_accuracy` are of pairs of held-out images against the views of 1,024 training images, whatever the
    batch: -ln of the softmax at the pair, and how often the pair is the nearest. `knn_accuracy`, where there are
    labels, is of the class with the most votes among the K nearest by the cosine of h, each of exp(cos / 0.07), out of
    at most 10,000 training images. Labels serve this figure alone; without them `loss` says what is best.
    """

    views = ("image", "image_2")
    whole_batch = True

    def __init__(
        self,
        *,
        spec: LabeledImages | Images,
        encoder: Trunk,
        augmentation: SimCLRViews,
        dim: int = 128,
        projection: Literal["nonlinear", "linear", "none"] = "nonlinear",
        temperature: float = 0.1,
        neighbours: int = 20,
    ) -> None:
        super().__init__()
        checks.at_least(1, dim=dim, neighbours=neighbours)
        checks.one_of(get_args(Projection), projection=projection)
        checks.above(0, temperature=temperature)
        augmentation.check_image(spec.image)
        self.spec, self.input = spec, spec.image
        self.temperature, self.neighbours = temperature, neighbours
        self.encoder, self.augmentation = encoder, augmentation
        with torch.no_grad():
            features = self.encoder.eval().embed({"image": spec.image.example(1)}).shape[1]  # type: ignore[attr-defined]
        self.projection = make_projection(projection, features, dim)
        synchronize_norms(self)  # the views of one image would else tell their process from the others
        self.classes = len(spec.label.classes) if isinstance(spec, LabeledImages) else 0
        self._bank: Batch = {}

    def embed(self, batch: Batch) -> Tensor:
        """h of images as they are, [B, F]."""
        features: Tensor = self.encoder.embed(batch)
        return features

    def project(self, image: Tensor) -> Tensor:
        """z of views, [B, P]."""
        z: Tensor = self.projection(self.embed({"image": image}))
        return z

    def training_loss(self, batch: Batch, objective: Objective) -> tuple[Tensor, dict[str, Tensor]]:
        # Both views in one forward: a batch norm of each alone would tell them apart.
        one_BP, two_BP = self.project(torch.cat([batch[view] for view in self.views])).chunk(2)
        loss, nearest = nt_xent(one_BP, two_BP, self.temperature)
        return loss, {"pair_accuracy": nearest}

    # Evaluation.

    @property
    def monitor(self) -> tuple[str, str]:
        return ("val/knn_accuracy", "max") if self.classes else ("val/loss", "min")

    @property
    def metric_names(self) -> tuple[str, ...]:
        return (*(("knn_accuracy",) if self.classes else ()), "loss", "pair_accuracy")

    def view_rows(self, name: str, batch: Batch) -> Tensor:
        """z of one view of each image, normalized [B, P]: the same for the same name and index."""
        u_BD = uniform_rows(name, batch["index"], self.augmentation.draws)
        return F.normalize(self.project(self.augmentation.view(batch["image"], self.input, u_BD)).float(), dim=1)

    def before_evaluation(self, train: Any, dist: Any) -> None:
        """Keeps of training images: h and labels, z of views of some, and the pixels of some."""
        parts: dict[str, list[Tensor]] = {"h": [], "z": [], "label": [], "pixels": []}
        seen, pictured = 0, PICTURED // self.input.example(1).numel()
        for batch in train.eval_batches():
            if self.classes:
                parts["label"].append(batch["label"])
            parts["h"].append(F.normalize(self.embed(batch).float(), dim=1))
            if seen < NEGATIVES:
                parts["z"].append(self.view_rows("negative", batch)[: NEGATIVES - seen])
            if seen < pictured:
                parts["pixels"].append(self.input.draw(batch["image"][: pictured - seen]))
            seen += len(batch["index"])
        self._bank = {name: torch.cat(found) for name, found in parts.items() if found}

    def evaluate(self, batch: Batch) -> Statistics:
        one_BP, two_BP = (self.view_rows(name, batch) for name in ("first view", "second view"))
        pair_B = (one_BP * two_BP).sum(1) / self.temperature
        found: Statistics = {"count": (batch["index"] >= 0).sum()}
        loss_B, nearest_B = torch.zeros_like(pair_B), torch.zeros_like(pair_B)
        for view_BP in (one_BP, two_BP):
            others_BM = view_BP @ self._bank["z"].T / self.temperature
            loss_B += torch.logaddexp(pair_B, others_BM.logsumexp(1)) - pair_B
            nearest_B += (pair_B > others_BM.amax(1)).float()
        found |= {"loss": loss_B.double().sum() / 2, "nearest": nearest_B.double().sum() / 2}
        if self.classes:
            h_BF = F.normalize(self.embed(batch).float(), dim=1)
            found["right"] = (self.vote(h_BF) == batch["label"]).sum()
        return found

    def vote(self, h_BF: Tensor) -> Tensor:
        """The class of each sample by its neighbours in the bank, int64 [B]. h: normalized."""
        near = (h_BF @ self._bank["h"].T).topk(min(self.neighbours, len(self._bank["h"])))
        votes_BC = torch.zeros(len(h_BF), self.classes, device=h_BF.device)
        weight_BK = ((near.values - 1) / SHARPNESS).exp()
        return votes_BC.scatter_add(1, self._bank["label"][near.indices], weight_BK).argmax(1)

    def metrics(self, statistics: Statistics) -> dict[str, float]:
        count = int(statistics["count"])
        names = {"knn_accuracy": "right", "loss": "loss", "pair_accuracy": "nearest"}
        return {name: float(statistics[key]) / count for name, key in names.items() if key in statistics}

    # What a person asks for, and looks at.

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """`features`: h of images, [B, F]."""
        return {"features": self.embed(batch)}

    def answer(self, batch: Batch, predicted: Mapping[str, Tensor]) -> list[Answer]:
        rows = predicted["features"].float().cpu()
        return [Answer(f"{len(row)} features of length {row.norm():.4g}", {"features": row.tolist()}) for row in rows]

    def showcase(self, batch: Batch) -> dict[str, Any]:
        """`views`: images and views of each. `neighbours`: held-out images and the nearest training images."""
        image, draw = batch["image"][:ROWS], self.input.draw
        views = torch.stack([self.augmentation.on_batch({"image": image}, self)["image"] for _ in range(SHOWN)], 1)
        found = {"views": beside(draw(image), draw(views.flatten(0, 1)), "images, and views of each")}
        if "pixels" in self._bank:
            pixels = self._bank["pixels"]
            h_BF = F.normalize(self.embed({"image": image}).float(), dim=1)
            near_BK = (h_BF @ self._bank["h"][: len(pixels)].T).topk(min(SHOWN, len(pixels))).indices.cpu()
            caption = "held-out images, and the training images nearest to each"
            found["neighbours"] = beside(draw(image), pixels[near_BK.flatten()], caption)
        return found


def beside(left: Tensor, right: Tensor, caption: str) -> Any:
    """Pictures one below the other, and a row of others beside each, below a caption; small ones are enlarged."""
    first, rest = grid(left, columns=1), grid(right, columns=len(right) // len(left))
    gap = np.full((len(first), max(2, first.shape[1] // 8), first.shape[2]), 255, np.uint8)
    pixels = np.concatenate([first, gap, rest], 1)
    factor = max(1, WIDTH // pixels.shape[1])
    pixels = pixels.repeat(factor, 0).repeat(factor, 1)
    return with_legend(pixels.repeat(3, 2) if pixels.shape[2] == 1 else pixels, caption, (), ())
