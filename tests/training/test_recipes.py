"""Recipes step once on data of their shape. That each composes is in tests/config/test_compose.py."""

import numpy as np
import pytest

from dlx.config.groups import GROUPS, options


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet_cifar10", []),
        ("cifar10_fast", ["data.batch_size=64", "trainer.compile=false", "model.depth=20"]),
        ("simclr_cifar10", ["data.batch_size=16", "model.encoder.depth=20"]),
    ],
)
def test_a_recipe_on_cifar10_steps_once(name, words, dlx_call, here):
    """Some with a narrow network, small batches and no compiler: what a CPU takes in a second."""
    rng = np.random.default_rng(0)
    root = here / "data" / "cifar10" / "arrays"
    root.mkdir(parents=True)
    for split, count in (("train", 160), ("test", 20)):
        np.save(root / f"{split}_image.npy", rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8))
        np.save(root / f"{split}_label.npy", np.arange(count) % 10)
    call = dlx_call("train", f"experiment={name}", *words, "trainer.max_steps=1", f"data.root={here / 'data'}")
    assert call.code == 0, call.err


def test_every_option_says_what_it_is():
    for group in GROUPS:
        assert all(options(group).values()), group
