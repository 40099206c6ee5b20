"""Translations of images between classes against the truth, where the data know it: `dlx eval RUN --analysis truth`.

Shapes: B batch, N test images, K classes, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Any

import torch

from dlx.config.errors import UserError
from dlx.runs.media import grid
from dlx.tasks.answer import Report

SHOWN = 8  # images of the picture


@torch.no_grad()
def truth(opened: Any) -> Report:
    """How far translations of test images are off (L1 in [-1, 1], a mean over images) from each class to each other.

    opened: an `Opened` run (dlx/training/trained.py) of a system with `in_all_domains` and images in [-1, 1]. Its
    dataset has `translated(image, before, after)`: what images [B, C, H, W] in 0..1 of one class are in another.
    `error`: of translations; `identity`: of images that are asked for in the class that they are of; `unchanged`: of
    the images themselves against the truth of the translations, which is what a generator that does nothing gets. The
    picture has rows of an image, it in all classes as the system makes it, and the truth. Raises UserError for other
    data.
    """
    system, dataset = opened.system, opened.dataset
    if not hasattr(dataset, "translated"):
        raise UserError("--analysis truth: needs data whose translations are known, such as data=many_domains")
    names = list(system.names)
    K = len(names)
    shown, label = [], []
    off: dict[str, list[torch.Tensor]] = {"made": [], "as it is": []}
    for batch in opened.loader("test").eval_batches():
        x, label_B = batch["image"].cpu(), batch["label"].cpu()
        made_BKCHW = system.in_all_domains(batch["image"], system.domains(batch)).cpu()
        right_BKCHW = torch.empty_like(made_BKCHW)
        for before, name in enumerate(names):
            rows = label_B == before
            pixels = system.spec.image.denormalize(x[rows])
            right_BKCHW[rows] = 2 * torch.stack([dataset.translated(pixels, name, other) for other in names], 1) - 1
        off["made"].append((made_BKCHW - right_BKCHW).abs().flatten(2).mean(2))
        off["as it is"].append((x.unsqueeze(1) - right_BKCHW).abs().flatten(2).mean(2))
        shown.append(torch.cat([x.unsqueeze(1), made_BKCHW, right_BKCHW], 1))
        label.append(label_B)
    label_N = torch.cat(label)
    made_NK, as_is_NK = (torch.cat(parts) for parts in off.values())
    own_NK = label_N.unsqueeze(1) == torch.arange(K)
    rows_of = [
        {"from": name, **{f"to {other}": float(made_NK[label_N == b, a].mean()) for a, other in enumerate(names)}}
        for b, name in enumerate(names)
    ]
    found = {"error": made_NK[~own_NK], "identity": made_NK[own_NK], "unchanged": as_is_NK[~own_NK]}
    picture = torch.cat(shown)[:SHOWN]
    return Report(
        tables={"L1": rows_of},
        media={"truth": grid(system.spec.image.draw(picture.flatten(0, 1)), columns=picture.shape[1])},
        metrics={f"truth/{name}": float(value.mean()) for name, value in found.items()},
    )
