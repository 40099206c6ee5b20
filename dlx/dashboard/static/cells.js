// The rows of the table, cell by cell.

import { variable } from "./colors.js";
import { h } from "./dom.js";
import { number, spread, valuesOf } from "./format.js";
import { state } from "./state.js";
import { runs } from "./store.js";

// A row of runs. index: its place among all rows, chosen: ids of the selected runs, cursor: id of the row that the
// keyboard is on, on: what a click does: {click(event, row), tick(row), fold(row, open)}.
export function drawRow(row, { index, columns, chosen, cursor, on }) {
  const count = row.ids.filter((id) => chosen.has(id)).length;
  const whole = row.ids.length > 0 && count === row.ids.length;
  const shown = state().run === row.id;
  return h(
    "tr",
    {
      id: `row-${index}`,
      role: "row",
      class: [row.kind, row.id === cursor && "cursor", shown && "shown"].filter(Boolean).join(" "),
      "data-id": row.id,
      "aria-rowindex": String(index + 2),
      "aria-level": String(row.depth + 1),
      "aria-selected": String(whole),
      "aria-expanded": row.open === undefined ? null : String(row.open),
      onclick: (event) => on.click(event, row),
    },
    columns.map((item, i) => (i === 0 ? nameCell(row, count, whole, on) : valueCell(row, item))),
  );
}

function nameCell(row, count, whole, on) {
  const label = row.kind === "group" ? row.label : row.run.short;
  const title = row.kind === "group" ? `${row.key} = ${row.label}` : row.id;
  const box = h("input", {
    type: "checkbox",
    tabIndex: -1,
    checked: whole,
    "aria-label": `Select ${label}`,
    disabled: row.ids.length === 0,
    onclick: (event) => {
      event.stopPropagation();
      on.tick(row);
    },
  });
  box.indeterminate = count > 0 && !whole;
  const swatch = row.kind === "run" && count > 0 ? { background: variable(row.id) } : {};
  return h(
    "td",
    { role: "rowheader", class: "name", title, style: { "--depth": String(row.depth) } },
    h(
      "div",
      { class: "line" },
      h("span", { class: "pick" }, box),
      row.open !== undefined
        ? h("button", {
            type: "button",
            tabIndex: -1,
            class: "fold",
            "aria-label": row.open ? "Collapse" : "Expand",
            onclick: (event) => {
              event.stopPropagation();
              on.fold(row, !row.open);
            },
          })
        : h("i", { class: "swatch", style: swatch, "aria-hidden": "true" }),
      row.kind === "group" && h("span", { class: "key" }, row.key.split(".").at(-1)),
      h("span", { class: "label" }, label),
      row.open !== undefined && h("span", { class: "count", title: `${row.ids.length} runs` }, row.ids.length),
    ),
  );
}

function valueCell(row, item) {
  const props = { role: "gridcell", class: item.numeric ? "number" : "" };
  if (row.kind === "run") {
    if (item.id === "status") return h("td", props, badge(row.run));
    if (item.id === "tags")
      return h(
        "td",
        props,
        row.run.tags.map((tag) => h("span", { class: "tag" }, tag)),
      );
    const shown = item.show(row.run);
    return h(
      "td",
      {
        ...props,
        title:
          item.tip?.(row.run) ?? (item.title === item.label || shown.length > 12 ? shown : `${item.title}: ${shown}`),
      },
      shown,
    );
  }
  if (item.kind === "fixed" && row.kind === "plan") {
    return h(
      "td",
      props,
      item.id === "status"
        ? badge(row.run)
        : item.id === "tags"
          ? row.run.tags.map((tag) => h("span", { class: "tag" }, tag))
          : item.show(row.run),
    );
  }
  return h("td", { ...props, class: `${props.class} total` }, total(row, item));
}

// What a plan or a group says of its runs: what they share, or how far they spread.
function total(row, item) {
  const list = row.ids.map((id) => runs.get(id));
  if (item.kind === "metric") {
    const values = list.map(item.value).filter((value) => Number.isFinite(value));
    const shown = row.kind === "group" ? spread(values) : values.length === 1 ? number(values[0]) : "";
    return shown && values.length < list.length ? `${shown} (${values.length} of ${list.length})` : shown;
  }
  const values = new Set(list.map((run) => item.show(run)));
  if (item.id === "status") return [...values].join(", ");
  if (item.kind === "fixed") return "";
  return values.size === 1 ? [...values][0] : valuesOf(values.size);
}

export function badge(run) {
  return h(
    "span",
    { class: "state", title: run.reason ? `${run.status}: ${run.reason}` : run.status },
    h("span", { class: `badge ${run.status}` }, run.status),
    run.reason && h("span", { class: "reason" }, run.reason),
  );
}
