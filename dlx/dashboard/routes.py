"""Answers the GET requests of the page. Plain functions run in threads; an id is looked up, never made a path."""

from __future__ import annotations

import json
import shlex
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from dlx.dashboard.answers import Problem, json_answer, raw_json, static_answer
from dlx.dashboard.index import Index, one
from dlx.dashboard.live import news, runs_json
from dlx.dashboard.media import Media, finite, read_inside, read_log
from dlx.dashboard.params import axis_of, ids_of, metric_of, number
from dlx.runs.catalog import Entry
from dlx.runs.curves import band, smooth, thinned
from dlx.runs.metric_info import goal_of

MAX_TEXT = 1 << 20  # bytes of a file of a run that are read
MOST_POINTS = 20_000


class Routes:
    def __init__(self, index: Index) -> None:
        self.index = index
        self.media_files = Media(index.root)

    def all(self) -> list[Route]:
        asked: dict[str, Callable[..., Any]] = {
            "/": self.static, "/static/{name}": self.static, "/media/{key}": self.medium, "/api/runs": self.runs,
            "/api/filter": self.filter, "/api/curves": self.curves, "/api/series": self.series,
            "/api/bands": self.bands, "/api/media": self.media, "/api/run": self.run, "/api/log": self.log,
            "/api/importance": self.importance, "/api/goals": self.goals, "/api/live": self.live,
        }  # fmt: skip
        return [Route(path, endpoint, methods=["GET"]) for path, endpoint in asked.items()]

    # The page and its files

    def static(self, request: Request) -> Response:
        return static_answer(request, request.path_params.get("name", "index.html"))

    def medium(self, request: Request) -> Response:
        try:
            data, kind = self.media_files.read(request.path_params["key"])
        except OSError:
            raise Problem(404, "not found") from None
        return Response(data, headers={"Cache-Control": "private, max-age=86400, immutable"}, media_type=kind)

    # Runs

    def _known(self, ids: list[str]) -> list[Entry]:
        """The known runs with these ids."""
        entries = self.index.entries
        return [entries[name] for name in dict.fromkeys(ids) if name in entries]

    def _runs(self, request: Request) -> list[Entry]:
        return self._known(request.query_params.getlist("runs"))

    def runs(self, request: Request) -> Response:
        self.index.look()
        since = request.query_params.get("since")
        version, runs, gone = self.index.changes(int(number(request, "since", 0, 0, 1 << 60)) if since else None)
        return raw_json(request, runs_json(version, runs, gone, str(self.index.root)))

    def filter(self, request: Request) -> Response:
        from dlx.runs.expression import check_orders, keys_of, parse
        from dlx.runs.keys import check_keys

        entries = self.index.entries
        expression = parse(request.query_params.get("where", ""))
        check_keys(keys_of(expression), entries.values())
        check_orders(expression, entries.values())
        return json_answer(request, {"ids": [name for name, entry in entries.items() if expression.matches(entry)]})

    def run(self, request: Request) -> Response:
        entry = one(self.index, request.query_params.get("id"))
        environment = self._json_file(entry, "environment.json")
        started = environment.pop("command", None)
        command = [str(word) for word in started] if isinstance(started, list) else []
        again = ["dlx", *command[1:]] if entry.is_plan and command else ["dlx", "train", "--from", str(entry.path)]
        return json_answer(request, {
            "command": command, "reproduce": shlex.join(again), "environment": environment, "path": str(entry.path),
            "log": self._text(entry, "log.txt", 0) is not None, "summary": self._json_file(entry, "summary.json"),
            "config_text": self._text(entry, "config.yaml") or "",
        })  # fmt: skip

    def _text(self, entry: Entry, name: str, limit: int = MAX_TEXT) -> str | None:
        try:
            return read_inside(self.index.root, entry.path / name, limit)[0].decode(errors="replace")
        except OSError:
            return None

    def _json_file(self, entry: Entry, name: str) -> dict[str, Any]:
        try:
            found = json.loads(self._text(entry, name) or "{}")
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def log(self, request: Request) -> Response:
        entry = one(self.index, request.query_params.get("id"))
        offset = int(number(request, "offset", 0, -1, 1 << 60))
        try:
            return json_answer(request, read_log(self.index.root, entry.path / "log.txt", offset))
        except OSError:
            raise Problem(404, "this run has no log") from None

    def goals(self, request: Request) -> Response:
        """Whether low or high is better for the metrics of these runs, as in `dlx compare`."""
        entries = self._runs(request)
        monitors = [entry.monitor for entry in entries]
        names = dict.fromkeys(name for entry in entries for name in entry.metrics)
        return json_answer(request, {"goals": {name: goal_of(name, monitors) for name in names}})

    def media(self, request: Request) -> Response:
        found = [file for entry in self._runs(request) for file in self.media_files.of(entry.id, entry.path)]
        return json_answer(request, {"media": found})

    # Curves

    def curves(self, request: Request) -> Response:
        names = dict.fromkeys(name for entry in self._runs(request) for name in self.index.names(entry))
        return json_answer(request, {"names": list(names)})

    def series(self, request: Request) -> Response:
        metric, axis = metric_of(request), axis_of(request)
        points = int(number(request, "points", 1000, 5, MOST_POINTS))
        weight = number(request, "smooth", 0.0, 0.0, 0.9999)
        head, parts = [], []
        for entry in self._runs(request):
            whole = self.index.curve(entry, metric, axis)
            if not len(whole.x):
                continue
            few, chosen = thinned(whole, points)
            parts += [few.x, few.y]
            if weight > 0:
                parts.append(smooth(whole, weight).y[chosen])
            head.append({"id": entry.id, "n": len(few.x), "smooth": weight > 0})
        text = json.dumps({"series": head}).encode()
        text += b" " * (-(4 + len(text)) % 8)
        body = [struct.pack("<I", len(text)), text, *(np.ascontiguousarray(part, "<f8").tobytes() for part in parts)]
        return Response(b"".join(body), headers={"Cache-Control": "no-store"}, media_type="application/octet-stream")

    def bands(self, request: Request) -> Response:
        metric, axis = metric_of(request), axis_of(request)
        points = int(number(request, "points", 500, 2, MOST_POINTS))
        bands = []
        for group in map(ids_of, request.query_params.getlist("group")):
            asked = [self.index.curve(entry, metric, axis) for entry in self._known(group)]
            curves = [curve for curve in asked if len(curve.x)]
            found = band(curves, points)
            shown = {name: finite(getattr(found, name).tolist()) for name in ("x", "mean", "std")}
            bands.append(shown | {"count": found.count.tolist(), "n": len(curves)})
        return json_answer(request, {"bands": bands})

    def importance(self, request: Request) -> Response:
        from dlx.dashboard.importance import importance

        return json_answer(request, importance(self._runs(request), metric_of(request)))

    async def live(self, request: Request) -> Response:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(news(self.index), media_type="text/event-stream", headers=headers)
