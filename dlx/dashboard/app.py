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
from dlx.dashboard.trash import Refused

THREADS = 8  # requests that are worked on at once: each may parse a megabyte of rows


def make_app(index: Index, hosts: Collection[str] = (), token: str | None = None) -> Safety:
    """hosts: see Safety. The index is closed with the application."""
    problems = dict.fromkeys((Problem, Refused, UserError), _on_problem)
    app = Starlette(
        routes=[*Routes(index).all(), *Changes(index).all()],
        exception_handlers={HTTPException: _on_http, Exception: _on_failure} | problems,
        lifespan=lambda app: _lifespan(index),
    )
    return Safety(app, hosts, token)


@asynccontextmanager
async def _lifespan(index: Index) -> AsyncIterator[None]:
    from anyio.to_thread import current_default_thread_limiter

    current_default_thread_limiter().total_tokens = THREADS
    yield
    index.close()


def _on_http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return json_answer(request, {"error": "not found" if status == 404 else "method not allowed"}, status)


def _on_failure(request: Request, error: Exception) -> Response:
    return json_answer(request, {"error": f"the dashboard failed: {type(error).__name__}"}, 500)


def _on_problem(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, Problem) else 409 if isinstance(error, Refused) else 400
    more = error.more if isinstance(error, Problem) else {}
    return json_answer(request, {"error": str(error)} | more, status)
