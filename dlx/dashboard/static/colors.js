// A run's colour depends on its name alone, so that it keeps it when others come and go; members of a sweep differ.

import { known, runs } from "./store.js";

const COUNT = 8;
const DASHES = ["solid", "dash", "dot", "dashdot"];

function hash(text) {
  let value = 2166136261;
  for (let i = 0; i < text.length; i += 1) value = Math.imul(value ^ text.charCodeAt(i), 16777619);
  return value >>> 0;
}

function place(run) {
  if (run.plan === null) return hash(run.id) % (COUNT * 2);
  const index = known().members.get(run.plan)?.indexOf(run.id) ?? 0;
  return index + (hash(run.plan) % COUNT);
}

export const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export const variable = (id) => {
  const run = runs.get(id);
  return `var(--run-${run ? place(run) % COUNT : 0})`;
};

export function lineOf(id) {
  const run = runs.get(id);
  const at = run ? place(run) : 0;
  return { color: token(`--run-${at % COUNT}`), dash: DASHES[Math.floor(at / COUNT) % DASHES.length] };
}

// The line of a legend, drawn as the curve is.
export function stroke(line) {
  return {
    "border-top-color": line.color,
    "border-top-style": { solid: "solid", dash: "dashed", dot: "dotted", dashdot: "dashed" }[line.dash],
  };
}

export const groupLine = (index) => ({
  color: token(`--run-${index % COUNT}`),
  dash: DASHES[Math.floor(index / COUNT) % DASHES.length],
});
