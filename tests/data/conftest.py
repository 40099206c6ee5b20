import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    """Serves a folder on this machine's loopback; gives its address."""
    servers = []

    def start(folder):
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def toys(monkeypatch):
    """Words of a command that make the small models of tests/families known to it."""
    families = Path(__file__).parents[1] / "families"
    monkeypatch.syspath_prepend(str(families))
    monkeypatch.setenv("PYTHONPATH", str(families), prepend=os.pathsep)
    monkeypatch.setenv("DLX_TRUST", "zoo")
    return "--conf-dir", str(families / "conf")
