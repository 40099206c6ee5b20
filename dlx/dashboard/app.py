"""The ASGI application: routes behind the safety rules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dlx.config.errors import UserError
from dlx.dashboard.answers import Problem, json_answer
from dlx.dashboard.changes import Changes
from dlx.dashboard.index import Index
from dlx.dashboard.routes import Routes
from dlx.dashboard.safety import Safety

THREADS = 8  # requests that are worked on at once: each may parse a megabyte of rows


def make_app(index: Index, hosts: Collection[str] = (), token: str | None = None) -> Safety:
    """hosts: see Safety. The index is closed with the application."""
    app = Starlette(
        routes=[*Routes(index).all(), *Changes(index).all()],
        exception_handlers=dict.fromkeys((HTTPException, Problem, UserError, Exception), _on_error),
        lifespan=lambda app: _lifespan(index),
    )
    return Safety(app, hosts, token)


@asynccontextmanager
async def _lifespan(index: Index) -> AsyncIterator[None]:
    from anyio.to_thread import current_default_thread_limiter

    current_default_thread_limiter().total_tokens = THREADS
    yield
    index.close()


def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        text = "not found" if error.status_code == 404 else "method not allowed"
        return json_answer(request, {"error": text}, error.status_code)
    if isinstance(error, UserError):
        return json_answer(request, {"error": str(error)}, 400)
    if isinstance(error, Problem):
        return json_answer(request, {"error": str(error)} | error.more, error.status)
    return json_answer(request, {"error": f"the dashboard failed: {type(error).__name__}"}, 500)
