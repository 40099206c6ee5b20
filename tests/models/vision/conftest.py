"""What the proofs against torchvision share: a photo's spec, norms with statistics, and the two comparisons."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dlx.tasks.spec import Image, Label, LabeledImages


@pytest.fixture(scope="session")
def photos():
    """A spec of 224x224 color images: photos(classes)."""

    def make(classes: int = 20) -> LabeledImages:
        names = tuple(map(str, range(classes)))
        image = Image(channels=3, height=224, width=224, mean=(0.0,) * 3, std=(1.0,) * 3)
        return LabeledImages(image=image, label=Label(classes=names))

    return make


@pytest.fixture(scope="session")
def randomize_norms():
    """Batch norms as after a training: a new network's hide mistakes, for they do nothing in evaluation."""

    def randomize(network: nn.Module) -> None:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.0)
                nn.init.normal_(module.bias, std=0.1)
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.running_var, 0.8, 1.5)

    return randomize


@pytest.fixture(scope="session")
def assert_same_logits():
    """In evaluation, to 1e-5, and not because all are alike."""

    def compare(pair, height: int, width: int) -> None:
        theirs, ours = (network.eval() for network in pair)
        x_BCHW = torch.randn(2, 3, height, width)
        with torch.no_grad():
            expected, logits = theirs(x_BCHW), ours(x_BCHW)
        assert expected.std() > 1e-3
        assert (logits - expected).abs().max() <= 1e-5 * max(1.0, expected.abs().max().item())

    return compare


@pytest.fixture(scope="session")
def assert_same_gradients():
    """In training, in float64: batch norm over few samples divides small numbers by small ones."""

    def compare(pair, named_as_here) -> None:
        theirs, ours = (network.double().train() for network in pair)
        x_BCHW, label = torch.randn(2, 3, 64, 64, dtype=torch.float64), torch.arange(2)
        for network in (theirs, ours):
            network.zero_grad()
            F.cross_entropy(network(x_BCHW), label).backward()
        own = dict(ours.named_parameters())
        for name, parameter in theirs.named_parameters():
            torch.testing.assert_close(own[named_as_here(name)].grad, parameter.grad, atol=1e-10, rtol=1e-6)
        for network in (theirs, ours):
            network.float()

    return compare
