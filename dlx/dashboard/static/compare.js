// Configurations and figures of the selected runs beside each other.

import { api } from "./api.js";
import { variable } from "./colors.js";
import { empty, fill, h, toast } from "./dom.js";
import { number, text } from "./format.js";
import { selectedRuns, toggleSelected } from "./selection.js";
import { differing } from "./store.js";
import { state, update } from "./state.js";
import { segmented } from "./widgets.js";

const LIMIT = 30;
let body;
let goals = {}; // of figures: "min", "max", or null where nobody can say
let asked = ""; // what they were asked for

export const compare = {
  mount(target) {
    body = target;
    draw();
  },
  update(keys) {
    if (["sel", "all", "runs"].some((key) => keys.has(key))) draw();
  },
};

function draw() {
  const every = selectedRuns();
  if (every.length < 1)
    return fill(
      body,
      empty("No runs selected", "Select two or more runs in the table to see where their configurations differ."),
    );
  const list = every.slice(0, LIMIT);
  const all = state().all || list.length === 1;
  const keys = all ? [...new Set(list.flatMap((run) => Object.keys(run.config)))].sort() : differing(list);
  const differs = new Set(differing(list));
  const metrics = [...new Set(list.flatMap((run) => Object.keys(run.metrics)))].sort();
  learn(list, metrics);
  fill(
    body,
    h(
      "div",
      { class: "controls" },
      segmented(
        "Which settings",
        [
          ["differ", "What differs"],
          ["all", "All settings"],
        ],
        all ? "all" : "differ",
        (value) => update({ all: value === "all" }),
      ),
      every.length > LIMIT && h("span", { class: "muted" }, `The first ${LIMIT} of ${every.length} selected runs.`),
    ),
    h(
      "div",
      { class: "wide" },
      h(
        "table",
        { class: "diff", id: "diff" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "col" }, "Setting"),
            list.map((run) =>
              h(
                "th",
                { scope: "col", title: run.id },
                h(
                  "span",
                  { class: "key" },
                  h("i", { style: { background: variable(run.id) } }),
                  h(
                    "button",
                    {
                      type: "button",
                      class: "link plain",
                      title: `${run.id}: show details`,
                      onclick: () => update({ run: run.id, tab: "run" }),
                    },
                    run.short,
                  ),
                ),
                list.length > 1 &&
                  h(
                    "button",
                    {
                      type: "button",
                      class: "icon small",
                      "aria-label": `Leave out ${run.short}`,
                      title: "Leave out",
                      onclick: () => toggleSelected([run.id]),
                    },
                    "×",
                  ),
              ),
            ),
          ),
        ),
        h(
          "tbody",
          {},
          keys.length === 0 &&
            h(
              "tr",
              {},
              h("td", { colSpan: list.length + 1, class: "muted" }, "These runs have the same configuration."),
            ),
          keys.map((key) => settings(key, list, differs.has(key))),
        ),
        h(
          "tbody",
          {},
          h("tr", { class: "section" }, h("th", { scope: "colgroup", colSpan: list.length + 1 }, "Figures")),
          metrics.map((name) => figures(name, list)),
        ),
      ),
    ),
  );
}

// Which way each figure is better follows from the runs' own monitors: the server says it.
async function learn(list, metrics) {
  const key = JSON.stringify([list.map((run) => [run.id, run.monitor]), metrics]);
  if (key === asked) return;
  asked = key;
  try {
    // One run of each kind, however many there are.
    const kinds = new Map(list.map((run) => [JSON.stringify([run.monitor, Object.keys(run.metrics)]), run.id]));
    const answer = await api.goals([...kinds.values()]);
    if (key !== asked) return;
    goals = answer.goals;
    if (body.querySelector("#diff")) draw();
  } catch (error) {
    asked = "";
    toast(error.message, { kind: "error" });
  }
}

function settings(key, list, differs) {
  return h(
    "tr",
    { class: differs && list.length > 1 ? "differs" : "" },
    h("th", { scope: "row" }, key),
    list.map((run) =>
      h(
        "td",
        {},
        key in run.config
          ? text(run.config[key]) || h("span", { class: "muted" }, "none")
          : h("span", { class: "muted" }, "not set"),
      ),
    ),
  );
}

// Bold is best, where there is something to choose and it is known which way is better.
function figures(name, list) {
  const values = list.map((run) => run.metrics[name]).filter((value) => Number.isFinite(value));
  const best = new Set(values).size < 2 || !goals[name] ? null : Math[goals[name]](...values);
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, name),
    list.map((run) => {
      const value = run.metrics[name];
      return h(
        "td",
        { class: "number", title: value === undefined ? "" : String(value) },
        value === undefined ? "" : value === best ? h("b", { class: "best" }, number(value)) : number(value),
      );
    }),
  );
}
