// From runs to the rows of the table: filtered, sorted, and as a tree of plans or of groups.

import { column, compare } from "./columns.js";
import { text } from "./format.js";
import { differing, info, runs, telling } from "./store.js";

const OPEN_UP_TO = 20; // members that a plan shows without being asked

// found: ids of an expression's matches, or null where the filter is plain text.
export function matches(run, q, found) {
  if (found) return found.has(run.id);
  return q
    .toLowerCase()
    .split(/\s+/)
    .every((word) => run.text.includes(word));
}

// Rows: {id, kind: "run" | "plan" | "group", run, label, key, ids: runs below, depth, open}.
export function buildRows(view, found) {
  const shown = [...runs.values()].filter((run) => matches(run, view.q, found));
  const by = column(view.sort.replace(/^-/, ""));
  const down = view.sort.startsWith("-");
  const isOpen = (id, n) => (view.open.includes(id) ? true : view.closed.includes(id) ? false : n <= OPEN_UP_TO);
  const order = { by, down, isOpen };
  return view.group.length > 0
    ? grouped(
        shown.filter((run) => !run.is_plan),
        view.group,
        order,
      )
    : tree(shown, order);
}

function tree(shown, order) {
  const nodes = new Map();
  const roots = [];
  const node = (run) => {
    if (!nodes.has(run.id)) {
      const made = { run, children: [], ids: [] };
      nodes.set(run.id, made);
      const parent = run.plan === null ? null : runs.get(run.plan);
      (parent ? node(parent).children : roots).push(made);
    }
    return nodes.get(run.id);
  };
  shown.forEach(node);
  const settle = (item) => {
    item.children.forEach(settle);
    item.ids = item.children.flatMap((child) => child.ids);
    if (!item.run.is_plan) item.ids.push(item.run.id);
    // By time the members of a plan keep their numbers' order: many start in the same second.
    const byTime = order.by.id === "created";
    item.children.sort((a, b) => (byTime ? compare(a.run.id, b.run.id, false) : compare(a.value, b.value, order.down)));
    // A plan stands where the best placed of its members would.
    const own = order.by.value(item.run);
    item.value =
      own === undefined || (item.run.is_plan && order.by.kind !== "fixed") ? (item.children[0]?.value ?? own) : own;
  };
  roots.forEach(settle);
  const rows = [];
  const walk = (items, depth) => {
    for (const item of items) {
      const branch = item.run.is_plan || item.children.length > 0;
      const open = branch ? order.isOpen(item.run.id, item.ids.length) : undefined;
      rows.push({ id: item.run.id, kind: branch ? "plan" : "run", run: item.run, ids: item.ids, depth, open });
      if (open) walk(item.children, depth + 1);
    }
  };
  roots.sort((a, b) => compare(a.value, b.value, order.down));
  walk(roots, 0);
  return rows;
}

function grouped(shown, keys, order) {
  const rows = [];
  const walk = (list, depth, prefix) => {
    if (depth === keys.length) {
      list.sort((a, b) => compare(order.by.value(a), order.by.value(b), order.down));
      for (const run of list) rows.push({ id: run.id, kind: "run", run, ids: [run.id], depth });
      return;
    }
    const key = keys[depth];
    const groups = [...Map.groupBy(list, (run) => text(run.config[key]))];
    const place = ([value, members]) => {
      if (order.by.id === `config:${key}`) return members[0].config[key];
      const values = members.map(order.by.value).filter((item) => Number.isFinite(item));
      if (order.by.kind === "metric" && values.length > 0) return values.reduce((a, b) => a + b) / values.length;
      return members[0].config[key] ?? value;
    };
    // Groups stand by their mean, or by their own key in its natural order.
    const sorts = order.by.kind === "metric" || order.by.id === `config:${key}`;
    groups.sort((a, b) => compare(place(a), place(b), sorts && order.down));
    for (const [value, members] of groups) {
      const id = `${prefix}${key}=${value}`;
      const open = order.isOpen(id, shown.length);
      rows.push({
        id,
        kind: "group",
        label: value === "" ? "none" : value,
        key,
        ids: members.map((run) => run.id),
        depth,
        open,
      });
      if (open) walk(members, depth + 1, `${id}|`);
    }
  };
  walk(shown, 0, "group:");
  return rows;
}

// Selected runs by what they share: the keys of the table's groups; without any, repeats together, as `dlx compare` has
// it, or their sweep where that makes more than `most` groups.
export function groupsOf(list, keys, most) {
  const chosen = keys.length > 0;
  const values = (run) => JSON.stringify(keys.map((key) => text(run.config[key])));
  const groups = [...Map.groupBy(list, chosen ? values : (run) => run.signature).values()];
  if (!chosen && groups.length > most) return sweepsOf(list);
  const firsts = groups.map((members) => members[0]);
  const ignored = groups.some((members) => members.length > 1) ? info.repeats : [];
  const between = differing(firsts);
  const differ = chosen
    ? keys.filter((key) => between.includes(key))
    : telling(firsts, between).filter((key) => !ignored.includes(key));
  groups.sort(([a], [b]) => {
    for (const key of differ) {
      const found = compare(a.config[key], b.config[key], false);
      if (found !== 0) return found;
    }
    return 0;
  });
  const said = ([run]) => differ.map((key) => `${key.split(".").at(-1)} ${text(run.config[key]) || "none"}`).join(", ");
  const counted = Map.groupBy(groups, said);
  const label = (members) => {
    if (groups.length === 1) return "all runs";
    if (differ.length > 0 && counted.get(said(members)).length === 1) return said(members);
    // Such as folds beside a run on all of the data, which differ in nothing else.
    return members[0].short + (members.length > 1 ? ` and ${members.length - 1} more` : "");
  };
  return groups.map((members) => ({ label: label(members), ids: members.map((run) => run.id) }));
}

function sweepsOf(list) {
  const groups = Map.groupBy(list, (run) => run.plan ?? "");
  return [...groups].map(([plan, members]) => ({
    label: runs.get(plan)?.short ?? "single runs",
    ids: members.map((run) => run.id),
  }));
}
