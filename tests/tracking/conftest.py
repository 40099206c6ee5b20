"""Weights & Biases without the network: no key that the machine may have, and a server that stands in for its own."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from wandb_server import serving

from dlx.runs.media import Animation, Curve, Table, Text, encode


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE", "WANDB_RUN_GROUP", "NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def wandb_server(no_key, monkeypatch):
    """Where the client sends to in this test; there is a key."""
    import wandb

    with serving() as server:
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        wandb.teardown()  # it reads its settings once
        try:
            yield server
        finally:
            with contextlib.suppress(Exception):  # of a client that this server made ill
                wandb.teardown()


@pytest.fixture
def write_media():
    """write_media(run, "-00000004"): writes one medium of each kind; returns their files by name."""

    def write(run, ending=""):
        pixels, nan = np.zeros((4, 4, 3), np.uint8), float("nan")
        made = {
            "picture": pixels,
            "film": Animation(np.stack([pixels, 255 - pixels])),
            "words": Text("<script>alert(1)</script> & é"),
            "roc": Curve({"cat": ([0.0, 1.0], [0.0, nan]), "dog": ([0.0], [1.0])}, "fpr", "tpr", "ROC"),
            "per_class": Table(["class", "ap"], [["cat", 0.5], ["dog", nan], [None, 1]]),
            "mixed": Table(["value"], [["a"], [1], [True], [None]]),
        }
        files = {}
        for name, medium in made.items():
            suffix, content = encode(medium)
            files[name] = run / "media" / f"{name}{ending}{suffix}"
            files[name].write_bytes(content)
        return files

    return write
