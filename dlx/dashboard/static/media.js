// Pictures that runs wrote, by step, side by side across the selected runs.

import { api } from "./api.js";
import { variable } from "./colors.js";
import { $, debounce, empty, fill, h, icon, toast } from "./dom.js";
import { selectedRuns } from "./selection.js";
import { runs } from "./store.js";
import { state, update } from "./state.js";
import { select } from "./widgets.js";

const LIMIT = 24; // runs side by side
let body, controls, gallery;
let items = [];
let turn = 0;
const later = debounce(() => load(), 1500);

export const media = {
  mount(target) {
    body = target;
    items = [];
    load();
  },
  update(keys) {
    if (keys.has("sel")) load();
    else if (keys.has("media") || keys.has("step")) draw();
  },
  rows(ids) {
    if (ids.some((id) => state().sel.includes(id))) later();
  },
};

async function load() {
  const list = selectedRuns().slice(0, LIMIT);
  const mine = (turn += 1);
  if (list.length === 0)
    return fill(body, empty("No runs selected", "Select runs in the table to see their pictures side by side."));
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
        "No pictures",
        "The selected runs wrote none so far: predictions, samples and confusion matrices appear here.",
      ),
    );
  controls = h("div", { class: "controls" });
  gallery = h("div", { class: "gallery" });
  fill(body, controls, gallery);
  draw();
}

function draw() {
  if (items.length === 0 || !gallery?.isConnected) return;
  const names = [...new Set(items.map((item) => item.name))].sort();
  const name = names.includes(state().media) ? state().media : names[0];
  const here = items.filter((item) => item.name === name);
  const steps = [...new Set(here.map((item) => item.step ?? 0))].sort((a, b) => a - b);
  const at =
    state().step < 0
      ? steps.length - 1
      : Math.max(
          0,
          steps.findLastIndex((step) => step <= state().step),
        );
  drawControls(names, name, steps, at);
  const list = selectedRuns();
  fill(
    gallery,
    list.slice(0, LIMIT).map((run) => {
      const own = here
        .filter((item) => item.run === run.id && (item.step ?? 0) <= steps[at])
        .sort((a, b) => (a.step ?? 0) - (b.step ?? 0))
        .at(-1);
      return h(
        "figure",
        { class: "card" },
        h(
          "figcaption",
          {},
          h(
            "span",
            { class: "key" },
            h("i", { style: { background: variable(run.id) } }),
            h("span", { title: run.id }, run.short),
          ),
          own && own.step !== null && h("small", { class: "muted" }, `step ${own.step}`),
        ),
        own
          ? h(
              "button",
              {
                type: "button",
                class: "picture",
                "aria-label": `Enlarge ${name} of ${run.short}`,
                onclick: () => zoom(own),
              },
              h("img", { src: own.url, alt: `${name} of ${run.short}`, loading: "lazy", decoding: "async" }),
            )
          : h("p", { class: "muted none" }, `No ${name} at this step`),
      );
    }),
    list.length > LIMIT && h("p", { class: "muted" }, `The first ${LIMIT} of ${list.length} selected runs.`),
  );
}

function drawControls(names, name, steps, at) {
  const slider = controls.querySelector("input");
  const label = `step ${steps[at]}`;
  if (slider && controls.dataset.name === name && Number(slider.max) === steps.length - 1) {
    if (document.activeElement !== slider) slider.value = String(at);
    controls.querySelector("output").textContent = label;
    return;
  }
  controls.dataset.name = name;
  fill(
    controls,
    select("Picture", names, name, (value) => update({ media: value })),
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
        h("output", {}, label),
      ),
  );
}

export function zoom(item) {
  const box = $("zoom");
  const run = runs.get(item.run);
  fill(
    box,
    h(
      "header",
      {},
      h("b", {}, `${item.name}${item.step === null ? "" : ` · step ${item.step}`}`),
      h("span", { class: "muted" }, run?.short ?? item.run),
      h("button", { type: "button", class: "icon", "aria-label": "Close", onclick: () => box.close() }, icon("close")),
    ),
    h("img", { src: item.url, alt: `${item.name} of ${run?.short ?? item.run}` }),
  );
  box.showModal();
}

$("zoom").addEventListener("click", (event) => event.target === $("zoom") && $("zoom").close());
