// Over the curves: what is drawn and how, and which line is which.

import { groupLine, lineOf, stroke } from "./colors.js";
import { debounce, fill, h } from "./dom.js";
import { state, update } from "./state.js";
import { checklist, menu, segmented, select, toggle } from "./widgets.js";

const LIMIT = 24; // names in the legend
const X = [
  ["step", "Step"],
  ["epoch", "Epoch"],
  ["relative", "Relative"],
  ["time", "Wall time"],
];
let controlled = "";

// metrics: those drawn, names: those there are, many: more runs than can be drawn one by one. closed(): the list of
// figures was closed, so that its button may be drawn again.
export function drawControls(controls, { metrics, names, many, closed }) {
  const { x, smooth, logx, logy, bands } = state();
  const key = JSON.stringify([metrics, names, x, logx, logy, bands, many]);
  const slider = controls.querySelector("input[type=range]");
  if (slider && document.activeElement !== slider) slider.value = smooth;
  if (key === controlled && controls.childElementCount > 0) return;
  controlled = key;
  const shown = h("output", {}, smooth.toFixed(2));
  const set = debounce((value) => update({ smooth: value }, { replace: true }), 60);
  const choose = menu(`Figures · ${metrics.length}`, "chart", () => [
    h(
      "header",
      {},
      h("b", {}, "Figures to draw"),
      h("button", { type: "button", class: "link", onclick: () => update({ metrics: [] }) }, "Default"),
    ),
    checklist(
      names.map((name) => ({ name, label: name, checked: metrics.includes(name) })),
      () => {
        const now = [...controls.querySelectorAll(".options input:checked")].map((item) => item.name);
        // The order in which they were chosen; those chosen since this list was made come last.
        update({ metrics: [...new Set([...metrics.filter((item) => now.includes(item)), ...now])] });
      },
    ),
  ]);
  const open = controls.querySelector(".sheet")?.matches(":popover-open");
  if (open) return; // The open list keeps its place; its button is drawn again when it closes.
  fill(
    controls,
    choose,
    segmented(
      "Runs or groups",
      [
        ["runs", "Runs"],
        ["bands", "Mean ± std"],
      ],
      bands || many ? "bands" : "runs",
      (value) => update({ bands: value === "bands" }),
    ),
    select("Horizontal axis", X, x, (value) => update({ x: value }), { quiet: true }),
    h(
      "label",
      {
        class: "field",
        title: bands ? "Bands are not smoothed" : "Exponential smoothing; the raw curve is drawn faint",
      },
      h("span", {}, "Smooth"),
      h("input", {
        type: "range",
        min: "0",
        max: "0.99",
        step: "0.01",
        value: String(smooth),
        "aria-label": "Smoothing",
        disabled: bands || many,
        oninput: (event) => {
          shown.textContent = Number(event.target.value).toFixed(2);
          set(Number(event.target.value));
        },
      }),
      shown,
    ),
    h(
      "span",
      { class: "pair" },
      toggle("log x", logx, (on) => update({ logx: on })),
      toggle("log y", logy, (on) => update({ logy: on })),
    ),
  );
  controls.querySelector(".sheet").addEventListener("toggle", (event) => {
    if (event.newState === "closed") {
      controlled = "";
      closed();
    }
  });
}

// list: the runs, or, drawn as groups: the groups shown of all that there are. counts: of each group how many of its
// runs have each figure, as far as that is known.
export function drawLegend(legend, { list, groups, counts, every, many }) {
  const items = groups
    ? groups.map((group, i) => [
        groupLine(i),
        group.label,
        range(counts[i]),
        group.ids.length > 1 ? `${group.ids.length} runs` : "one run",
      ])
    : list.map((run) => [lineOf(run.id), run.short, "", run.id]);
  fill(
    legend,
    items
      .slice(0, LIMIT)
      .map(([line, label, note, title]) =>
        h(
          "span",
          { role: "listitem", class: "key", title },
          h("i", { style: stroke(line) }),
          h("span", {}, label),
          note && h("small", {}, note),
        ),
      ),
    items.length > LIMIT && h("span", { class: "muted" }, `and ${items.length - LIMIT} more`),
    many &&
      !state().bands &&
      h("span", { class: "muted" }, `${list.length} runs are too many to tell apart: drawn as groups.`),
    every?.length > groups?.length &&
      h(
        "span",
        { class: "muted" },
        `The first ${groups.length} of ${every.length} groups: group the table by one setting to have fewer.`,
      ),
  );
}

function range(counts) {
  if (counts.length === 0) return "";
  const [low, high] = [Math.min(...counts), Math.max(...counts)];
  return low === high ? `n ${low}` : `n ${low} to ${high}`;
}
