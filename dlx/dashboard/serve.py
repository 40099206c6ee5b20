"""Serving the page: an address that is free, a token where others can reach it, a browser, a clean end."""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from dlx.config.errors import UserError
from dlx.dashboard.app import make_app
from dlx.dashboard.index import Index

FIRST_PORT = 8008
PORTS = 100  # that are tried, where none was asked for
SHORTEST_TOKEN = 16
TOKEN = "DLX_DASHBOARD_TOKEN"


def serve(root: Path, host: str, port: int | None, *, browser: bool, say: Callable[[str], None]) -> None:
    """Serves until Ctrl-C. Raises UserError if the folder does not exist or the address is taken."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; `dlx train` makes outputs/, or name the folder of your runs")
    token = None if is_loopback(host) else _token()
    listening = _listen(host, port)
    index = Index(root)
    bound = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    everywhere = host in ("0.0.0.0", "::")
    address = f"http://{socket.gethostname() if everywhere else shown}:{bound}/" + (f"?token={token}" if token else "")
    say(f"dashboard of {root}/ at {address}  (Ctrl-C ends it)")
    if token:
        say("others can reach this address, and it is not encrypted: `ssh -L` to a loopback address is safer")
    threading.Thread(target=index.look, daemon=True).start()  # so that the first page finds it done
    if browser and _has_screen():
        import webbrowser

        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    hosts = {"*", socket.gethostname(), socket.getfqdn()} if everywhere else {shown}
    config = uvicorn.Config(
        make_app(index, hosts, token), http="h11", ws="none", loop="asyncio", lifespan="on", log_config=None,
        access_log=False, server_header=False, h11_max_incomplete_event_size=1 << 20, timeout_graceful_shutdown=2,
        proxy_headers=False,
    )  # fmt: skip
    # Failures are shown, requests are not: an address may hold the token.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    try:
        _Server(config, index).run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    finally:
        index.close()
        listening.close()


class _Server(uvicorn.Server):
    """Ends open streams of news at once, so that Ctrl-C does not wait for the pages that listen."""

    def __init__(self, config: uvicorn.Config, index: Index) -> None:
        super().__init__(config)
        self._index = index

    def handle_exit(self, sig: int, frame: Any) -> None:
        threading.Thread(target=self._index.close, daemon=True).start()  # a handler must not wait for a lock
        super().handle_exit(sig, frame)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _token() -> str:
    given = os.environ.get(TOKEN)
    if given is None:
        return secrets.token_urlsafe(32)
    if len(given) < SHORTEST_TOKEN or not given.isascii() or not all(sign.isalnum() or sign in "-_" for sign in given):
        raise UserError(f"{TOKEN}: at least {SHORTEST_TOKEN} letters, digits, '-' or '_'")
    return given


def _listen(host: str, port: int | None) -> socket.socket:
    tried = range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else [port]
    for one in tried:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                "127.0.0.1" if host == "localhost" else host, one, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listening = socket.socket(family, kind, protocol)
        except OSError as error:
            raise UserError(f"--host {host}: no such address here ({error.strerror})") from error
        try:
            if os.name == "posix":  # a port in TIME_WAIT is free; on Windows this would share a used one
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(128)
            return listening
        except (OSError, OverflowError) as error:
            listening.close()
            reason = error
    text = f"port {port}" if port is not None else f"each port from {FIRST_PORT} to {FIRST_PORT + PORTS - 1}"
    raise UserError(
        f"{text} of {host} cannot be used: {getattr(reason, 'strerror', None) or reason}; choose one with --port"
    )


def _has_screen() -> bool:
    """True if there is a screen; over ssh `webbrowser` would open a text browser in the terminal."""
    if sys.platform in ("darwin", "win32"):
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
