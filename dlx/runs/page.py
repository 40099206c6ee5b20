"""A web page in one file: it opens without a network, in light and dark, and prints.

Text becomes markup in one way: `Html` is markup, every other value is escaped, and what looks like a secret in it is
left out. The page carries a policy that runs no script but its own, so that what a name or a note smuggles in does
nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.metadata
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dlx.config.extras import require
from dlx.runs.mask import mask

STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --soft: #57606a; --page: #ffffff; --panel: #f6f8fa;
  --line: #d8dee4; --accent: #0a5ea8; --best: #0a6b3d; --bad: #b42318; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8eb; --soft: #a3abb5; --page: #16191d; --panel: #1f2429;
  --line: #343b43; --accent: #7cb7ff; --best: #6fd39b; --bad: #ff9a8f; --warn: #e9b949; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 32px 24px 64px; max-width: 1080px; color: var(--text); background: var(--page);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 40px 0 12px; padding-bottom: 4px; border-bottom: 1px solid var(--line); }
h3 { font-size: 14px; margin: 20px 0 6px; color: var(--soft); font-weight: 600; }
p { margin: 6px 0; } a { color: var(--accent); }
.soft { color: var(--soft); } .best { color: var(--best); font-weight: 700; }
.failed, .diverged { color: var(--bad); font-weight: 600; }
.lost, .interrupted { color: var(--warn); font-weight: 600; }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { margin: 8px 0; padding: 12px 16px; background: var(--panel); border: 1px solid var(--line); border-radius: 6px;
  white-space: pre-wrap; overflow-wrap: anywhere; }
pre.scroll { max-height: 360px; overflow: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { text-align: left; padding: 6px 16px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.text { overflow-wrap: break-word; max-width: 32em; }
.pairs td { overflow-wrap: anywhere; } .pairs th { width: 40%; white-space: normal; overflow-wrap: break-word; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
.halves { display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 16px 32px; }
.columns { columns: 290px; column-gap: 32px; } .columns > div { break-inside: avoid; padding-top: 12px; }
.columns h3 { margin-top: 0; }
figure { margin: 12px 0; } figure img { max-width: 100%; height: auto; display: block; }
figure.full { overflow-x: auto; } figure.full img { width: 100%; min-width: 600px; }
figcaption { color: var(--soft); font-size: 13px; margin-top: 4px; overflow-wrap: anywhere; }
.pictures { columns: 2 420px; column-gap: 16px; } .pictures figure { margin: 0 0 16px; break-inside: avoid; }
.pictures img { background: #fff; border: 1px solid var(--line); border-radius: 6px; padding: 8px; }
.pictures picture img { background: var(--page); width: min(100%, 540px); } .pictures pre { margin: 0; }
.pictures .wide { max-height: 400px; overflow: auto; } .pictures thead th { position: sticky; top: 0;
  background: var(--page); }
.chart { height: 420px; margin: 8px 0 24px; }
@media (max-width: 600px) { body { padding: 20px 16px 48px; } h1 { font-size: 21px; } }
@media print { :root { color-scheme: light; --text: #000; --soft: #444; --page: #fff; --panel: #fff; --line: #bbb;
  --accent: #000; --best: #000; --bad: #000; --warn: #000; } body { max-width: none; padding: 0; font-size: 10.5pt; }
  h2 { break-after: avoid; } tr, figure, pre { break-inside: avoid; }
  .wide, .pictures .wide, pre.scroll, figure.full { overflow: visible; max-height: none; }
  figure.full img { min-width: 0; } }
"""


URLS = ("src", "srcset")  # data: of pictures, which are no text


class Html(str):
    """Trusted markup: `escape` leaves it as it is."""


Content = Html | str | int | float | None


def escape(value: Content) -> Html:
    """Escapes text; `Html` stays as it is."""
    return value if isinstance(value, Html) else Html(html.escape("" if value is None else mask(str(value))))


def join(parts: Iterable[Content], between: str = "") -> Html:
    return Html(between.join(escape(part) for part in parts))


def tag(name: str, /, *inside: Content, **attributes: Content) -> Html:
    """`class_` and the like are attributes whose names Python keeps; None leaves one out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value) if key in URLS else mask(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    end = "" if name in ("img", "meta", "source") else f"</{name}>"
    return Html(f"<{name}{given}>{join(inside)}{end}")


def table(
    header: Sequence[Content], rows: Iterable[Sequence[Content]], numbers: Iterable[int] = (), *, sortable: bool = False
) -> Html:
    """numbers: the columns that hold numbers. sortable: by a click on a heading, with SORT among the page's scripts."""
    right = set(numbers)
    kinds = ["number" if i in right else "text" for i in range(len(header))]
    heads = [
        tag("th", tag("button", name, type="button") if sortable else name, class_=kind, scope="col")
        for name, kind in zip(header, kinds, strict=True)
    ]
    lines = [tag("tr", *(tag("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True))) for row in rows]
    body = join([tag("thead", tag("tr", *heads)), tag("tbody", *lines)])
    return tag("div", tag("table", body, class_="sortable" if sortable else None), class_="wide")


def pairs(rows: Iterable[tuple[Content, Content]]) -> Html:
    """Names and values."""
    lines = [tag("tr", tag("th", name, scope="row"), tag("td", value, class_="text")) for name, value in rows]
    return tag("table", tag("tbody", *lines), class_="pairs")


def data_url(content: bytes, kind: str) -> str:
    """kind: such as image/png."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture(light: str, dark: str | None = None, *, caption: Content = None, alt: str = "", full: bool = False) -> Html:
    """Two data: URLs of one picture, for light and dark pages. full: as wide as the page."""
    image = tag("img", src=light, alt=alt)
    if dark is not None:
        # Paper is white whatever the screen is.
        source = tag("source", srcset=dark, media="screen and (prefers-color-scheme: dark)")
        image = tag("picture", source, image)
    return titled(image, caption, full=full)


def titled(inside: Html, caption: Content, *, full: bool = False) -> Html:
    """A figure with a caption below."""
    below = [tag("figcaption", caption)] if caption is not None else []
    return tag("figure", inside, *below, class_="full" if full else None)


def data_block(name: str, value: Any) -> Html:
    """A JSON block for a script, which finds it by `name` as its id."""
    text = json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Html(f'<script type="application/json" id="{html.escape(name)}">{text}</script>')


def plotly_script(feature: str) -> str:
    """plotly's own JavaScript, from its wheel. Raises UserError naming the feature if plotly is not installed."""
    require(feature, "dashboard", "plotly")
    found = importlib.metadata.distribution("plotly").locate_file("plotly/package_data/plotly.min.js")
    return Path(str(found)).read_text(encoding="utf-8")  # without importing plotly, which takes a second


def page(title: str, body: Content, scripts: Sequence[str] = ()) -> str:
    """The whole page. scripts: JavaScript of dlx or of a library, never with content of a run."""
    scripts = [script.replace("</script", "<\\/script") for script in scripts]
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    policy = f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}"
    head = join(
        [
            Html('<meta charset="utf-8">'),
            tag("meta", http_equiv="Content-Security-Policy", content=policy),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", title),
            Html(f"<style>{STYLE}</style>"),
        ],
        "\n",
    )
    own = join([Html(f"<script>{script}</script>") for script in scripts], "\n")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{escape(body)}\n{own}\n</body>\n</html>\n'
    )


SORT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => {
      const text = row.cells[column].textContent.trim();
      return [text, text === "" ? NaN : Number(text.split(" ")[0])];
    };
    const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
    rows.sort(([[a, x], ], [[b, y], ]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = isNaN(x) || isNaN(y) ? a.localeCompare(b, undefined, {numeric: true}) : x - y;
      return up ? order : -order;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}
"""
