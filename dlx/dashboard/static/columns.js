// The columns of the table: which there are, which are shown, what each says of a run.

import { brief, full, number, text, when } from "./format.js";
import { known, monitorOf, runs } from "./store.js";

const FIXED = {
  name: { label: "Name", value: (run) => run.short },
  status: { label: "Status", value: (run) => run.status },
  created: {
    label: "Started",
    value: (run) => run.created,
    show: (run) => when(run.created),
    tip: (run) => full(run.created),
  },
  tags: { label: "Tags", value: (run) => run.tags.join(", ") },
  notes: { label: "Notes", value: (run) => run.notes },
  verdict: { label: "Verdict", value: (run) => run.verdict ?? "" },
};
const MAX_KEYS = 8;
const MAX_METRICS = 5;

// {id, label, title, numeric, value(run), show(run)}: value is what is sorted by, show is what is read.
export function column(id) {
  const [kind, ...rest] = id.split(":");
  const name = rest.join(":");
  if (kind === "config") {
    return {
      id,
      kind,
      name,
      label: name,
      title: name,
      numeric: false,
      value: (run) => run.config[name],
      show: (run) => brief(run.config[name]),
      tip: (run) => `${name}: ${text(run.config[name])}`,
    };
  }
  if (kind === "metric") {
    return {
      id,
      kind,
      name,
      label: name,
      title: name,
      numeric: true,
      value: (run) => run.metrics[name],
      show: (run) => number(run.metrics[name]),
    };
  }
  const fixed = FIXED[id] ?? FIXED.name;
  return {
    id,
    kind: "fixed",
    name: id,
    title: fixed.label,
    numeric: false,
    show: (run) => text(fixed.value(run)),
    ...fixed,
  };
}

// Those chosen by hand, or: what differs between the runs, and the figures they were judged by.
export function shownColumns(chosen) {
  const ids = chosen.length > 0 ? chosen.filter((id) => id !== "name") : automatic();
  return ["name", ...ids].map(column).map(shortened);
}

export function automatic() {
  const list = [...runs.values()];
  const any = (test) => list.some(test);
  const [judged, ...more] = mainMetrics(MAX_METRICS).map((name) => `metric:${name}`);
  return [
    "status",
    judged, // seen without scrolling, whatever differs
    ...known()
      .telling.slice(0, MAX_KEYS)
      .map((key) => `config:${key}`),
    ...more,
    any((run) => run.tags.length > 0) && "tags",
    any((run) => run.notes) && "notes",
    any((run) => run.verdict) && "verdict",
    "created",
  ].filter(Boolean);
}

// Every column there is, in the order of the chooser.
export function everyColumn() {
  return [
    ...Object.keys(FIXED).filter((id) => id !== "name"),
    ...known().metrics.map((name) => `metric:${name}`),
    ...known().allKeys.map((key) => `config:${key}`),
  ].map(column);
}

// What the runs were judged by first, then test, validation and training figures.
export function mainMetrics(limit) {
  const monitored = monitorOf([...runs.values()])?.[0];
  const rank = (name) =>
    name === monitored
      ? 0
      : name.startsWith("test/")
        ? 1
        : name.startsWith("val/")
          ? 2
          : name.startsWith("train/")
            ? 3
            : 4;
  const same = (name) => {
    // A loss that is listed under a second name is one column.
    const twin = name.replace(/nll$/, "loss");
    return twin !== name && known().metrics.includes(twin);
  };
  return known()
    .metrics.filter((name) => !same(name) && rank(name) < 4)
    .map((name, i) => [rank(name), i, name])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1])
    .slice(0, limit)
    .map((item) => item[2]);
}

// optimizer.lr is headed lr where no other column would be.
function shortened(item, _, all) {
  if (item.kind !== "config" || !item.name.includes(".")) return item;
  const last = item.name.split(".").at(-1);
  const clash = all.some((other) => other.id !== item.id && other.name.split(".").at(-1) === last);
  return clash ? item : { ...item, label: last };
}

// Smaller first; numbers before text; what is missing or not a number last, whichever way it is sorted.
export function compare(a, b, down) {
  const missing = (value) => value === undefined || value === null || value === "" || Number.isNaN(value);
  if (missing(a) || missing(b)) return Number(missing(a)) - Number(missing(b));
  let order = 0;
  if (typeof a === "number" && typeof b === "number") order = a - b;
  else if (typeof a !== typeof b) order = typeof a === "number" ? -1 : 1;
  else order = String(a).localeCompare(String(b), "en", { numeric: true });
  return down ? -order : order;
}

// Widths come from all rows, not from those in sight: columns must not jump while one scrolls.
export function width(item, grouped) {
  if (item.id === "name") return innerWidth < 700 ? 196 : 252;
  if (item.id === "status") return [...runs.values()].some((run) => run.reason) ? 168 : 96;
  if (item.id === "notes") return 200;
  let longest = Math.max(
    item.label.length + 2,
    item.kind === "config"
      ? `${Math.min(known().values.get(item.name)?.values.size ?? 0, runs.size)} values`.length
      : 0,
  );
  for (const run of runs.values()) longest = Math.max(longest, Math.min(item.show(run).length, 24));
  const some = [...runs.values()].some((run) => !run.is_plan && !Number.isFinite(run.metrics[item.name]));
  const wide = item.kind === "metric" && grouped ? (some ? 28 : 17) : 0; // 0.9712 ± 0.0034 (10 of 12)
  return Math.max(longest, wide, 5) * 7.8 + 20;
}
