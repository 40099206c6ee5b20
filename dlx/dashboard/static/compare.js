// Configurations and figures of the selected runs beside each other.

import { variable } from "./colors.js";
import { empty, fill, h } from "./dom.js";
import { number, text } from "./format.js";
import { selectedRuns, toggleSelected } from "./selection.js";
import { differing, monitorOf } from "./store.js";
import { state, update } from "./state.js";
import { segmented } from "./widgets.js";

const LIMIT = 30;
let body;

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

// Bold is best: by the run's own monitor, else a loss is better small and an accuracy large; else nobody can say.
function figures(name, list) {
  const judged = monitorOf(list);
  const gap = name.startsWith("gap/");
  const down = gap
    ? null
    : judged?.[0] === name
      ? judged[1] === "min"
      : /(loss|nll|error|perplexity|fid)$/.test(name)
        ? true
        : /(accuracy|top5|f1|r2)$/.test(name)
          ? false
          : null;
  const values = list.map((run) => run.metrics[name]).filter((value) => Number.isFinite(value));
  const best = down === null || list.length < 2 ? null : down ? Math.min(...values) : Math.max(...values);
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
