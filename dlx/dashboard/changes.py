"""What the page can change: notes and tags of a run, and what is in the trash. Nothing else of a folder is written."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dlx.dashboard.answers import Problem, json_answer
from dlx.dashboard.index import Index, one, run_json
from dlx.dashboard.trash import restore, throw_away
from dlx.runs.catalog import Notes, read_notes, write_notes

MAX_TAGS, MAX_TAG, MAX_NOTES = 100, 200, 100_000  # characters of one tag, of the notes


class Changes:
    def __init__(self, index: Index) -> None:
        self.index = index
        self._writing = threading.Lock()

    def all(self) -> list[Route]:
        changes = {"/api/notes": self.notes, "/api/trash": self.trash, "/api/restore": self.restore}
        return [Route(path, partial(_changed, change), methods=["POST"]) for path, change in changes.items()]

    def notes(self, body: dict[str, Any]) -> dict[str, Any]:
        """before: what was there when the change was begun; what somebody else wrote since is not overwritten."""
        entry = one(self.index, body.get("id"))
        before = body.get("before")
        if not isinstance(before, dict) or not before.keys() >= {"tags", "notes"}:
            raise Problem(400, "before: the tags and notes that were there when the change was begun")
        wanted = _notes(body)
        if not entry.path.resolve().is_relative_to(self.index.root.resolve()):
            raise Problem(404, "no such run")
        with self._writing:
            found = read_notes(entry.path)
            now = {"tags": list(found.tags), "notes": found.notes}
            if found != wanted and any(before[key] != now[key] for key in now):
                raise Problem(409, "not saved: the tags or notes of this run were changed elsewhere", now=now)
            try:
                write_notes(entry.path, wanted)
            except OSError as error:
                raise Problem(409, f"not saved: {error.strerror}") from error
        self.index.look(within=0)
        return {"run": run_json(one(self.index, entry.id))}

    def trash(self, body: dict[str, Any]) -> dict[str, Any]:
        ids = body.get("ids")
        if not isinstance(ids, list) or not ids:
            raise Problem(400, "ids: a list of runs")
        self.index.look(within=0)  # a run may have been started again since
        names = [one(self.index, name).id for name in ids]
        key, gone = throw_away(self.index.root, self.index.entries, names)
        self.index.look(within=0)
        return {"undo": key, "gone": gone}

    def restore(self, body: dict[str, Any]) -> dict[str, Any]:
        if not _is_text(body.get("undo"), 100):
            raise Problem(400, "undo: what the deletion answered")
        back = restore(self.index.root, body["undo"])
        self.index.look(within=0)
        return {"restored": back}


async def _changed(change: Callable[[dict[str, Any]], dict[str, Any]], request: Request) -> Response:
    """Passes the JSON object of a request to `change`, and answers with its result."""
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise Problem(400, "not JSON") from None
    if not isinstance(body, dict):
        raise Problem(400, "an object is expected")
    return json_answer(request, await run_in_threadpool(change, body))


def _notes(body: dict[str, Any]) -> Notes:
    tags, notes = body.get("tags"), body.get("notes")
    if not isinstance(tags, list) or len(tags) > MAX_TAGS or not all(_is_text(tag, MAX_TAG) for tag in tags):
        raise Problem(400, f"tags: a list of at most {MAX_TAGS} texts of at most {MAX_TAG} characters")
    if not isinstance(notes, str) or not _is_text(notes, MAX_NOTES):
        raise Problem(400, f"notes: a text of at most {MAX_NOTES} characters")
    return Notes(tuple(dict.fromkeys(tags)), notes)


def _is_text(value: Any, most: int) -> bool:
    return isinstance(value, str) and len(value) <= most and not any("\ud800" <= sign <= "\udfff" for sign in value)
