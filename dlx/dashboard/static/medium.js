// How a medium is shown: a picture or an animation as such, a text, a curve as a chart, a table as a table. What a run
// wrote is text here, never markup.

import { api } from "./api.js";
import { groupLine, stroke } from "./colors.js";
import { fill, h } from "./dom.js";
import { number, text } from "./format.js";
import { CONFIG, axis, layout, plain, plotly } from "./plot.js";

const FEW = 12; // points, that are marked
const KEPT = 200;
const WORDS = { image: "picture", animation: "animation", text: "text", curve: "curve", table: "table" };
const read = new Map(); // address -> what it holds, as a promise: a file that changes has another address

export const word = (kind) => WORDS[kind];

function content(item) {
  if (!read.has(item.url)) {
    if (read.size >= KEPT) read.clear();
    const asked = item.kind === "text" ? api.mediumText(item.url) : api.mediumData(item.url);
    read.set(item.url, asked);
    asked.catch(() => read.delete(item.url));
  }
  return read.get(item.url);
}

// A place for one medium. It keeps what it shows until the next one is there, so that a slider does not flicker.
export function frame({ onclick = null } = {}) {
  const element = h("div", { class: "medium" });
  let now = null; // the item that is shown, or was asked for last
  let drawn = null; // the kind of what is there
  let label = "";

  // item: null where there is none; missing: what is said then.
  function show(item, name, missing = "") {
    if (item && now?.url === item.url) return;
    now = item;
    label = name;
    if (!item) return put("none", h("p", { class: "muted none" }, missing));
    if (item.kind === "image" || item.kind === "animation") return showImage(item);
    draw(item);
  }

  async function draw(item) {
    try {
      const [found, Plotly] = await Promise.all([content(item), item.kind === "curve" ? plotly() : null]);
      if (now !== item || !element.isConnected) return;
      if (found.problem) fails(item, found.problem);
      else if (item.kind === "text") put("text", showText(found, label));
      else if (item.kind === "table") put("table", showTable(found, label));
      else await showCurve(Plotly, found);
    } catch (error) {
      if (now === item) fails(item, error.message);
    }
  }

  function put(kind, ...parts) {
    clear();
    drawn = kind;
    fill(element, parts);
  }

  const fails = (item, why) =>
    put("none", h("p", { class: "muted none" }, `This ${word(item.kind)} cannot be shown${why ? `: ${why}` : ""}`));

  function showImage(item) {
    if (drawn === "image") {
      element.querySelector("img").src = item.url;
      return;
    }
    const image = h("img", { src: item.url, alt: label, decoding: "async", onerror: () => fails(now) });
    put(
      "image",
      onclick
        ? h(
            "button",
            { type: "button", class: "picture", "aria-label": `Enlarge ${label}`, onclick: () => onclick(now) },
            image,
          )
        : image,
    );
  }

  async function showCurve(Plotly, found) {
    if (drawn !== "curve") {
      put(
        "curve",
        h("p", { class: "title" }),
        h("div", { class: "plot", role: "img", "aria-label": `Curve ${label}` }),
        h("div", { class: "legend", role: "list", "aria-label": "Lines" }),
        h("small", { class: "muted" }),
      );
    }
    const [title, plot, legend, note] = element.children;
    const lines = Object.entries(found.lines);
    title.textContent = found.title;
    note.textContent = found.count > lines.length ? `The first ${lines.length} of ${found.count} lines` : "";
    fill(
      legend,
      (lines.length > 1 ? lines : []).map(([name], i) =>
        h(
          "span",
          { class: "key", role: "listitem" },
          h("i", { style: stroke(groupLine(i)) }),
          h("span", { title: name }, name),
        ),
      ),
    );
    await Plotly.react(
      plot,
      lines.map(([name, [x, y]], i) => ({
        type: "scatter",
        mode: x.length <= FEW ? "lines+markers" : "lines",
        x,
        y,
        name: plain(name),
        line: { width: 1.8, ...groupLine(i) },
        marker: { size: 4, color: groupLine(i).color },
        hovertemplate: "%{y:.5~g} at %{x:.5~g}<extra>%{fullData.name}</extra>",
      })),
      layout({
        xaxis: axis(plain(found.x), { type: "linear" }),
        yaxis: axis(plain(found.y), { type: "linear" }),
        uirevision: label,
      }),
      CONFIG,
    );
    element.dataset.lines = String(lines.length);
  }

  function clear() {
    const plot = element.querySelector(".js-plotly-plot");
    if (plot) window.Plotly.purge(plot);
    delete element.dataset.lines;
  }

  return {
    element,
    show,
    clear,
    theme: () => now?.kind === "curve" && draw(now),
  };
}

function showText(found, label) {
  if (found.trim() === "") return h("p", { class: "muted none" }, "An empty text");
  return h("pre", { class: "text", tabIndex: 0, role: "region", "aria-label": label }, found);
}

const many = (count, one) =>
  `${count.toLocaleString("en-US").replaceAll(",", "\u2009")} ${one}${count === 1 ? "" : "s"}`;

function showTable(found, label) {
  const { columns, rows, numbers, count, wide } = found;
  const right = new Set(numbers);
  // Among fractions a whole number has decimals too.
  const fractions = new Set(numbers.filter((i) => rows.some((row) => row[i] % 1 > 0 || row[i] % 1 < 0)));
  const cell = (value, i) => {
    if (typeof value !== "number") return text(value);
    return fractions.has(i) && Number.isInteger(value) && Math.abs(value) < 100 ? value.toFixed(4) : number(value);
  };
  const kind = (i) => (right.has(i) ? "number" : "");
  const shown = [
    rows.length < count ? `The first ${rows.length} of ${many(count, "row")}` : many(count, "row"),
    columns.length < wide && `the first ${columns.length} of ${many(wide, "column")}`,
  ];
  return [
    h(
      "div",
      { class: "cells", tabIndex: 0, role: "region", "aria-label": label },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            columns.map((name, i) => h("th", { scope: "col", class: kind(i) }, name)),
          ),
        ),
        h(
          "tbody",
          {},
          rows.map((row) =>
            h(
              "tr",
              {},
              row.map((value, i) => h("td", { class: kind(i) }, cell(value, i))),
            ),
          ),
        ),
      ),
    ),
    h("small", { class: "muted" }, shown.filter(Boolean).join(", ")),
  ];
}
