"""Weights & Biases without the network: no key that the machine may have, and a server that stands in for its own."""

from __future__ import annotations

import contextlib

import pytest
from wandb_server import serving


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
