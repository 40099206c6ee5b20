// Parallel coordinates, drawn by hand: Plotly's compiles shaders at run time, which the policy forbids.

import { token } from "./colors.js";
import { fill, h, svg } from "./dom.js";
import { number, text } from "./format.js";

const TOP = 34;
const BOTTOM = 20;
const SIDE = 64;
const HEIGHT = 300;

// keys: one axis each, metric: the last axis and the colour. onpick(ids): a range was dragged on an axis.
export function parallel(box, list, keys, metric, { onpick }) {
  const width = Math.max(box.clientWidth || 600, (keys.length + 1) * 104);
  const axes = [
    ...keys.map((key) =>
      scale(
        key,
        list.map((run) => run.config[key]),
      ),
    ),
    scale(
      metric,
      list.map((run) => run.metrics[metric]),
      true,
    ),
  ];
  const xs = axes.map((_, i) => SIDE + (i * (width - 2 * SIDE)) / Math.max(1, axes.length - 1));
  const value = (run, i) => (i === keys.length ? run.metrics[metric] : run.config[keys[i]]);
  const brushes = new Map();
  const root = svg("svg", {
    viewBox: `0 0 ${width} ${HEIGHT}`,
    width,
    height: HEIGHT,
    role: "img",
    "aria-label": `${list.length} runs by ${keys.join(", ")} and ${metric}`,
  });
  const last = axes.at(-1);
  // The largest on top; many lines are fainter, so that where they are dense is seen.
  list = [...list].sort((a, b) => a.metrics[metric] - b.metrics[metric]);
  root.style.setProperty("--ink", String(Math.max(0.12, Math.min(0.85, 12 / Math.sqrt(list.length) / 2))));
  const paths = list.map((run) => {
    const points = axes.map((item, i) => [xs[i], item.at(value(run, i))]);
    const bend = points
      .map(([x, y], i) => {
        if (i === 0) return `M${x},${y}`;
        const [px, py] = points[i - 1];
        return `C${px + (x - px) * 0.4},${py} ${x - (x - px) * 0.4},${y} ${x},${y}`;
      })
      .join("");
    return svg(
      "path",
      { d: bend, class: "run", stroke: ramp(1 - (last.at(run.metrics[metric]) - TOP) / (HEIGHT - TOP - BOTTOM)) },
      svg("title", {}, `${run.short}: ${metric} ${number(run.metrics[metric])}`),
    );
  });
  root.append(...paths);
  const status = h("p", { class: "picks", role: "status" });

  const inside = (run) =>
    [...brushes].every(([i, [a, b]]) => {
      const y = axes[i].at(value(run, i));
      return y >= a - 1 && y <= b + 1;
    });
  const pick = () => {
    const ids = list.filter(inside).map((run) => run.id);
    paths.forEach((path, i) => path.classList.toggle("out", brushes.size > 0 && !inside(list[i])));
    fill(
      status,
      brushes.size > 0 && [
        `${ids.length} of ${list.length} runs `,
        h(
          "button",
          { type: "button", class: "link", disabled: ids.length === 0, onclick: () => onpick(ids) },
          "Select them",
        ),
        " ",
        h(
          "button",
          {
            type: "button",
            class: "link",
            onclick: () => {
              brushes.clear();
              root.querySelectorAll(".brush").forEach((item) => item.setAttribute("height", 0));
              pick();
            },
          },
          "Clear",
        ),
      ],
    );
  };

  axes.forEach((item, i) => {
    const label = item.name.length > 16 ? item.name.split(".").at(-1) : item.name;
    const brush = svg("rect", { class: "brush", x: xs[i] - 7, width: 14, y: 0, height: 0 });
    const hit = svg("rect", { class: "hit", x: xs[i] - 16, y: TOP - 6, width: 32, height: HEIGHT - TOP - BOTTOM + 12 });
    let from = null;
    const y = (event) => {
      const box = root.getBoundingClientRect();
      return Math.max(TOP - 4, Math.min(HEIGHT - BOTTOM + 4, ((event.clientY - box.top) * HEIGHT) / box.height));
    };
    hit.addEventListener("pointerdown", (event) => {
      from = y(event);
      hit.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    hit.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const range = [Math.min(from, y(event)), Math.max(from, y(event))];
      brushes.set(i, range);
      brush.setAttribute("y", range[0]);
      brush.setAttribute("height", range[1] - range[0]);
      pick();
    });
    hit.addEventListener("pointerup", (event) => {
      if (from !== null && Math.abs(y(event) - from) < 4) {
        brushes.delete(i);
        brush.setAttribute("height", 0);
        pick();
      }
      from = null;
    });
    root.append(
      svg("line", { class: "axis", x1: xs[i], x2: xs[i], y1: TOP, y2: HEIGHT - BOTTOM }),
      svg("text", { class: "title", x: xs[i], y: 14, "text-anchor": "middle" }, label, svg("title", {}, item.name)),
      ...item.ticks.map(([shown, at]) =>
        svg(
          "text",
          {
            class: "tick",
            x: xs[i] + (i === axes.length - 1 ? 8 : -8),
            y: at + 4,
            "text-anchor": i === axes.length - 1 ? "start" : "end",
          },
          shown,
        ),
      ),
      brush,
      hit,
    );
  });
  fill(box, h("div", { class: "wide" }, root), status);
}

// {name, at(value) -> y, ticks: [[text, y]...]}: numbers by size (logarithmic over a factor of 50), others evenly.
function scale(name, values, metric = false) {
  const span = HEIGHT - TOP - BOTTOM;
  const place = (share) => HEIGHT - BOTTOM - share * span;
  const different = [...new Set(values)];
  if (values.every((value) => typeof value === "number" && Number.isFinite(value))) {
    const low = Math.min(...values);
    const high = Math.max(...values);
    const log = low > 0 && high / low > 50;
    const of = log ? Math.log : (value) => value;
    const at = (value) => (high === low ? place(0.5) : place((of(value) - of(low)) / (of(high) - of(low))));
    const middle = log ? Math.sqrt(low * high) : (low + high) / 2;
    const shown = different.length <= 6 ? different : [low, middle, high];
    return {
      name,
      at,
      ticks: apart(
        shown.sort((a, b) => a - b),
        at,
      ).map((value) => [metric ? number(value) : String(Number(value.toPrecision(4))), at(value)]),
    };
  }
  const labels = different
    .map((value) => text(value) || "none")
    .sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const at = (value) =>
    labels.length === 1 ? place(0.5) : place(labels.indexOf(text(value) || "none") / (labels.length - 1));
  const shown = labels.length <= 12 ? labels : [labels[0], labels.at(-1)];
  return { name, at, ticks: shown.map((label) => [label.length > 12 ? `${label.slice(0, 11)}…` : label, at(label)]) };
}

// Those labels that do not run into the one below.
function apart(values, at) {
  const kept = [];
  for (const value of values) if (kept.length === 0 || at(kept.at(-1)) - at(value) >= 14) kept.push(value);
  return kept;
}

// From pale to strong in one hue, readable without telling colours apart.
function ramp(share) {
  const mix = token("--ramp-low").split(" ").map(Number);
  const high = token("--ramp-high").split(" ").map(Number);
  const part = Number.isFinite(share) ? Math.max(0, Math.min(1, share)) : 0;
  return `rgb(${mix.map((value, i) => Math.round(value + part * (high[i] - value))).join(" ")})`;
}
