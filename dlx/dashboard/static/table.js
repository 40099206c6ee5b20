// The runs table. Only the rows in sight are in the page, so that a thousand runs scroll as ten do.

import { drawRow } from "./cells.js";
import { shownColumns, width } from "./columns.js";
import { $, empty, fill, h } from "./dom.js";
import { buildRows } from "./rows.js";
import { selected, setSelected, toggleSelected, trash } from "./selection.js";
import { info, runs } from "./store.js";
import { state, update } from "./state.js";

const grid = $("grid");
const scroll = $("scroll");
const head = h("thead");
const body = h("tbody");
const columnsOf = h("colgroup");
let rows = [];
let columns = [];
let cursor = null; // id of the row that the keyboard is on
let anchor = null; // where a range began
let drawn = "";
let found = null; // ids that an expression matched

export const currentRows = () => rows;
export const currentColumns = () => columns;
export const shownRunIds = () => [...new Set(rows.flatMap((row) => row.ids))];

// Of the selected runs those that the filter leaves: what it hides is not deleted.
export function shownSelected() {
  const shown = new Set(shownRunIds());
  return selected().filter((id) => shown.has(id));
}

const height = () => (matchMedia("(pointer: coarse)").matches ? 44 : 32);

export function setFound(ids) {
  found = ids;
}

export function redraw() {
  columns = shownColumns(state().cols);
  rows = buildRows(state(), found);
  if (!rows.some((row) => row.id === cursor)) cursor = rows[0]?.id ?? null;
  drawHead();
  drawn = "";
  drawRows();
  drawEmpty();
}

function drawHead() {
  const grouped = rows.some((row) => row.kind === "group");
  const by = state().sort.replace(/^-/, "");
  const down = state().sort.startsWith("-");
  fill(
    columnsOf,
    columns.map((item) => h("col", { style: { width: `${width(item, grouped)}px` } })),
  );
  grid.style.width = `${columns.reduce((sum, item) => sum + width(item, grouped), 0)}px`;
  const ids = shownRunIds();
  const all = ids.length > 0 && ids.every((id) => state().sel.includes(id));
  fill(
    head,
    h(
      "tr",
      { role: "row", "aria-rowindex": "1" },
      columns.map((item, i) =>
        h(
          "th",
          {
            role: "columnheader",
            scope: "col",
            class: item.numeric ? "number" : i === 0 ? "name" : "",
            "aria-sort": item.id === by ? (down ? "descending" : "ascending") : "none",
          },
          i === 0 &&
            h("input", {
              type: "checkbox",
              tabIndex: -1,
              checked: all,
              "aria-label": "Select all runs shown",
              onchange: () => setSelected(all ? [] : ids),
            }),
          h(
            "button",
            { type: "button", class: "sort", title: `Sort by ${item.title}`, onclick: () => sortBy(item) },
            h("span", {}, item.label),
            h("i", { "aria-hidden": "true" }),
          ),
        ),
      ),
    ),
  );
  if (!grid.contains(body)) grid.append(columnsOf, head, body);
  grid.setAttribute("aria-rowcount", String(rows.length + 1));
  grid.setAttribute("aria-colcount", String(columns.length));
}

// Figures and times begin with the largest, names with the first.
function sortBy(item) {
  const now = state().sort;
  const first = item.numeric || item.id === "created" ? `-${item.id}` : item.id;
  const other = first.startsWith("-") ? item.id : `-${item.id}`;
  update({ sort: now === first ? other : first });
}

function drawRows() {
  const size = height();
  const from = Math.max(0, Math.floor(scroll.scrollTop / size) - 8);
  const to = Math.min(rows.length, Math.ceil((scroll.scrollTop + scroll.clientHeight) / size) + 8);
  if (drawn === `${from}-${to}`) return;
  drawn = `${from}-${to}`;
  const chosen = new Set(state().sel);
  const gap = (count) =>
    count > 0 && h("tr", { class: "gap", role: "presentation", style: { height: `${count * size}px` } });
  fill(
    body,
    gap(from),
    rows.slice(from, to).map((row, i) => drawRow(row, { index: from + i, columns, chosen, cursor, on })),
    gap(rows.length - to),
  );
  const at = rows.findIndex((row) => row.id === cursor);
  grid.setAttribute("aria-activedescendant", at >= from && at < to ? `row-${at}` : "");
}

function drawEmpty() {
  const box = $("runs-empty");
  box.hidden = rows.length > 0 || !info.loaded;
  grid.hidden = rows.length === 0;
  if (rows.length > 0 || !info.loaded) return;
  fill(
    box,
    runs.size === 0
      ? empty(
          "No runs yet",
          `Nothing below ${info.root} is a run. Start one; it appears here by itself:`,
          h("code", {}, "dlx train model=mlp dataset=digits"),
        )
      : empty(
          "No run matches",
          "No run matches the filter.",
          h("button", { type: "button", class: "tool", onclick: () => update({ q: "" }) }, "Clear the filter"),
        ),
  );
}

function fold(row, open) {
  if (row?.open === undefined) return;
  const without = (list) => list.filter((id) => id !== row.id);
  update({
    open: open ? [...without(state().open), row.id] : without(state().open),
    closed: open ? without(state().closed) : [...without(state().closed), row.id],
  });
}

function click(event, row) {
  if (event.shiftKey && anchor) {
    getSelection()?.removeAllRanges();
    range(row);
    return;
  }
  anchor = cursor = row.id;
  if (event.ctrlKey || event.metaKey) toggleSelected(row.ids);
  else setSelected(row.ids, row.run ? { run: row.id } : {});
}

const on = {
  click,
  tick(row) {
    anchor = cursor = row.id;
    toggleSelected(row.ids);
    grid.focus({ preventScroll: true });
  },
  fold(row, open) {
    fold(row, open);
    grid.focus({ preventScroll: true });
  },
};

function range(row) {
  const a = rows.findIndex((item) => item.id === anchor);
  const b = rows.indexOf(row);
  if (a < 0) return;
  cursor = row.id;
  setSelected(
    rows
      .slice(Math.min(a, b), Math.max(a, b) + 1)
      .filter((item) => item.kind === "run")
      .flatMap((item) => item.ids),
  );
}

function move(to, extend) {
  const row = rows[Math.max(0, Math.min(rows.length - 1, to))];
  if (!row) return;
  anchor ??= cursor;
  if (!extend) anchor = row.id;
  cursor = row.id;
  reveal(rows.indexOf(row));
  if (extend) range(row);
  drawn = "";
  drawRows();
}

function reveal(index) {
  const size = height();
  const top = index * size;
  const room = scroll.clientHeight - head.offsetHeight;
  if (top < scroll.scrollTop) scroll.scrollTop = top;
  else if (top + size > scroll.scrollTop + room) scroll.scrollTop = top + size - room;
}

const KEYS = {
  ArrowDown: (at, row, event) => move(at + 1, event.shiftKey),
  ArrowUp: (at, row, event) => move(at - 1, event.shiftKey),
  PageDown: (at, row, event) => move(at + Math.floor(scroll.clientHeight / height()) - 1, event.shiftKey),
  PageUp: (at, row, event) => move(at - Math.floor(scroll.clientHeight / height()) + 1, event.shiftKey),
  Home: (at, row, event) => move(0, event.shiftKey),
  End: (at, row, event) => move(rows.length - 1, event.shiftKey),
  ArrowRight: (at, row) => (row.open === false ? fold(row, true) : move(at + 1)),
  ArrowLeft: (at, row) => {
    if (row.open) fold(row, false);
    else for (let i = at - 1; i >= 0; i -= 1) if (rows[i].depth < row.depth) return move(i);
  },
  " ": (at, row) => {
    anchor = row.id;
    toggleSelected(row.ids);
  },
  Enter: (at, row) => row.run && update({ run: row.id, tab: "run" }),
  Delete: () => shownSelected().length > 0 && trash(shownSelected()),
  Escape: () => setSelected([]),
};

grid.addEventListener("keydown", (event) => {
  if (event.target.closest("thead")) return;
  const at = rows.findIndex((row) => row.id === cursor);
  if ((event.ctrlKey || event.metaKey) && event.key === "a") setSelected(shownRunIds());
  else if (KEYS[event.key] && at >= 0 && !event.altKey && !event.ctrlKey) KEYS[event.key](at, rows[at], event);
  else return;
  event.preventDefault();
});
scroll.addEventListener("scroll", () => requestAnimationFrame(drawRows), { passive: true });
new ResizeObserver(() => requestAnimationFrame(drawRows)).observe(scroll);
