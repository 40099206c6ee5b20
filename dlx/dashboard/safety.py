"""Decides which requests are answered, and sets the headers that restrict the browser.

A page of any site can send requests to a server on this machine, so loopback alone protects nothing: the Host must be
one of ours (against DNS rebinding), the Origin must equal it, and only JSON changes anything.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
METHODS = ("GET", "HEAD", "POST")
MAX_BODY = 1 << 20


class Safety:
    """ASGI middleware. hosts: names, beside those of loopback, by which the page may be asked for; "*": any IP address.
    token: who asks must have it, as a cookie that `/?token=...` sets."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] = (), token: str | None = None) -> None:
        self.app = app
        self.hosts = {host.lower() for host in hosts}
        self.token = token
        # Cookies do not know ports: two dashboards on one machine must not overwrite each other's.
        self.cookie = f"dlx_{hashlib.sha256(token.encode()).hexdigest()[:12]}" if token else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        if refusal is None and self.token:
            rest = self._without_token(scope)
            if not self._has_cookie(scope):
                if rest is None:
                    refusal = 401, "open the address that `dlx dashboard` printed: it holds the token"
                else:
                    cookie = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
                    await _answer(send, 303, "", {"Location": rest, "Set-Cookie": cookie})
                    return
            elif rest is not None:
                await _answer(send, 303, "", {"Location": rest})
                return
        if refusal is not None:
            await _answer(send, *refusal)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_raw(HEADERS)]
            await send(message)

        await self.app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason, for whom this is not."""
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return 403, "this host name is not served; use localhost"
        if scope["method"] not in METHODS:
            return 405, "method not allowed"
        if any(origin != f"{scope['scheme']}://{hosts[0]}" for origin in origins):
            return 403, "requests from other origins are refused"
        if any(site not in ("same-origin", "none") for site in _values(scope, b"sec-fetch-site")):
            return 403, "requests from other sites are refused"
        if scope["method"] == "POST":
            if len(origins) != 1:
                return 403, "a change needs an Origin"
            if [kind.partition(";")[0].strip().lower() for kind in _values(scope, b"content-type")] != [
                "application/json"
            ]:
                return 415, "a change is JSON (Content-Type: application/json)"
            lengths = _values(scope, b"content-length")
            if len(lengths) != 1 or not lengths[0].isdecimal() or int(lengths[0]) > MAX_BODY:
                return 413, f"at most {MAX_BODY} bytes, with their length"
        return None

    def _is_ours(self, host: str) -> bool:
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", host)
        if not found:
            return False
        name = found[1].lower()
        if name in LOOPBACK or name in self.hosts:
            return True
        if "*" not in self.hosts:
            return False
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    def _has_cookie(self, scope: Scope) -> bool:
        for value in _values(scope, b"cookie"):
            try:
                found = SimpleCookie(value).get(self.cookie)
            except CookieError:
                continue
            if found is not None and self._is_token(found.value):
                return True
        return False

    def _without_token(self, scope: Scope) -> str | None:
        """Redirects `/?token=...` to the page without the token in its address; None for any other request."""
        if scope["method"] != "GET" or scope["path"] != "/":
            return None
        asked = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in asked if name == "token"]
        if len(given) != 1 or not self._is_token(given[0]):
            return None
        rest = urlencode([(name, value) for name, value in asked if name != "token"])
        return f"/?{rest}" if rest else "/"

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(errors="replace"), (self.token or "").encode())


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


async def _answer(send: Send, status: int, error: str, headers: dict[str, str] | None = None) -> None:
    body = json.dumps({"error": error}).encode() if error else b""
    about = HEADERS | {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
    }
    await send({"type": "http.response.start", "status": status, "headers": _raw(about | (headers or {}))})
    await send({"type": "http.response.body", "body": body})
