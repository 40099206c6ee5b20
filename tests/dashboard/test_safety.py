"""Who may ask, and for what: against the application, and with raw bytes against a server of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dlx.config.errors import UserError
from dlx.dashboard import serve as serving
from dlx.dashboard.app import make_app
from dlx.dashboard.index import Index

HOME = str(Path(serving.__file__).parents[2])
SECRET = "root:x:0:0 outside"


@contextmanager
def server(*words: str, **environment: str):
    """`dlx dashboard` in the current folder, and the address that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "dlx", "dashboard", "--no-open", *words],
        env={**os.environ, "PYTHONPATH": HOME, "XDG_CACHE_HOME": str(Path.cwd() / "cache"), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # A shell that starts jobs in the background has Ctrl-C ignored in them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        yield process, re.search(r"http://\S+", process.stdout.readline())[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def traps(root, here):
    """Links out of the folder, pipes and files that are not what they are called, in a run and beside it."""
    outside = here / "outside"
    outside.mkdir()
    (outside / "passwd").write_text(SECRET)
    (outside / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + SECRET.encode())
    (run,) = (config.parent for config in root.glob("*/*/config.yaml") if not (config.parent / "plan.yaml").exists())
    (run / "media" / "link.png").symlink_to(outside / "picture.png")
    (run / "media" / "svg.png").write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    (run / "media" / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    (run / "media" / "page.html").write_text("<script>alert(1)</script>")
    os.mkfifo(run / "media" / "pipe.png")
    (run / "log.txt").unlink()
    (run / "log.txt").symlink_to(outside / "passwd")
    linked = root / "linked"
    shutil.copytree(run, outside / "run", ignore=shutil.ignore_patterns("pipe*"))
    linked.symlink_to(outside)
    for number, name in enumerate(("metrics.jsonl", "status.json", "environment.json")):
        odd = root / "odd" / f"run{number}"
        odd.mkdir(parents=True)
        (odd / "config.yaml").write_text("seed: 0\n")
        os.mkfifo(odd / name)
    other = root / "odd" / "run3"
    other.mkdir()
    (other / "config.yaml").write_text("seed: 0\n")
    (other / "metrics.jsonl").symlink_to(outside / "passwd")
    return run


def test_no_path_leads_anywhere(traps, here):
    """With bytes that no client would send as they are: the same 404 within a second, and nothing of the outside."""
    name = traps.relative_to("outputs")
    depth = "../" * 12
    paths = [
        *(f"{before}{depth}etc/passwd" for before in ("/", "/static/", "/media/", "/api/", "/static/sub/")),
        *(f"{before}{depth.replace('../', turn)}etc/passwd" for before in ("/static/", "/media/") for turn in
          ("%2e%2e/", "%2e%2e%2f", "..%2f", "%252e%252e%252f", "..%5c", "..\\", "%c0%ae%c0%ae/", "....//")),
        "/static//etc/passwd", "/static/%2fetc%2fpasswd", "//etc/passwd", "/media//etc/passwd",
        "/static/main.js%00.png", "/static/%00", "/static/../static/main.js", "/static/..%2fapp.py",
        "/static/../app.py", "/media/%2fetc%2fpasswd",
        "/static/", "/static", "/static/.", "/static/nothing.js", "/static/__init__.py", "/media/", "/media/nothing",
        f"/{name}/config.yaml", f"/media/{name}/media/link.png", f"/outputs/{name}/config.yaml", "/media/" + "a" * 32,
        "/static/" + "a" * 5000, "/.trash", "/api", "/api/", "/index.html", "/favicon.ico/..",
    ]  # fmt: skip
    with server() as (_, address):
        port = int(address.rstrip("/").rsplit(":", 1)[1])
        for path in paths:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                begin = time.monotonic()
                head = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode("latin-1"))
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
                assert time.monotonic() - begin < 1, path
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 404"), (path, head)
            assert body == b'{"error": "not found"}', path
        for request in (
            b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n",
            b"\x16\x03\x01\r\n\r\n",
        ):  # fmt: skip
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(request)
                assert connection.recv(65536)[9:12] in (b"403", b"400"), request
        with urllib.request.urlopen(address) as answer:
            assert answer.status == 200, "it still serves"


def test_links_pipes_and_drawings_are_not_served(traps, client):
    begin = time.monotonic()
    runs = {run["id"]: run for run in client.get("/api/runs").json()["runs"]}
    assert time.monotonic() - begin < 1
    name = str(traps.relative_to("outputs"))
    assert not any("linked" in found for found in runs)
    for number in range(4):
        assert runs[f"odd/run{number}"]["status"] == "lost"
        assert "not a plain file" in runs[f"odd/run{number}"]["reason"]
        assert client.get("/api/series", params={"metric": "lr", "runs": f"odd/run{number}"}).status_code == 200
        about = client.get("/api/run", params={"id": f"odd/run{number}"}).json()
        assert about["environment"] == {}
    assert client.get("/api/log", params={"id": name, "offset": 0}).status_code == 404
    listed = client.get("/api/media", params={"runs": name}).json()["media"]
    assert {item["name"] for item in listed} == {"predictions", "svg"}
    for item in listed:
        answer = client.get(item["url"])
        assert answer.status_code == (200 if item["name"] == "predictions" else 404)
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_picture_that_becomes_a_link_is_not_followed(traps, client):
    name = str(traps.relative_to("outputs"))
    urls = {item["name"]: item["url"] for item in client.get("/api/media", params={"runs": name}).json()["media"]}
    picture = traps / "media" / "predictions-00000008.png"
    picture.unlink()
    picture.symlink_to(Path("outside/picture.png").resolve())
    assert client.get(urls["predictions"]).status_code == 404
    shutil.rmtree(traps / "media")
    (traps / "media").symlink_to(Path("outside").resolve())
    (Path("outside") / picture.name).write_bytes(b"\x89PNG\r\n\x1a\n")
    assert client.get(urls["predictions"]).status_code == 404
    assert client.get("/api/media", params={"runs": name}).json() == {"media": []}


def served(client, run: Path) -> dict:
    """The answers to what is listed of a run's media, by name."""
    listed = client.get("/api/media", params={"runs": str(run.relative_to("outputs"))}).json()["media"]
    return {item["name"]: client.get(item["url"]) for item in listed}


@pytest.fixture
def alone(root):
    """The one run that is no member of the sweep."""
    (run,) = (config.parent for config in root.glob("*/*/config.yaml") if not (config.parent / "plan.yaml").exists())
    return run


def test_only_media_are_served_and_as_what_they_are(alone, client):
    """Whatever a file holds, a browser is told the type of its suffix, and to believe it."""
    markup = b"<html><script>alert(1)</script></html>"
    names = {"words.txt": "text/plain; charset=utf-8", "line.curve.json": "application/json",
             "rows.table.json": "application/json"}  # fmt: skip
    others = ("a.html", "a.svg", "a.js", "a.css", "a.json", "a.jpg", "a.webp", "a.txt.html", "a.xhtml", "a.TXT", "a.")
    for name in (*names, *others, "p.png", "q.gif", ".hidden.txt"):
        (alone / "media" / name).write_bytes(markup)
    (alone / "media" / "gif.png").write_bytes(b"GIF89a" + markup)
    (alone / "media" / "png.gif").write_bytes(b"\x89PNG\r\n\x1a\n" + markup)
    answers = served(client, alone)
    assert set(answers) == {"predictions", "words", "line", "rows", "p", "q", "gif", "png"}
    for name in ("p", "q", "gif", "png"):
        assert answers[name].status_code == 404, name
    for name, kind in names.items():
        answer = answers[name.partition(".")[0]]
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answers["words"].content == markup
    assert answers["line"].json() == answers["rows"].json() == {"problem": "the file is damaged"}


def test_what_is_shown_of_a_medium_has_bounds(alone, client, monkeypatch):
    monkeypatch.setattr("dlx.dashboard.media.MAX_BYTES", dict.fromkeys(
        ("image", "animation", "text", "curve", "table"), 100_000
    ))  # fmt: skip
    (alone / "media" / "long.txt").write_bytes(b"x" * 99_999 + "é".encode() * 100_000)
    (alone / "media" / "large.curve.json").write_text('{"lines": {}, "x": "' + "x" * 100_000 + '"}')
    (alone / "media" / "large.table.json").write_text('{"columns": ["' + "x" * 100_000 + '"], "rows": []}')
    (alone / "media" / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 100_000)
    (alone / "media" / "large.gif").write_bytes(b"GIF89a" + b"x" * 100_000)
    rows = [[0] * 150] * 120
    (alone / "media" / "wide.table.json").write_text(
        json.dumps({"columns": [f"c{n}" for n in range(150)], "rows": rows})
    )
    lines = {f"line {n}": [[0], [n]] for n in range(50)}
    (alone / "media" / "many.curve.json").write_text(json.dumps({"lines": lines, "x": "x", "y": "y"}))
    listed = client.get("/api/media", params={"runs": str(alone.relative_to("outputs"))}).json()["media"]
    answers = {(item["name"], item["kind"]): client.get(item["url"]) for item in listed}
    assert answers["long", "text"].text == "x" * 99_999 + "\ufffd\n… 199,999 more bytes are not shown"
    for kind in ("curve", "table"):
        assert answers["large", kind].json() == {"problem": "the file has 0 MB"}
    assert answers["large", "image"].status_code == answers["large", "animation"].status_code == 404
    wide = answers["wide", "table"].json()
    assert (wide["count"], wide["wide"], len(wide["rows"]), len(wide["columns"])) == (120, 150, 100, 100)
    assert {len(row) for row in wide["rows"]} == {100}
    assert max(wide["numbers"]) == 99
    many = answers["many", "curve"].json()
    assert (many["count"], len(many["lines"])) == (50, 20)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[" * 100_000, "null", '{"lines": {"a": [1, 2]}}', '{"columns": 1}', '{"columns": [], "rows": 3}'],
)
def test_a_damaged_curve_or_table_is_one_plain_line(alone, client, content):
    for kind in ("curve", "table"):
        (alone / "media" / f"{kind}.{kind}.json").write_text(content)
    answers = served(client, alone)
    for kind in ("curve", "table"):
        assert answers[kind].status_code == 200
        found = answers[kind].json()
        assert list(found) == ["problem"]
        assert "\n" not in found["problem"]


def test_links_to_texts_and_tables_are_not_followed(traps, client):
    outside = Path("outside").resolve()
    for name in ("words.txt", "rows.table.json", "line.curve.json", "film.gif"):
        (outside / name).write_text(SECRET)
        (traps / "media" / name).symlink_to(outside / name)
    assert set(served(client, traps)) == {"predictions", "svg"}
    (traps / "media" / "later.txt").write_text("mine")
    (url,) = [
        item["url"]
        for item in client.get("/api/media", params={"runs": str(traps.relative_to("outputs"))}).json()["media"]
        if item["name"] == "later"
    ]
    assert client.get(url).text == "mine"
    (traps / "media" / "later.txt").unlink()
    (traps / "media" / "later.txt").symlink_to(outside / "words.txt")
    assert client.get(url).status_code == 404


OURS = ["localhost", "localhost:1", "LOCALHOST:8008", "127.0.0.1", "127.0.0.1:65535", "[::1]", "[::1]:9"]
THEIRS = [
    "evil.example", "10.evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "[::1].evil", "127.0.0.2",
    "0.0.0.0", "localhost@evil.example", "localhost:80:80", "localhost:", "", "localhost evil.example", "[::1", "::1",
    "192.168.0.1", "localhost\t", "xn--localhost", "evil.example#localhost", "127.0.0.1/evil", "2130706433",
]  # fmt: skip


@pytest.mark.parametrize("host", OURS)
def test_hosts_that_are_this_machine(client, host):
    assert client.get("/api/runs", headers={"host": host, "origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize("host", THEIRS)
def test_other_hosts_are_refused(client, host):
    answer = client.get("/api/runs", headers={"host": host, "origin": f"http://{host}"})
    assert answer.status_code == 403
    assert list(answer.json()) == ["error"]


STRANGERS = [
    {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://localhost:8009"},
    {"origin": "https://localhost:8008"}, {"origin": "http://localhost:8008.evil.example"}, {"origin": ""},
    {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "anything"},
]  # fmt: skip


@pytest.mark.parametrize("headers", STRANGERS)
def test_other_origins_read_and_change_nothing(client, index, root, tree, headers):
    before = tree(root)
    name = next(iter(index.entries))
    assert client.get("/api/runs", headers=headers).status_code == 403
    for path, body in (
        ("notes", {"id": name, "tags": [], "notes": "x"}), ("trash", {"ids": [name]}), ("restore", {"undo": "x"}),
    ):  # fmt: skip
        assert client.post(f"/api/{path}", json=body, headers=headers).status_code == 403
    assert tree(root) == before


def test_a_change_is_json_from_the_page(client, index, root, tree):
    before = tree(root)
    name = next(iter(index.entries))
    body = json.dumps({"id": name, "tags": [], "notes": "x", "ids": [name]})
    for path in ("/api/notes", "/api/trash", "/api/restore"):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", ""):
            answer = client.post(path, content=body, headers={"content-type": kind})
            assert answer.status_code == 415, kind
        assert client.get(path).status_code == 405
        for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"):
            assert client.request(method, path).status_code == 405
        for wrong in ("", "[]", "{", "[" * 100_000, "1"):
            answer = client.post(path, content=wrong, headers={"content-type": "application/json"})
            assert answer.status_code == 400, (path, wrong)
        much = json.dumps({"notes": "x" * (2 << 20)})
        assert client.post(path, content=much, headers={"content-type": "application/json"}).status_code == 413
        piece = (part for part in (b"{}",))  # sent in chunks, without a length
        assert client.post(path, content=piece, headers={"content-type": "application/json"}).status_code == 413
    for path in ("/", "/api/runs", "/static/main.js"):
        assert client.post(path, json={}).status_code == 405
        assert client.request("DELETE", path).status_code == 405
    with TestClient(client.app, base_url="http://localhost:8008") as nobody:
        assert nobody.post("/api/trash", json={"ids": [name]}).status_code == 403, "a change without an Origin"
    assert tree(root) == before


def test_every_answer_says_what_a_browser_may_do(client):
    for path in ("/", "/static/main.js", "/api/runs", "/nothing", "/media/x", "/api/series"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe-eval" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers
    assert client.get("/api/runs", headers={"host": "evil.example"}).headers["content-security-policy"] == policy


def test_a_failure_says_no_more_than_its_kind(index, monkeypatch):
    monkeypatch.setattr(Index, "look", lambda self: 1 / 0)
    with TestClient(make_app(index), base_url="http://localhost", raise_server_exceptions=False) as client:
        answer = client.get("/api/runs")
    assert answer.status_code == 500
    assert answer.json() == {"error": "the dashboard failed: ZeroDivisionError"}
    assert "content-security-policy" in answer.headers


TOKEN = "a-token-of-this-test"


@pytest.fixture
def guarded(index):
    base = "http://192.168.7.7:8008"
    app = make_app(index, {"192.168.7.7"}, TOKEN)
    with TestClient(app, base_url=base, headers={"origin": base}, follow_redirects=False) as client:
        yield client


def test_with_a_token_nothing_is_told_without_it(guarded, index, root, tree):
    before = tree(root)
    for path in (
        "/", "/static/main.js", "/api/runs", "/media/x", f"/api/runs?token={TOKEN}", "/?token=", "/?token=wrong",
        f"/?token={TOKEN}&token=x", f"/?token={TOKEN}x", "/?token=%C3%A9",
    ):  # fmt: skip
        answer = guarded.get(path)
        assert answer.status_code == 401, path
        assert "set-cookie" not in answer.headers
    assert guarded.post("/api/trash", json={"ids": [next(iter(index.entries))]}).status_code == 401
    assert tree(root) == before
    for cookie in ("", "x", f"dlx={TOKEN}", f"{guarded.app.cookie}=wrong", f"{guarded.app.cookie}=é"):
        assert guarded.get("/", headers={"cookie": cookie.encode()}).status_code == 401


def test_the_token_becomes_a_cookie_and_leaves_the_address(guarded):
    answer = guarded.get(f"/?token={TOKEN}&view=1")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/?view=1"
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(answer.headers["set-cookie"].split("; "))
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert guarded.get("/api/runs").status_code == 200
    assert guarded.get(f"/?token={TOKEN}").headers["location"] == "/"
    assert guarded.get("/api/runs", headers={"host": "evil.example"}).status_code == 403
    assert guarded.get("/api/runs", headers={"origin": "http://192.168.7.7:1"}).status_code == 403


def test_the_token_is_compared_in_constant_time(guarded, monkeypatch):
    compared = []
    monkeypatch.setattr("dlx.dashboard.safety.hmac.compare_digest", lambda *pair: compared.append(pair) or False)
    assert guarded.get("/?token=wrong").status_code == 401
    assert compared == [(b"wrong", TOKEN.encode())]


def test_everywhere_is_by_address_and_own_name_only(index):
    app = make_app(index, {"*", "box"}, TOKEN)
    with TestClient(app, base_url="http://10.0.0.7:1", follow_redirects=False) as client:
        for host, status in {
            "10.0.0.7:1": 401,
            "[fe80::1]:1": 401,
            "box": 401,
            "evil.example": 403,
            "[x]": 403,
        }.items():
            assert client.get("/", headers={"host": host}).status_code == status, host


def test_another_host_starts_with_a_token_and_logs_none(root):
    with server("--host", "0.0.0.0", DLX_DASHBOARD_TOKEN=TOKEN) as (process, address):
        port = address.split(":")[2].split("/")[0]
        assert address.endswith(f"/?token={TOKEN}")
        assert socket.gethostname() in address
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/")
        with pytest.raises(urllib.error.HTTPError, match="401"):  # its cookie is not kept
            urllib.request.urlopen(f"http://127.0.0.1:{port}/?token={TOKEN}")
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
        said = process.stdout.read()
    assert TOKEN not in said
    assert "not encrypted" in said
    with server("--host", "0.0.0.0") as (_, address):
        made = address.partition("token=")[2]
    assert len(made) >= 32
    assert made != TOKEN


def test_loopback_is_the_default_and_needs_none(root):
    with server() as (_, address):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
        port = int(address.rstrip("/").rsplit(":", 1)[1])
        assert port >= serving.FIRST_PORT
        with urllib.request.urlopen(address) as answer:
            assert b"<!doctype html>" in answer.read()
        with server() as (_, other):
            assert other != address, "a port that is taken is passed over"
        with pytest.raises(UserError, match=f"port {port} .*--port"):
            serving.serve(root, "127.0.0.1", port, browser=False, say=print)


def test_ctrl_c_ends_it_at_once_while_a_page_listens(root):
    with server() as (process, address), urllib.request.urlopen(f"{address}api/live") as live:
        assert live.readline() == b": listening\n"
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
        assert time.monotonic() - begin < 1.5
        said = process.stdout.read()
    assert process.returncode == 0
    assert said == ""


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nowhere"], "nowhere: no such folder"), (["outputs", "--host", "no such host"], "no such address"),
        (["outputs", "--host", "203.0.113.7"], "cannot be used"), (["file"], "no such folder"),
    ],
)  # fmt: skip
def test_a_wrong_start_is_one_line(dlx_call, words, why):
    Path("outputs").mkdir()
    Path("file").write_text("")
    call = dlx_call("dashboard", *words, "--no-open")
    assert call.code == 2
    assert why in call.err
    assert len(call.err.splitlines()) == 1


@pytest.mark.parametrize("token", ["", "short", "with space and more of it", "é" * 20, "semicolon;semicolon;"])
def test_a_token_of_ones_own_is_long_and_plain(root, monkeypatch, token):
    monkeypatch.setenv(serving.TOKEN, token)
    with pytest.raises(UserError, match="at least 16"):
        serving.serve(root, "0.0.0.0", None, browser=False, say=print)
