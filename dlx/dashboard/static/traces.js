// Plotly's traces of one figure: a curve for each run, or a band for each group. What was fetched is kept.

import { api } from "./api.js";
import { groupLine, lineOf } from "./colors.js";
import { fade, plain } from "./plot.js";
import { state } from "./state.js";

const DASHED = 16; // more curves than this are a thicket when they are dashed
// What was asked for, as promises: an answer that was under way when its run grew is no longer in here when it comes.
const cache = new Map(); // "metric x smooth" -> Map of id -> series, null for a run without the metric
const bandCache = new Map();

// These runs grew: their series are fetched again when they are drawn, the others' are not. Without ids: any may have.
export function forget(ids = null) {
  if (ids === null) cache.clear();
  for (const series of cache.values()) for (const id of ids) series.delete(id);
  bandCache.clear();
}

function keep(map, key, asked) {
  map.set(key, asked);
  asked.catch(() => map.get(key) === asked && map.delete(key));
}

// Plotly counts time in milliseconds.
const shift = (x) => (state().x === "time" ? Array.from(x, (value) => value * 1000) : x);

export async function runTraces(metric, list) {
  const { x, smooth } = state();
  const key = `${metric} ${x} ${smooth}`;
  if (!cache.has(key) && cache.size > 40) cache.clear();
  const known = cache.get(key) ?? cache.set(key, new Map()).get(key);
  const missing = list.map((run) => run.id).filter((id) => !known.has(id));
  if (missing.length > 0) {
    const asked = api.series(metric, missing, { x, smooth });
    for (const id of missing)
      keep(
        known,
        id,
        asked.then((found) => found.get(id) ?? null),
      );
  }
  const found = await Promise.all(list.map((run) => known.get(run.id)));
  const faint = [];
  const traces = [];
  for (const [i, run] of list.entries()) {
    const series = found[i];
    if (!series) continue;
    const own = lineOf(run.id);
    const color = own.color;
    const dash = list.length > DASHED ? "solid" : own.dash;
    const base = {
      type: "scatter",
      x: shift(series.x),
      name: plain(run.short),
      meta: run.id,
      mode: series.x.length <= 12 ? "lines+markers" : "lines",
      marker: { size: 4, color },
    };
    const hover = "%{y:.5~g} at %{x}<extra>%{fullData.name}</extra>";
    if (series.smooth) {
      faint.push({
        ...base,
        y: series.y,
        mode: "lines",
        hoverinfo: "skip",
        line: { width: 1, color: fade(color, 0.28) },
      });
      traces.push({ ...base, y: series.smooth, hovertemplate: hover, line: { width: 1.8, color, dash } });
    } else traces.push({ ...base, y: series.y, hovertemplate: hover, line: { width: 1.6, color, dash } });
  }
  return [...faint, ...traces];
}

// Of each group {x, mean, std, count, n}: n of its runs have the figure.
export function bandsOf(metric, groups) {
  const key = JSON.stringify([metric, state().x, groups.map((group) => group.ids)]);
  if (!bandCache.has(key)) {
    if (bandCache.size > 20) bandCache.clear();
    const asked = api.bands(
      metric,
      state().x,
      groups.map((group) => group.ids),
    );
    keep(
      bandCache,
      key,
      asked.then((answer) => answer.bands),
    );
  }
  return bandCache.get(key);
}

export function bandTraces(bands, groups) {
  const fills = [];
  const lines = [];
  bands.forEach((band, i) => {
    if (band.x.length === 0) return;
    const { color, dash } = groupLine(i);
    const x = shift(band.x);
    const side = (sign) => band.mean.map((value, j) => (value === null ? null : value + sign * (band.std[j] ?? 0)));
    const ok = band.mean.flatMap((value, j) => (value === null ? [] : [j]));
    const low = side(-1);
    const high = side(1);
    fills.push({
      type: "scatter",
      mode: "lines",
      meta: i,
      hoverinfo: "skip",
      fill: "toself",
      fillcolor: fade(color, Math.max(0.05, Math.min(0.16, 0.6 / groups.length))),
      line: { width: 0 },
      x: [...ok.map((j) => x[j]), ...ok.toReversed().map((j) => x[j])],
      y: [...ok.map((j) => high[j]), ...ok.toReversed().map((j) => low[j])],
    });
    lines.push({
      type: "scatter",
      mode: "lines",
      meta: i,
      x,
      y: band.mean,
      name: plain(groups[i].label),
      line: { width: 2, color, dash },
      customdata: band.mean.map((_, j) => [band.std[j], band.count[j]]),
      hovertemplate: "%{y:.5~g} ± %{customdata[0]:.3~g} (n=%{customdata[1]}) at %{x}<extra>%{fullData.name}</extra>",
    });
  });
  return [...fills, ...lines];
}
