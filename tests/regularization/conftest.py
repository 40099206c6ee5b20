"""What the tests of regularizers share: a network on digits and a batch of noise."""

from __future__ import annotations

import pytest
import torch

from dlx.data.digits import Digits
from dlx.models.mlp import MLP
from dlx.random import reseed


@pytest.fixture
def system():
    reseed(0, "init")
    return MLP(spec=Digits().spec)


@pytest.fixture
def batch():
    reseed(0, "test")
    return {"image": torch.randn(16, 1, 8, 8), "label": torch.arange(16) % 10, "index": torch.arange(16)}
