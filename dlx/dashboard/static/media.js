// Media that runs wrote, by step, side by side across the selected runs.

import { api } from "./api.js";
import { variable } from "./colors.js";
import { $, debounce, empty, fill, h, icon, toast } from "./dom.js";
import { frame, word } from "./medium.js";
import { selectedRuns } from "./selection.js";
import { runs } from "./store.js";
import { state, update } from "./state.js";
import { select } from "./widgets.js";

const LIMIT = 24; // runs side by side
let body, controls, gallery;
let items = [];
let turn = 0;
let asked = ""; // the runs whose media were asked for
let shown = ""; // the label of what the cards show
const cards = new Map(); // run -> {element, caption, place}
const later = debounce(() => load(), 1500);

export const media = {
  mount(target) {
    body = target;
    items = [];
    load();
  },
  update(keys) {
    if (idsOf(selectedRuns()) !== asked) load(); // selected now, or selected before and only now there
    else if (keys.has("media") || keys.has("step")) draw();
  },
  rows(ids) {
    if (ids.some((id) => state().sel.includes(id))) later();
  },
  theme() {
    for (const { place } of cards.values()) place.theme();
  },
};

const idsOf = (list) => list.map((run) => run.id).join("\n");

async function load() {
  asked = idsOf(selectedRuns());
  const list = selectedRuns().slice(0, LIMIT);
  const mine = (turn += 1);
  if (list.length === 0)
    return fill(body, empty("No runs selected", "Select runs in the table to see their media side by side."));
  try {
    const found = (await api.media(list.map((run) => run.id))).media;
    if (mine !== turn || !body.isConnected) return;
    items = found;
  } catch (error) {
    return toast(error.message, { kind: "error" });
  }
  if (items.length === 0)
    return fill(
      body,
      empty(
        "No media",
        "The selected runs wrote none so far: predictions, samples, texts, curves and tables appear here.",
      ),
    );
  if (!gallery?.isConnected) {
    clear();
    controls = h("div", { class: "controls" });
    gallery = h("div", { class: "gallery" });
    fill(body, controls, gallery);
  }
  draw();
}

// What there is to choose from: label -> items. A name of several kinds has one label for each.
function byLabel() {
  const kinds = new Map();
  for (const { name, kind } of items) kinds.set(name, (kinds.get(name) ?? new Set()).add(kind));
  const labelOf = ({ name, kind }) => (kinds.get(name).size > 1 ? `${name} (${word(kind)})` : name);
  const labels = [...new Set(items.map(labelOf))].sort();
  return new Map(labels.map((label) => [label, items.filter((item) => labelOf(item) === label)]));
}

function clear() {
  for (const { place } of cards.values()) place.clear();
  cards.clear();
}

const stepText = (step) => (step === null ? "no step" : `step ${step}`);

function draw() {
  if (items.length === 0 || !gallery?.isConnected) return;
  const found = byLabel();
  const labels = [...found.keys()];
  const wanted = state().media;
  const label =
    labels.find((one) => one === wanted) ?? labels.find((one) => one.startsWith(`${wanted} (`)) ?? labels[0];
  const here = found.get(label);
  const steps = [...new Set(here.map((item) => item.step ?? 0))].sort((a, b) => a - b);
  const at =
    state().step < 0
      ? steps.length - 1
      : Math.max(
          0,
          steps.findLastIndex((step) => step <= state().step),
        );
  drawControls(labels, label, steps, at);
  if (label !== shown) clear();
  shown = label;
  gallery.dataset.kind = here[0].kind;
  const list = selectedRuns();
  const now = list.slice(0, LIMIT);
  for (const [id, { place }] of cards) {
    if (now.some((run) => run.id === id)) continue;
    place.clear();
    cards.delete(id);
  }
  const elements = now.map((run) => {
    const own = here
      .filter((item) => item.run === run.id && (item.step ?? 0) <= steps[at])
      .sort((a, b) => (a.step ?? 0) - (b.step ?? 0))
      .at(-1);
    return drawCard(run, label, own ?? null);
  });
  const more = `The first ${LIMIT} of ${list.length} selected runs.`;
  arrange(list.length > LIMIT ? [...elements, h("p", { class: "muted" }, more)] : elements);
}

// Cards that are there already stay where they are, with what is scrolled or zoomed in them.
function arrange(elements) {
  const there = [...gallery.children];
  if (there.length !== elements.length || elements.some((element, i) => element !== there[i])) fill(gallery, elements);
}

function drawCard(run, label, own) {
  if (!cards.has(run.id)) {
    const caption = h("figcaption", {});
    const place = frame({ onclick: zoom });
    cards.set(run.id, { caption, place, element: h("figure", { class: "card" }, caption, place.element) });
  }
  const { element, caption, place } = cards.get(run.id);
  const isPicture = own && ["image", "animation"].includes(own.kind);
  fill(
    caption,
    h(
      "span",
      { class: "key" },
      h("i", { style: { background: variable(run.id) } }),
      h("span", { title: run.id }, run.short),
    ),
    own && own.step !== null && h("small", { class: "muted" }, stepText(own.step)),
    own &&
      !isPicture &&
      h(
        "button",
        {
          type: "button",
          class: "icon small",
          title: "Enlarge",
          "aria-label": `Enlarge ${label} of ${run.short}`,
          onclick: () => zoom(own),
        },
        icon("expand"),
      ),
  );
  place.show(own, `${label} of ${run.short}`, `No ${label} at this step`);
  return element;
}

function drawControls(labels, label, steps, at) {
  const slider = controls.querySelector("input");
  const key = JSON.stringify([labels, label, steps]);
  if (slider && controls.dataset.key === key) {
    if (document.activeElement !== slider) slider.value = String(at);
    controls.querySelector("output").textContent = stepText(steps[at]);
    return;
  }
  controls.dataset.key = key;
  fill(
    controls,
    select("Show", labels, label, (value) => update({ media: value })),
    steps.length > 1 &&
      h(
        "label",
        { class: "field grow" },
        h("span", {}, "Step"),
        h("input", {
          type: "range",
          min: "0",
          max: String(steps.length - 1),
          step: "1",
          value: String(at),
          "aria-label": "Step",
          oninput: (event) => {
            const index = Number(event.target.value);
            update({ step: index === steps.length - 1 ? -1 : steps[index] }, { replace: true });
          },
        }),
        h("output", {}, stepText(steps[at])),
      ),
  );
}

let large = null;

export function zoom(item) {
  const box = $("zoom");
  const run = runs.get(item.run);
  large = frame();
  box.dataset.kind = item.kind;
  fill(
    box,
    h(
      "header",
      {},
      h("b", {}, `${item.name}${item.step === null ? "" : ` · step ${item.step}`}`),
      h("span", { class: "muted" }, run?.short ?? item.run),
      h("button", { type: "button", class: "icon", "aria-label": "Close", onclick: () => box.close() }, icon("close")),
    ),
    large.element,
  );
  box.showModal();
  large.show(item, `${item.name} of ${run?.short ?? item.run}`);
}

$("zoom").addEventListener("click", (event) => event.target === $("zoom") && $("zoom").close());
$("zoom").addEventListener("close", () => {
  large?.clear();
  fill($("zoom"));
});
