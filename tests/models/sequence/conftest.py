"""What the tests of sequence models share: specs, random batches, data for a closed form."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from dlx.tasks.spec import (
    Image,
    Label,
    LabeledImages,
    LabeledTokens,
    Reals,
    RealSequence,
    RegressionSequences,
    Series,
    Streams,
    TaggedTokens,
    TokenLabels,
    Tokens,
)

TOKENS = Tokens(vocabulary=7, length=10)
PADDED = Tokens(vocabulary=7, length=10, pad=0)
LABEL = Label(classes=("a", "b", "c"))
SPECS = {
    "streams": Streams(tokens=TOKENS),
    "texts": Streams(tokens=PADDED),
    "labeled": LabeledTokens(tokens=PADDED, label=LABEL),
    "tagged": TaggedTokens(tokens=TOKENS, labels=TokenLabels(classes=("x", "y"), length=10)),
    "series": Series(series=RealSequence(length=12, size=2)),
    "regression": RegressionSequences(sequence=RealSequence(length=10, size=2), target=Reals()),
    "images": LabeledImages(image=Image(channels=3, height=8, width=6, mean=(0.5,) * 3, std=(0.5,) * 3), label=LABEL),
}


@pytest.fixture(params=SPECS)
def spec(request):
    return SPECS[request.param]


@pytest.fixture
def specs():
    return SPECS


@pytest.fixture
def random_batch():
    """random_batch(spec, size): tokens of no mark, normal numbers, labels that rise."""

    def make(spec, size=4):
        batch = spec.example(size)
        for name, entry in spec.entries.items():
            if isinstance(entry, Tokens):
                batch[name] = torch.randint(1, entry.vocabulary, batch[name].shape)
            elif isinstance(entry, TokenLabels):
                batch[name] = torch.randint(len(entry.classes), batch[name].shape)
            elif batch[name].is_floating_point():
                batch[name] = torch.randn(batch[name].shape)
        return batch

    return make


@pytest.fixture
def learned():
    """learned(system, source, steps, lr): trained by AdamW on tokens, with a learning rate that rises and falls."""

    def train(system, source, steps, lr):
        optimizer = torch.optim.AdamW(system.parameters(), lr=lr)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
        for _ in range(steps):
            tokens = source.take(torch.randint(len(source), (32,)))["tokens"].long()
            loss, _ = system.training_loss({"tokens": tokens}, system.objectives()[0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return system.eval()

    return train


@pytest.fixture
def training():
    """training(batch, ...): what `System.fit` is given."""

    def make(*batches):
        return SimpleNamespace(train=SimpleNamespace(eval_batches=lambda: iter([dict(batch) for batch in batches])))

    return make
