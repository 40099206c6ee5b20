// What a person looks at, and its place in the URL. Behind the # it is never sent to the server, whatever its length.

const DEFAULTS = {
  q: "", // the filter: text or an expression
  sort: "-created", // a column, "-" before it for largest first
  group: [], // config keys, outermost first
  cols: [], // columns chosen by hand; none: those that differ
  open: [],
  closed: [], // rows of the tree that are not as they are by default
  sel: [], // ids of the selected runs
  run: "", // the run whose details are shown
  tab: "", // runs (on a phone), curves, config, parameters, media, run
  metrics: [],
  x: "step",
  smooth: 0,
  logx: false,
  logy: false,
  bands: false,
  all: false, // config: also what does not differ
  metric: "",
  key: "", // parameters: what against what
  media: "",
  step: -1, // media: which, at what step; -1: the newest
};

const listeners = new Set();
let view = read();
let pushed = { keys: "", time: 0 };

export const state = () => view;

// `keys` are the names that changed, so that a part of the page redraws only for what it shows.
export function subscribe(listener) {
  listeners.add(listener);
}

// replace: no new entry for the back button, as while typing or dragging.
export function update(patch, { replace = false } = {}) {
  const keys = Object.keys(patch).filter((key) => !same(view[key], patch[key]));
  if (keys.length === 0) return;
  view = { ...view, ...patch };
  const name = keys.join();
  // Holding an arrow key is one change to go back over, not fifty.
  const again = pushed.keys === name && performance.now() - pushed.time < 500;
  if (replace || again) history.replaceState(null, "", write());
  else history.pushState(null, "", write());
  if (!replace) pushed = { keys: name, time: performance.now() };
  notify(new Set(keys));
}

addEventListener("popstate", () => {
  const before = view;
  view = read();
  pushed = { keys: "", time: 0 };
  const keys = Object.keys(DEFAULTS).filter((key) => !same(before[key], view[key]));
  if (keys.length > 0) notify(new Set(keys));
});

function notify(keys) {
  for (const listener of listeners) listener(keys);
}

function read() {
  const found = new URLSearchParams(location.hash.slice(1));
  const result = {};
  for (const [key, initial] of Object.entries(DEFAULTS)) {
    if (!found.has(key)) result[key] = initial;
    else if (Array.isArray(initial)) result[key] = found.getAll(key);
    else if (typeof initial === "number") result[key] = Number(found.get(key)) || 0;
    else if (typeof initial === "boolean") result[key] = found.get(key) === "1";
    else result[key] = found.get(key);
  }
  return result;
}

function write() {
  const parts = new URLSearchParams();
  for (const [key, initial] of Object.entries(DEFAULTS)) {
    const value = view[key];
    if (same(value, initial)) continue;
    for (const item of Array.isArray(value) ? value : [value])
      parts.append(key, item === true ? "1" : item === false ? "0" : item);
  }
  const text = parts.toString().replaceAll("%2F", "/").replaceAll("%3A", ":");
  return location.pathname + (text ? `#${text}` : "");
}

function same(a, b) {
  return Array.isArray(a) && Array.isArray(b) ? a.length === b.length && a.every((item, i) => item === b[i]) : a === b;
}
