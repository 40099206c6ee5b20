"""What captions say: which class of a classifier a text names, so that a picture can be compared with its prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor


def named_classes(texts: Sequence[str], classes: Sequence[str]) -> Tensor:
    """The class whose name comes first in each text, as whole words, int64 [N]; -1 where none is named.

    Of "a small red circle above a blue square" it is red of (red, blue), circle of (square, circle), and "red circle"
    of classes of two words.
    """
    words = sorted(classes, key=len, reverse=True)  # of names that begin alike the longest counts
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b", re.IGNORECASE)
    number = {name.lower(): place for place, name in enumerate(classes)}
    found = [pattern.search(text) for text in texts]
    return torch.tensor([number[match[0].lower()] if match else -1 for match in found], dtype=torch.int64)
