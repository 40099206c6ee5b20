// The runs, as the server last told of them, and what follows from all of them together.

const NUMBERS = { NaN: NaN, Infinity: Infinity, "-Infinity": -Infinity };
export const runs = new Map();
// outputs: keys (and what is below them) that say where a run writes, repeats: keys in which repeats differ.
export const info = { root: "", version: 0, loaded: false, outputs: [], repeats: [] };
const listeners = new Set();
let derived = null;

export function onRuns(listener) {
  listeners.add(listener);
}

export function applyAll(answer) {
  runs.clear();
  info.root = answer.root;
  info.outputs = answer.outputs;
  info.repeats = answer.repeats;
  info.loaded = true;
  apply(answer);
}

export function apply(answer) {
  info.version = answer.version ?? info.version;
  for (const id of answer.gone ?? []) runs.delete(id);
  for (const run of answer.runs) runs.set(run.id, ready(run));
  derived = null;
  const changed = new Set([...answer.runs.map((run) => run.id), ...(answer.gone ?? [])]);
  for (const listener of listeners) listener(changed);
}

function ready(run) {
  for (const [name, value] of Object.entries(run.metrics))
    if (typeof value === "string") run.metrics[name] = NUMBERS[value] ?? NaN;
  run.short = run.name.replace(/^\d{8}-\d{6}-/, "");
  run.text = [
    run.id,
    run.status,
    run.reason,
    run.verdict,
    run.notes,
    ...run.tags,
    ...Object.values(run.config).filter((value) => typeof value === "string"),
  ]
    .join("\n")
    .toLowerCase();
  return run;
}

// members: plan id -> ids, keys: config keys that differ, metrics: names of figures; both most common first.
// telling: of the keys, those that say something, in that order.
export function known() {
  derived ??= derive();
  return derived;
}

function derive() {
  const members = new Map();
  const keys = new Map();
  const metrics = new Map();
  let count = 0;
  for (const run of runs.values()) {
    if (run.plan !== null) members.set(run.plan, [...(members.get(run.plan) ?? []), run.id]);
    if (run.is_plan) continue;
    count += 1;
    for (const [key, value] of Object.entries(run.config)) {
      const seen = keys.get(key) ?? { count: 0, values: new Set() };
      seen.count += 1;
      if (seen.values.size < 500) seen.values.add(value);
      keys.set(key, seen);
    }
    for (const name of Object.keys(run.metrics)) metrics.set(name, (metrics.get(name) ?? 0) + 1);
  }
  for (const ids of members.values()) ids.sort();
  const common = (list) => list.sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
  const differs = ([, seen]) => seen.values.size > 1 || seen.count < count;
  const differ = common([...keys].filter(differs).map(([key, seen]) => [key, seen.count]));
  return {
    members,
    count,
    values: keys,
    keys: differ,
    telling: telling(
      [...runs.values()].filter((run) => !run.is_plan),
      differ,
    ),
    allKeys: [...keys.keys()].sort(),
    metrics: common([...metrics]),
  };
}

// Of the keys that differ between runs: choices of groups first, then what was set, then what follows from a choice and
// all of them have. As dlx/runs/differing.py has it for the terminal.
export function telling(list, keys) {
  const isGroup = (key) => keys.some((other) => other.startsWith(`${key}.`)) || key === "model";
  const shown = keys.filter((key) => !info.outputs.some((name) => key === name || key.startsWith(`${name}.`)));
  // Whether the options chosen of a group, which differ, decide a key's value.
  const follows = (key, group) => {
    const found = new Map();
    for (const { config } of list) {
      const option = config[group];
      if (!found.has(option)) found.set(option, config[key]);
      else if (found.get(option) !== config[key]) return false;
    }
    return found.size > 1;
  };
  const isRecipe = (key) => list.some((run) => String(run.config[key]).startsWith("recipe/")) && follows(key, "model");
  const choices = shown.filter((key) => isGroup(key));
  const values = shown.filter((key) => !isGroup(key));
  const later = values.filter((key) => key.includes(".") && follows(key, key.split(".")[0]));
  return [
    ...choices.filter((key) => key === "model" || !isRecipe(key)),
    ...values.filter((key) => !later.includes(key)),
    ...later.filter((key) => list.every((run) => key in run.config)),
  ];
}

// The runs below a plan, at any depth.
export function leaves(id) {
  const found = [];
  for (const child of known().members.get(id) ?? []) {
    const run = runs.get(child);
    if (run && !run.is_plan) found.push(child);
    if (run?.is_plan || known().members.has(child)) found.push(...leaves(child));
  }
  return found;
}

// The keys whose values differ between these runs; a key that one of them lacks differs.
export function differing(list) {
  const keys = new Set(list.flatMap((run) => Object.keys(run.config)));
  return [...keys].filter((key) => list.some((run) => run.config[key] !== list[0].config[key])).sort();
}

// "val/accuracy:max" -> ["val/accuracy", "max"], of the run or of the first in a list that has one.
export function monitorOf(list) {
  const found = list.find((run) => run.monitor)?.monitor;
  if (!found) return null;
  const at = found.lastIndexOf(":");
  return at < 0 ? [found, "min"] : [found.slice(0, at), found.slice(at + 1)];
}
