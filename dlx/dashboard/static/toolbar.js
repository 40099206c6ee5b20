// The bar over the table: groups, columns, download, and what is done with the selected runs. Also the filter's box.

import { api } from "./api.js";
import { automatic, everyColumn, mainMetrics } from "./columns.js";
import { $, debounce, fill, h, icon, toast } from "./dom.js";
import { csv, number, valuesOf } from "./format.js";
import { selected, setSelected, trash } from "./selection.js";
import { info, known, monitorOf, runs } from "./store.js";
import { state, update } from "./state.js";
import { currentColumns, redraw, setFound, shownRunIds, shownSelected } from "./table.js";
import { checklist, menu } from "./widgets.js";

const count = h("span", { class: "total-runs", role: "status" });
const picked = h("span", { class: "picked" });

export function buildBar() {
  fill(
    $("bar"),
    count,
    picked,
    h("span", { class: "space" }),
    menu("Group", "layers", groupMenu),
    menu("Columns", "columns", columnMenu),
    h(
      "button",
      { type: "button", class: "tool", title: "Download the table as CSV", onclick: download },
      icon("download"),
      h("span", {}, "CSV"),
    ),
  );
}

export function drawBar() {
  const shown = shownRunIds().length;
  const all = number(known().count);
  count.textContent =
    shown === known().count ? `${all} ${shown === 1 ? "run" : "runs"}` : `${number(shown)} of ${all} runs`;
  const ids = selected();
  const gone = shownSelected();
  const hidden = ids.length - gone.length;
  const group = state().group.length;
  const button = $("bar").querySelector(".menu .tool");
  button.lastElementChild.textContent = group > 0 ? `Group · ${group}` : "Group";
  button.classList.toggle("on", group > 0);
  fill(
    picked,
    ids.length > 0 && [
      h("b", {}, hidden > 0 ? `${ids.length} selected, ${hidden} hidden` : `${ids.length} selected`),
      h("button", { type: "button", class: "link", onclick: () => setSelected([]) }, "Clear"),
      h(
        "button",
        {
          type: "button",
          class: "link danger",
          title: hidden > 0 ? "Move what is shown to the trash (Delete)" : "Move to the trash (Delete)",
          disabled: gone.length === 0,
          onclick: () => trash(gone),
        },
        icon("trash"),
        hidden > 0 ? `Delete ${gone.length}` : "Delete",
      ),
    ],
  );
}

function groupMenu(again) {
  const chosen = state().group;
  const keys = [...chosen, ...known().keys.filter((key) => !chosen.includes(key))];
  const options = keys.map((key) => ({
    name: key,
    label: key,
    checked: chosen.includes(key),
    hint: chosen.includes(key) ? `${chosen.indexOf(key) + 1}` : valuesOf(known().values.get(key)?.values.size ?? 0),
  }));
  return [
    h(
      "header",
      {},
      h("b", {}, "Group runs by"),
      chosen.length > 0 &&
        h(
          "button",
          {
            type: "button",
            class: "link",
            onclick: () => {
              update({ group: [] });
              again();
            },
          },
          "None",
        ),
    ),
    options.length === 0
      ? h("p", { class: "muted" }, "The runs' configurations do not differ.")
      : checklist(options, (key, on) => {
          update({ group: on ? [...state().group, key] : state().group.filter((item) => item !== key) });
          again();
        }),
  ];
}

function columnMenu(again) {
  const chosen = state().cols.length > 0 ? state().cols : automatic();
  const options = everyColumn().map((item) => ({
    name: item.id,
    label: item.title,
    checked: chosen.includes(item.id),
    hint: item.kind === "fixed" ? "" : item.kind,
  }));
  options.sort((a, b) => Number(b.checked) - Number(a.checked));
  return [
    h(
      "header",
      {},
      h("b", {}, "Columns"),
      h(
        "button",
        {
          type: "button",
          class: "link",
          disabled: state().cols.length === 0,
          onclick: () => {
            update({ cols: [] });
            again();
          },
        },
        "What differs",
      ),
    ),
    checklist(options, (id, on) => update({ cols: on ? [...now(), id] : now().filter((item) => item !== id) })),
  ];
}

const now = () => (state().cols.length > 0 ? state().cols : automatic());

function download() {
  const columns = currentColumns();
  const list = shownRunIds().map((id) => runs.get(id));
  const lines = list.map((run) => ["", ...columns.slice(1).map((item) => item.value(run))].with(0, run.id));
  const blob = new Blob([csv([["run", ...columns.slice(1).map((item) => item.title)], ...lines])], {
    type: "text/csv",
  });
  const link = h("a", { href: URL.createObjectURL(blob), download: "runs.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  toast(`${list.length} runs in runs.csv`);
}

// The best by what the runs were judged by, else the newest.
export function suggest(limit) {
  const ids = shownRunIds();
  const judged = monitorOf(ids.map((id) => runs.get(id)));
  const name = judged?.[0] ?? mainMetrics(1)[0];
  const sign = judged?.[1] === "max" ? -1 : 1;
  const value = (id) => runs.get(id).metrics[name];
  const best = ids
    .filter((id) => Number.isFinite(value(id)))
    .sort((a, b) => sign * (value(a) - value(b)))
    .slice(0, limit);
  const newest = ids.toSorted((a, b) => runs.get(b).created - runs.get(a).created).slice(0, limit);
  return { name, best: judged ? best : [], newest };
}

// --- the filter

export const isExpression = (q) => /[<>=!~]|\b(and|or|not|in)\b/.test(q);

let asked = 0;

export async function applyFilter() {
  const q = state().q.trim();
  const note = $("filter-note");
  const mine = (asked += 1);
  $("filter").removeAttribute("aria-invalid");
  note.textContent = "";
  if (q === "" || !isExpression(q)) {
    setFound(null);
    return finish();
  }
  try {
    const { ids } = await api.filter(q);
    if (mine !== asked) return;
    setFound(new Set(ids));
  } catch (error) {
    if (mine !== asked) return;
    // While it is being typed an expression is often wrong: the rows stay as they were.
    $("filter").setAttribute("aria-invalid", "true");
    note.textContent = error.message;
    return;
  }
  finish();
}

function finish() {
  redraw();
  drawBar();
}

export function buildFilter() {
  const box = $("filter");
  fill($("search-icon"), icon("search"));
  const typed = debounce(() => update({ q: box.value }, { replace: true }), 120);
  box.addEventListener("input", typed);
  box.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      if (box.value === "") $("grid").focus();
      box.value = "";
      update({ q: "" }, { replace: true });
      event.preventDefault();
    } else if (event.key === "Enter" || event.key === "ArrowDown") {
      $("grid").focus();
      event.preventDefault();
    }
  });
}

export function drawFilter() {
  if ($("filter").value.trim() !== state().q.trim()) $("filter").value = state().q;
  $("root").textContent = info.root;
  $("root").title = info.root;
}
