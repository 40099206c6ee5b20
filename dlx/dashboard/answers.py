"""Responses: JSON, compressed if it is large, and the files of the page."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from dlx.runs.files import encode_nonfinite
from dlx.runs.page import plotly_script

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}  # fmt: skip
PLOTLY = "plotly.min.js"
WORTH = 4096  # bytes: less is not packed


class Problem(Exception):
    """A request that cannot be answered: the status, one line for a person, and what else the page should know."""

    def __init__(self, status: int, text: str, **more: Any) -> None:
        super().__init__(text)
        self.status, self.more = status, more


def json_answer(request: Request, value: Any, status: int = 200) -> Response:
    return raw_json(request, json.dumps(encode_nonfinite(value), allow_nan=False).encode(), status)


def raw_json(request: Request, body: bytes, status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store", "Vary": "Accept-Encoding"}
    if len(body) > WORTH and _takes_gzip(request):
        body = gzip.compress(body, 1)
        headers["Content-Encoding"] = "gzip"
    return Response(body, status, headers, "application/json")


def static_answer(request: Request, name: str) -> Response:
    """A file of the page, or plotly's own JavaScript out of its wheel; by its plain name, of a fixed list."""
    headers = {"Cache-Control": "no-cache"}
    if name == PLOTLY:
        packed, tag = _plotly()
        headers = {"Cache-Control": "private, max-age=604800", "Vary": "Accept-Encoding"}
        body, kind = (packed if _takes_gzip(request) else gzip.decompress(packed)), TYPES[".js"]
        if _takes_gzip(request):
            headers["Content-Encoding"] = "gzip"
    else:
        path = next((path for path in STATIC.iterdir() if path.name == name and path.suffix in TYPES), None)
        if path is None:
            raise Problem(404, "not found")
        body, kind = path.read_bytes(), TYPES[path.suffix]
        tag = hashlib.sha256(body).hexdigest()[:32]
    headers["ETag"] = f'"{tag}"'
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=kind)


@functools.cache
def _plotly() -> tuple[bytes, str]:
    """Packed, 1.4 MB of 4.8, and a tag of its content."""
    body = plotly_script("dlx dashboard").encode()
    return gzip.compress(body, 6, mtime=0), hashlib.sha256(body).hexdigest()[:32]


def _takes_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")
