// Curves of the selected runs: one panel for each figure, the runs one over the other or as bands of groups.

import { api } from "./api.js";
import { drawControls, drawLegend } from "./chartbar.js";
import { debounce, empty, fill, h, toast } from "./dom.js";
import { CONFIG, axis, layout, plotly } from "./plot.js";
import { groupsOf } from "./rows.js";
import { selectedRuns, setSelected } from "./selection.js";
import { monitorOf } from "./store.js";
import { state } from "./state.js";
import { suggest } from "./toolbar.js";
import { bandTraces, bandsOf, runTraces } from "./traces.js";

const MANY = 100; // more curves than this say nothing: bands of groups instead
const GROUPS = 50;
const PANELS = 4;

const panels = new Map(); // metric -> {card, plot, note, counts: of each group the runs that have it}
let names = []; // figures that the selected runs have
let namesOf = "";
let controls, legend, board;
let turn = 0;

export const charts = { mount, update: changed, rows: grew, theme: () => draw() };

function mount(body) {
  panels.clear();
  controls = h("div", { class: "controls" });
  legend = h("div", { class: "legend", role: "list", "aria-label": "Shown" });
  board = h("div", { class: "board" });
  fill(body, controls, legend, board);
  names = [];
  namesOf = "";
  refresh();
}

function changed(keys) {
  const mine = ["sel", "metrics", "x", "smooth", "logx", "logy", "bands", "group", "runs"];
  if (mine.some((key) => keys.has(key))) (keys.has("sel") || keys.has("runs") ? refresh : draw)();
}

const pending = new Set();
const later = debounce(() => {
  const shown = selectedRuns().some((run) => pending.has(run.id));
  pending.clear();
  if (shown) refresh(true);
}, 250);

function grew(ids) {
  for (const id of ids) pending.add(id);
  later();
}

async function refresh(grown = false) {
  const list = selectedRuns();
  const mine = (turn += 1);
  const key = list.map((run) => run.id).join();
  if (list.length === 0) {
    namesOf = "";
    panels.clear();
    fill(controls);
    fill(legend);
    return fill(board, nothing());
  }
  if (key !== namesOf || grown) {
    if (panels.size === 0) fill(board, h("p", { class: "muted" }, "Reading the curves…"));
    try {
      const answer = await api.curves(list.map((run) => run.id));
      if (mine !== turn) return;
      names = answer.names;
      namesOf = key;
    } catch (error) {
      return toast(error.message, { kind: "error" });
    }
  }
  draw();
}

function nothing() {
  const { name, best, newest } = suggest(10);
  return empty(
    "No runs selected",
    "Click a run in the table, or tick several, to see their curves one over the other.",
    newest.length > 0 &&
      h("button", { type: "button", class: "tool", onclick: () => setSelected(newest) }, `Newest ${newest.length}`),
    best.length > 0 &&
      h(
        "button",
        { type: "button", class: "tool", onclick: () => setSelected(best) },
        `Best ${best.length} by ${name}`,
      ),
  );
}

export function defaultMetrics(list, all) {
  const wanted = [monitorOf(list)?.[0], "train/loss", "val/loss", "val/accuracy", "train/accuracy"];
  const chosen = [...new Set(wanted)].filter((name) => all.includes(name));
  return [...chosen, ...all.filter((name) => !chosen.includes(name) && !name.startsWith("time/"))].slice(0, PANELS);
}

function draw() {
  const list = selectedRuns();
  if (list.length === 0 || !controls.isConnected) return;
  if (names.length === 0) {
    panels.clear();
    fill(controls);
    fill(legend);
    return fill(
      board,
      empty(
        "No figures yet",
        "The selected runs have not written any figures so far. They are drawn as soon as they do.",
      ),
    );
  }
  const chosen = state().metrics.filter((name) => names.includes(name));
  const metrics = chosen.length > 0 ? chosen : defaultMetrics(list, names);
  const bands = state().bands || list.length > MANY;
  const every = bands ? groupsOf(list, state().group, GROUPS) : null;
  const groups = every?.slice(0, GROUPS);
  const many = list.length > MANY;
  drawControls(controls, { metrics, names, many, closed: draw });
  arrange(metrics);
  const explain = () => {
    const counts = groups?.map((_, i) => metrics.map((name) => panels.get(name)?.counts?.[i] ?? []).flat());
    drawLegend(legend, { list, groups, counts, every, many });
  };
  for (const panel of panels.values()) panel.counts = null;
  explain();
  for (const name of metrics)
    drawPanel(name, list, groups, explain).catch((error) => toast(error.message, { kind: "error" }));
}

function arrange(metrics) {
  for (const [name, panel] of panels) {
    if (metrics.includes(name)) continue;
    if (panel.drawn) window.Plotly?.purge(panel.plot);
    panels.delete(name);
  }
  const cards = metrics.map((name) => {
    if (!panels.has(name)) {
      const plot = h("div", { class: "plot", role: "img", "aria-label": `Curves of ${name}` });
      const note = h("small", { class: "muted" });
      panels.set(name, {
        plot,
        note,
        card: h("article", { class: "card", "data-metric": name }, h("header", {}, h("h3", {}, name), note), plot),
      });
    }
    return panels.get(name).card;
  });
  if (cards.length !== board.children.length || cards.some((card, i) => board.children[i] !== card)) fill(board, cards);
}

async function drawPanel(metric, list, groups, explain) {
  const panel = panels.get(metric);
  const mine = (panel.turn = (panel.turn ?? 0) + 1);
  const [Plotly, found] = await Promise.all([plotly(), groups ? bandsOf(metric, groups) : runTraces(metric, list)]);
  if (panel.turn !== mine || !panel.card.isConnected) return;
  const traces = groups ? bandTraces(found, groups) : found;
  if (groups) {
    panel.counts = found.map((band) => band.n);
    explain();
  }
  const { x, logx, logy } = state();
  const title = x === "relative" ? "seconds since start" : x === "time" ? "" : x;
  const has = new Set(traces.map((trace) => trace.meta)).size;
  const all = groups ? groups.length : list.length;
  panel.note.textContent = has < all ? `${has} of ${all} have it` : "";
  const place = `${x} ${logx} ${logy}`;
  await Plotly.react(
    panel.plot,
    traces,
    layout({
      xaxis: axis(title, { type: x === "time" ? "date" : logx ? "log" : "linear" }),
      yaxis: axis("", { type: logy ? "log" : "linear" }),
      uirevision: place, // zoom stays while points arrive
    }),
    CONFIG,
  );
  panel.drawn = true;
  panel.card.dataset.curves = String(has);
  panel.card.dataset.last = String(Math.max(...traces.map((trace) => Number(trace.x.at(-1)))));
}
