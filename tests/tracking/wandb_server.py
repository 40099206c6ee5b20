"""A server that speaks as much of W&B's protocol as its client needs to send runs, and keeps what it is sent."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """runs: by id what was sent. mood: `well`, `error` (it answers 500) or `silent` (it does not answer); `patience`:
    requests after which it has its mood."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, dict[str, Any]] = {}
        self.mood, self.patience, self.requests = "well", 0, 0
        self.closing = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client leaves connections as it likes."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def rows(self, run: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.runs[run]["files"].get("wandb-history.jsonl", [])]

    def summary(self, run: str) -> dict[str, Any]:
        return json.loads(self.runs[run]["files"]["wandb-summary.json"][-1])


def _operation(body: dict[str, Any]) -> str | None:
    named = re.search(r"(?:query|mutation) (\w+)", body.get("query") or "")
    return body.get("operationName") or (named[1] if named else None)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def _answer(self, value: Any, code: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> Any:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        try:
            return json.loads(data)
        except ValueError:
            return {}

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self._body()
        self._answer({})

    def do_POST(self) -> None:
        body = self._body()
        self.server.requests += 1
        mood = "well" if self.server.requests <= self.server.patience else self.server.mood
        if mood == "silent":
            self.server.closing.wait()
        elif mood == "error":
            self._answer({}, 500)
        elif self.path == "/graphql":
            self._answer({"data": getattr(self, f"_{_operation(body)}", lambda _: {})(body.get("variables"))})
        elif self.path.endswith("/file_stream"):
            self._stream(self.path.split("/")[-2], body)
            self._answer({})
        else:
            self._answer({})

    def _Viewer(self, given: dict[str, Any]) -> Any:
        """Tables are logged by way of artifacts, for which the client asks who it is."""
        return {"viewer": {"id": "v", "username": "someone", "entity": "someone", "email": "", "flags": "{}",
                           "admin": False, "teams": {"edges": []}, "apiKeys": {"edges": []}}}  # fmt: skip

    def _ArtifactType(self, given: dict[str, Any]) -> Any:
        return {"project": None}

    def _CreateArtifact(self, given: dict[str, Any]) -> Any:
        """One that is there already, so that the client sends nothing further of it."""
        sequence = {"id": "s", "latestArtifact": {"id": "a", "versionIndex": 0}}
        return {"createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": sequence}}}

    def _RunResumeStatus(self, given: dict[str, Any]) -> Any:
        run = self.server.runs.get(given["name"])
        if run is None:
            return {"model": None}
        rows = run["files"].get("wandb-history.jsonl", [])
        bucket = {
            "id": given["name"], "name": given["name"], "displayName": run["displayName"], "logLineCount": 0,
            "summaryMetrics": "{}", "historyLineCount": len(rows), "eventsLineCount": 0,
            "historyTail": json.dumps(rows[-1:]), "eventsTail": "[]", "config": run["config"],
            "tags": run["tags"] or [], "notes": run["notes"], "wandbConfig": json.dumps({"t": 1}),
        }  # fmt: skip
        return {"model": {"id": "m", "name": "p", "entity": {"id": "e", "name": "someone"}, "bucket": bucket}}

    def _UpsertBucket(self, given: dict[str, Any]) -> Any:
        name = given["name"] or given["id"]
        run = self.server.runs.setdefault(name, {"files": {}, "uploads": [], "exit": None, "opened": 0})
        run |= {key: value for key, value in given.items() if value is not None or key not in run}
        project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": given["entity"] or "someone"}}
        bucket = {
            "id": name, "name": name, "displayName": run["displayName"], "description": None, "config": run["config"],
            "sweepName": None, "project": project, "historyLineCount": 0,
        }  # fmt: skip
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _CreateRunFiles(self, given: dict[str, Any]) -> Any:
        self.server.runs[given["run"]]["uploads"] += given["files"]
        files = [{"name": name, "uploadUrl": f"{self.server.url}/storage/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _stream(self, name: str, body: dict[str, Any]) -> None:
        """Lines go to where their offset says, as at W&B."""
        run = self.server.runs[name]
        for file, part in (body.get("files") or {}).items():
            lines = run["files"].setdefault(file, [])
            lines[part["offset"] : part["offset"] + len(part["content"])] = part["content"]
        if body.get("complete"):
            run["exit"] = body.get("exitcode")


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
