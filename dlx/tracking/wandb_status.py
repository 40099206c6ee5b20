"""Checks for a key of and a connection to Weights & Biases without its client, which may prompt or wait for 103 s.

The probe has one deadline for all of it, which a slow look-up of the name or a server that drips bytes cannot extend.
"""

from __future__ import annotations

import configparser
import contextlib
import http.client
import netrc
import os
import queue
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

PROBE_SECONDS = 4.0
FIRST_SERVER_ERROR = 500


def base_url() -> str:
    """The server's address from the environment, else from `wandb login --host`."""
    if url := os.environ.get("WANDB_BASE_URL"):
        return url
    folder = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    kept = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(configparser.Error):
        kept.read(Path(folder).expanduser() / "settings")
    return kept.get("default", "base_url", fallback="https://api.wandb.ai")


def has_key() -> bool:
    """True if the client would find an API key."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return netrc.netrc(path).authenticators(urlparse(base_url()).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def is_reachable() -> bool:
    """True if the server answers at the client's endpoint within PROBE_SECONDS, without a server error. A refusal
    counts as an answer: the probe sends no key."""
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
    # A socket's own timeout is for each of its reads; nor does it bound the look-up of the name.
    threading.Thread(target=lambda: answers.put(_answers()), daemon=True, name="wandb-probe").start()
    try:
        return answers.get(timeout=PROBE_SECONDS)
    except queue.Empty:
        return False


def _answers() -> bool:
    door = urllib.request.Request(
        f"{base_url().rstrip('/')}/graphql",
        data=b'{"query": "{ __typename }"}',
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(door, timeout=PROBE_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        return error.code < FIRST_SERVER_ERROR
    except urllib.error.URLError as error:  # the client has certificates of its own
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError, http.client.HTTPException):
        return False


def missing() -> str | None:
    """What is missing to send runs: a key or a connection; None if nothing is."""
    return "no API key" if not has_key() else None if is_reachable() else f"no connection to {base_url()}"
