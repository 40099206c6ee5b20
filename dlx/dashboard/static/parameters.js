// Settings against a figure: how much each matters, all of them at once, and one of them alone.

import { api } from "./api.js";
import { lineOf, token } from "./colors.js";
import { mainMetrics } from "./columns.js";
import { debounce, empty, fill, h, toast } from "./dom.js";
import { text } from "./format.js";
import { parallel } from "./parallel.js";
import { CONFIG, axis, layout, plain, plotly } from "./plot.js";
import { selected, setSelected } from "./selection.js";
import { differing, known, runs } from "./store.js";
import { state, update } from "./state.js";
import { currentRows, shownRunIds } from "./table.js";
import { select } from "./widgets.js";

const AXES = 8;
const MANY = 60; // runs whose colours still tell them apart
let body, lines;
let asked = ""; // what the importance below was asked for
let importance = null;

export const parameters = {
  mount(target) {
    body = target;
    asked = "";
    importance = null;
    draw();
  },
  update(keys) {
    if (["sel", "q", "metric", "key"].some((key) => keys.has(key))) draw();
    else if (keys.has("runs") || keys.has("rows")) later();
  },
  theme: () => draw(),
};
const later = debounce(() => body?.isConnected && draw(), 1500);

function draw() {
  const chosen = selected();
  const ids = chosen.length > 1 ? chosen : currentRows().length > 0 ? shownRunIds() : [];
  const names = known().metrics;
  const metric = names.includes(state().metric) ? state().metric : (mainMetrics(1)[0] ?? names[0]);
  const list = ids.map((id) => runs.get(id)).filter((run) => Number.isFinite(run?.metrics[metric]));
  if (list.length < 2) {
    return fill(
      body,
      empty(
        "Not enough runs",
        "Settings can be set against a figure when at least two runs have it: select them, or widen the filter.",
      ),
    );
  }
  const keys = differing(list);
  const ranked = rank(keys);
  const key = keys.includes(state().key) ? state().key : ranked[0];
  const bars = h("div", { class: "importance" });
  const scatter = h("div", { class: "plot", role: "img", "aria-label": `${metric} against ${key}` });
  lines = h("div", { class: "parallel" });
  fill(
    body,
    h(
      "div",
      { class: "controls" },
      select("Figure", [...names].sort(), metric, (value) => update({ metric: value })),
      h(
        "span",
        { class: "muted" },
        `${list.length} runs, ${chosen.length > 1 ? "those selected" : "all in the table"}`,
      ),
    ),
    keys.length === 0
      ? empty("Nothing differs", "These runs have the same configuration.")
      : h(
          "div",
          { class: "stack" },
          h(
            "article",
            { class: "card" },
            h("header", {}, h("h3", {}, "What matters"), h("small", { class: "muted", id: "importance-n" })),
            bars,
          ),
          h(
            "article",
            { class: "card", id: "parallel-card" },
            h(
              "header",
              {},
              h("h3", {}, "All at once"),
              h("small", { class: "muted" }, "Drag along an axis to pick runs"),
            ),
            lines,
          ),
          h(
            "article",
            { class: "card", id: "scatter-card" },
            h(
              "header",
              {},
              h("h3", {}, "One setting"),
              select("Setting", keys, key, (value) => update({ key: value }), { quiet: true }),
            ),
            scatter,
          ),
        ),
  );
  if (keys.length === 0) return;
  drawLines(list, ranked, metric);
  drawScatter(scatter, list, key, metric).catch((error) => toast(error.message, { kind: "error" }));
  drawBars(bars, list, keys, metric);
}

// Axes in the order of what matters, as far as that is known.
function rank(keys) {
  const place = new Map(importance?.items.map((item, i) => [item.key, i]) ?? []);
  return [...keys].sort((a, b) => (place.get(a) ?? 99) - (place.get(b) ?? 99));
}

function drawLines(list, ranked, metric) {
  parallel(lines, list, ranked.slice(0, AXES), metric, { onpick: (ids) => setSelected(ids) });
}

async function drawBars(box, list, keys, metric) {
  const ask = JSON.stringify([metric, list.map((run) => run.id)]);
  if (ask !== asked) {
    asked = ask;
    fill(box, h("p", { class: "muted" }, "Working it out…"));
    try {
      importance = await api.importance(
        metric,
        list.map((run) => run.id),
      );
    } catch (error) {
      importance = null;
      asked = "";
      return fill(box, h("p", { class: "muted" }, error.message));
    }
    if (ask !== asked || !box.isConnected) return;
    return draw(); // now the axes have an order
  }
  if (!importance) return;
  const note = box.parentElement.querySelector("#importance-n");
  if (note) note.textContent = `n ${importance.n}`;
  const items = importance.items.filter((item) => keys.includes(item.key)).slice(0, 12);
  const most = Math.max(...items.map((item) => item.importance), 1e-9);
  fill(
    box,
    items.length === 0
      ? h("p", { class: "muted" }, `At least ${importance.fewest} runs with this figure are needed to say what matters.`)
      : [
          h(
            "p",
            { class: "muted" },
            "How much worse a random forest guesses without the setting, ± its spread over forests; ρ is Spearman's rank " +
              "correlation. Seeds and folds are left out.",
          ),
          h(
            "div",
            { class: "bars", role: "list" },
            items.map((item) =>
              h(
                "button",
                {
                  type: "button",
                  class: "barline",
                  role: "listitem",
                  title: `Show ${item.key} below`,
                  onclick: () => update({ key: item.key }),
                },
                h("span", { class: "label" }, item.key),
                h(
                  "span",
                  { class: "track" },
                  h("i", { style: { width: `${Math.max(1, (100 * item.importance) / most)}%` } }),
                ),
                h("span", { class: "number" }, `${item.importance.toFixed(2)} ± ${item.std.toFixed(2)}`),
                h(
                  "span",
                  { class: "number muted" },
                  item.correlation === null ? "" : `ρ ${item.correlation.toFixed(2).replace("-", "−")}`,
                ),
              ),
            ),
          ),
        ],
  );
}

async function drawScatter(box, list, key, metric) {
  const Plotly = await plotly();
  if (!box.isConnected) return;
  const values = list.map((run) => run.config[key]);
  const numeric = values.every((value) => typeof value === "number");
  const log = numeric && values.every((value) => value > 0) && Math.max(...values) / Math.min(...values) > 50;
  const x = numeric ? values : values.map((value) => plain(text(value) || "none"));
  const figures = list.map((run) => run.metrics[metric]);
  const wide = figures.every((value) => value > 0) && Math.max(...figures) / Math.min(...figures) > 100;
  await Plotly.react(
    box,
    [
      {
        type: "scatter",
        mode: "markers",
        x,
        y: figures,
        text: list.map((run) => plain(run.short)),
        customdata: list.map((run) => run.id),
        marker: {
          size: 9,
          opacity: list.length > MANY ? 0.45 : 0.85,
          color: list.length > MANY ? token("--accent") : list.map((run) => lineOf(run.id).color),
        },
        hovertemplate: "%{text}<br>%{y:.5~g} at %{x}<extra></extra>",
      },
    ],
    layout({
      xaxis: axis(
        plain(key),
        numeric ? (log ? { type: "log", dtick: 1, tickformat: "~g" } : {}) : { type: "category" },
      ),
      yaxis: axis(plain(metric), { type: wide ? "log" : "linear" }),
    }),
    CONFIG,
  );
  box.on?.("plotly_click", (event) => update({ run: event.points[0].customdata, tab: "run" }));
}
