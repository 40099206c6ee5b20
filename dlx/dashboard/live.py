"""News for an open page, as server-sent events: `runs` when the catalog changed, `rows` when metrics were written."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from dlx.dashboard.index import Index
from dlx.runs.config_diff import OUTPUTS, REPEATS

HEARTBEAT_SECONDS = 15


async def news(index: Index) -> AsyncIterator[bytes]:
    """Ends when the index is closed; whatever happened while a slow page was not listening comes as one event."""
    loop = asyncio.get_running_loop()
    awake = asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(awake.set)

    listener = index.listen(wake)
    try:
        yield b": listening\n\n"
        while not index.closed:
            try:
                await asyncio.wait_for(awake.wait(), HEARTBEAT_SECONDS)
            except TimeoutError:
                yield b": heartbeat\n\n"
                continue
            awake.clear()
            before = listener.version
            listener.version, runs, gone = index.changes(before)
            if runs or gone:
                yield _event("runs", runs_json(listener.version, runs, gone))
            if rows := index.take_rows(listener):
                yield _event("rows", json.dumps({"runs": rows}).encode())
    finally:
        index.leave(listener)


def runs_json(version: int, runs: list[bytes], gone: list[str], root: str | None = None) -> bytes:
    about: dict[str, Any] = {"version": version, "gone": gone}
    if root is not None:
        about |= {"root": root, "outputs": OUTPUTS, "repeats": REPEATS}
    return json.dumps(about).encode()[:-1] + b', "runs": [' + b",".join(runs) + b"]}"


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
