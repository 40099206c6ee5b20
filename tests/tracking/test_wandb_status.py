"""Whether a server can be reached is found out within seconds, whatever it does."""

import contextlib
import socket
import threading
import time

import pytest

from dlx.tracking import wandb_status


@contextlib.contextmanager
def serving(behave):
    """A server on this machine that does this with each connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=behave, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def drip(connection):
    """A byte now and then: each read succeeds, and the answer never ends."""
    with contextlib.suppress(OSError):
        connection.recv(65536)
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Slow: 1\r\n" * 100:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)


def hang(connection):
    time.sleep(20)


@pytest.mark.parametrize("behave", [drip, hang])
def test_a_probe_has_one_deadline(behave, no_key, monkeypatch):
    monkeypatch.setattr(wandb_status, "PROBE_SECONDS", 0.5)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    with serving(behave) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        begun = time.monotonic()
        assert wandb_status.missing() == f"no connection to {url}"
        assert time.monotonic() - begun < 1.5


def test_a_name_that_is_looked_up_for_ever_is_none(no_key, monkeypatch):
    monkeypatch.setattr(wandb_status, "PROBE_SECONDS", 0.3)
    monkeypatch.setenv("WANDB_BASE_URL", "http://nowhere.invalid")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **named: time.sleep(20))
    begun = time.monotonic()
    assert not wandb_status.is_reachable()
    assert time.monotonic() - begun < 1.5


def test_a_run_with_such_a_server_is_offline_and_loses_nothing(dlx_call, tiny, no_key, monkeypatch):
    monkeypatch.setattr(wandb_status, "PROBE_SECONDS", 0.5)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    with serving(drip) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        call = dlx_call("train", *tiny, "tracker=wandb")
        assert call.code == 0, call.err
        assert f"no connection to {url}, so this run is offline" in call.err
        call = dlx_call("sync", "@last")
        assert (call.code, call.err) == (2, f"error: no connection to {url}; nothing was sent\n")
