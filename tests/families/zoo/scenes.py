"""Scenes: a square or a cross on a dark ground, with its box, its mask, its class and a caption. One dataset for many
kinds of systems, each of which reads what it needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlx.data.dataset import Dataset, Source, TensorSource, Unpaired
from dlx.random import generator
from dlx.tasks.spec import Boxes, Image, Label, LabeledImages, Mask, Proposals, Size, Tokens, UnpairedImages
from dlx.tasks.tokenizer import Characters

SIDE, CLASSES, VOID = 12, ("square", "cross"), 255
ALPHABET = Characters("aceoqrsu ", first=1)


@dataclass(frozen=True, kw_only=True)
class SceneSpec(LabeledImages):
    size: Size
    boxes: Boxes
    mask: Mask
    proposals: Proposals
    caption: Tokens


class Scenes(Dataset):
    """samples: scenes. The pictures differ in size and are padded to 12x12."""

    spec: SceneSpec = SceneSpec(
        image=Image(channels=1, height=SIDE, width=SIDE, mean=(0.3,), std=(0.25,)),
        label=Label(classes=CLASSES),
        size=Size(),
        boxes=Boxes(classes=CLASSES, most=2),
        mask=Mask(classes=("ground", *CLASSES), height=SIDE, width=SIDE, void=VOID),
        proposals=Proposals(most=4),
        caption=Tokens(vocabulary=10, length=8, pad=0, tokenizer=ALPHABET.to_json()),
    )

    def __init__(self, *, samples: int = 160) -> None:
        self.samples = samples

    def splits(self) -> dict[str, Source]:
        source = TensorSource(**draw(self.samples))
        source.lengths = {"image": source.tensors["size"]}
        return {"train": source}


class PlainScenes(Scenes):
    """Pictures of one size."""

    def splits(self) -> dict[str, Source]:
        return {"train": TensorSource(**draw(self.samples, same_size=True))}


def draw(count: int, same_size: bool = False) -> dict[str, Tensor]:
    rng = generator(0, "scenes")
    label_N = torch.randint(2, (count,), generator=rng)
    size_N2 = torch.randint(SIDE - 3, SIDE + 1, (count, 2), generator=rng)
    if same_size:
        size_N2.fill_(SIDE)
    image = torch.randint(30, 60, (count, 1, SIDE, SIDE), dtype=torch.uint8, generator=rng)
    mask = torch.zeros(count, SIDE, SIDE, dtype=torch.uint8)
    boxes = torch.full((count, 2, 5), -1.0)
    boxes[..., :4] = 0
    proposals = torch.full((count, 4, 4), -1.0)
    caption = torch.zeros(count, 8, dtype=torch.int64)
    for n in range(count):
        height, width = size_N2[n].tolist()
        y, x = (int(torch.randint(side - 5, (), generator=rng)) for side in (height, width))
        shape = torch.ones(5, 5, dtype=torch.bool)
        if label_N[n]:
            shape[:2, :2] = shape[:2, 3:] = shape[3:, :2] = shape[3:, 3:] = False
        image[n, 0, y : y + 5, x : x + 5][shape] = 220
        mask[n, y : y + 5, x : x + 5][shape] = label_N[n].to(torch.uint8) + 1
        image[n, :, height:], image[n, :, :, width:] = 0, 0
        mask[n, height:], mask[n, :, width:] = VOID, VOID
        boxes[n, 0] = torch.tensor([x, y, x + 5, y + 5, float(label_N[n])])
        proposals[n, 0] = boxes[n, 0, :4]
        proposals[n, 1] = torch.tensor([0.0, 0, 5, 5])
        text = ALPHABET.encode("a " + CLASSES[label_N[n]])
        caption[n, : len(text)] = torch.tensor(text)
    return {
        "image": image, "label": label_N, "size": size_N2, "boxes": boxes, "mask": mask, "proposals": proposals,
        "caption": caption,
    }  # fmt: skip


class TwoSides(Dataset):
    """Squares on one side, crosses on the other: more of the first, and none belongs to another."""

    spec: UnpairedImages = UnpairedImages(
        image_a=Image(channels=1, height=SIDE, width=SIDE, mean=(0.5,), std=(0.5,)),
        image_b=Image(channels=1, height=SIDE, width=SIDE, mean=(0.5,), std=(0.5,)),
    )

    def splits(self) -> dict[str, Unpaired]:
        drawn = draw(140, same_size=True)
        image, label = drawn["image"], drawn["label"]
        a, b = image[label == 0], image[label == 1][:40]
        return {"train": Unpaired(TensorSource(image_a=a), TensorSource(image_b=b))}
