// One run: how it ended, how to make it again, notes and tags, figures, configuration, environment, log.

import { api } from "./api.js";
import { copy, empty, fill, h, icon, paced, toast } from "./dom.js";
import { full, number } from "./format.js";
import { selected, trash } from "./selection.js";
import { apply, leaves, runs } from "./store.js";
import { state, update } from "./state.js";
import { badge } from "./cells.js";

let body,
  about,
  said,
  commands,
  parts,
  belongs,
  log,
  next = 0,
  shown = "",
  turn = 0;

const NONE = { media: [] };

export const detail = {
  mount(target) {
    body = target;
    // Still there: the connection came back, and what is typed stays.
    if (commands?.isConnected && shown === current()) ask();
    else draw();
  },
  update(keys) {
    const id = current();
    if (id !== shown) return draw();
    if (!keys.has("runs") || !id) return;
    drawChildren(runs.get(id)); // the news may be of its members alone
    if (!keys.ids.has(id)) return;
    drawAbout(runs.get(id));
    drawFigures(runs.get(id));
    said.refresh(runs.get(id));
    later();
  },
  rows(ids) {
    if (ids.includes(shown)) readLog();
  },
};

const current = () => (runs.has(state().run) ? state().run : (selected()[0] ?? ""));

function draw() {
  const id = current();
  shown = id;
  log = null;
  if (!id)
    return fill(
      body,
      empty("No run chosen", "Click a run in the table, or press Enter on it, to see its details and its log."),
    );
  const run = runs.get(id);
  about = h("section", { class: "about" });
  commands = h("div", {});
  belongs = h("p", { class: "muted" });
  parts = {
    result: section("Result", true),
    figures: section("Figures", true),
    config: section("Configuration"),
    environment: section("Environment"),
    log: section("Log", true),
  };
  said = notes(run);
  drawAbout(run);
  drawFigures(run);
  drawChildren(run);
  const { result: first, ...others } = parts;
  const rest = h("div", {}, commands, Object.values(others), belongs);
  fill(body, h("div", { class: "detail" }, about, first, said.form, rest));
  ask();
}

// What is only in the folder; a training that goes on writes into it.
async function ask() {
  const mine = (turn += 1);
  try {
    // The pictures of single runs are side by side under Media; those of a plan are its result.
    const pictures = runs.get(shown)?.is_plan ? api.media([shown]) : NONE;
    const [found, { media }] = await Promise.all([api.run(shown), pictures]);
    if (mine !== turn || !commands.isConnected) return;
    const { held, verdict } = found.summary;
    const line = typeof verdict === "string" ? [{ held, verdict }] : [];
    show(parts.result, [...line, ...media.filter((item) => item.kind === "image")], (items) => items.map(result));
    const { reproduce, command: words, config_text: config, path, environment } = found;
    show(commands, [reproduce, quoted(words ?? [])], ([again, started]) => [
      command("Reproduce", again),
      command("Command it was started by", started),
    ]);
    show(parts.config, config, (text) => h("pre", { class: "text", tabIndex: 0 }, text));
    show(parts.environment, flat({ path, ...environment, command: undefined }), facts);
    show(parts.log, found.log, logText);
    readLog();
  } catch (error) {
    if (mine === turn) toast(error.message, { kind: "error" });
  }
}

// A verdict or a picture.
function result({ held, verdict, url, name }) {
  if (url) return h("figure", {}, h("img", { src: url, alt: name }));
  const word = { true: "The claim held: ", false: "The claim did not hold: " }[held] ?? "Verdict: ";
  return h("p", { class: "verdict" }, h("b", {}, word), verdict);
}

const later = paced(() => commands.isConnected && ask(), 1000);

const drawn = new WeakMap();

// Draws what changed, so that what is read, selected or folded meanwhile stays.
function show(place, value, make) {
  const now = JSON.stringify(value);
  if (drawn.get(place) === now) return;
  drawn.set(place, now);
  place.hidden = value.length === 0 || value === false;
  fill(place.querySelector(":scope > .content") ?? place, place.hidden ? [] : make(value));
}

function drawAbout(run) {
  fill(
    about,
    h(
      "header",
      {},
      h("h2", {}, run.name),
      h("button", { type: "button", class: "tool danger", onclick: () => trash([run.id]) }, icon("trash"), "Delete"),
    ),
    h(
      "p",
      { class: "facts" },
      badge(run),
      h("span", { class: "muted" }, full(run.created)),
    ),
    run.plan !== null &&
      h(
        "p",
        {},
        "Member of ",
        h(
          "button",
          { type: "button", class: "link", onclick: () => update({ run: run.plan }) },
          run.plan.split("/").at(-1),
        ),
      ),
  );
}

const tagsOf = (text) => [
  ...new Set(
    text
      .split(",")
      .map((tag) => tag.trim())
      .filter(Boolean),
  ),
];

// Saved by the button or Ctrl+Enter. What is typed is never lost to news from the server; a field that nobody typed in
// follows them.
function notes(run) {
  const tags = h("input", { type: "text", id: "tags", placeholder: "baseline, to repeat", autocomplete: "off" });
  const area = h("textarea", { id: "notes", rows: 3, placeholder: "What was tried, what came out" });
  const button = h("button", { type: "submit", class: "tool primary", disabled: true }, "Save");
  const problem = h("p", { class: "problem", role: "alert" });
  const fields = [
    { name: "tags", input: tags, show: (list) => list.join(", "), read: tagsOf },
    { name: "notes", input: area, show: (text) => text, read: (text) => text },
  ];
  const began = {}; // what the fields were filled with: what a save may replace
  const touched = ({ input, filled }) => input.value !== filled;
  const enable = () => (button.disabled = !fields.some(touched));

  function put(field, value, { typed = false } = {}) {
    began[field.name] = value;
    field.filled = field.show(value);
    if (typed) return;
    field.input.value = field.filled;
    field.filled = field.input.value; // as the browser has it: its line ends are its own
  }

  function refresh(now) {
    for (const field of fields) if (!touched(field)) put(field, now[field.name]);
  }

  async function save() {
    const wanted = {};
    for (const field of fields) {
      field.sent = field.input.value;
      wanted[field.name] = touched(field) ? field.read(field.sent) : began[field.name];
    }
    try {
      const { run: saved } = await api.notes(run.id, began, wanted);
      for (const field of fields) {
        put(field, saved[field.name], { typed: field.input.value !== field.sent });
      }
      problem.textContent = "";
      apply({ runs: [saved] });
      toast("Saved");
    } catch (error) {
      const { now } = error.answer ?? {};
      if (!now) return toast(error.message, { kind: "error" });
      for (const field of fields) put(field, now[field.name], { typed: touched(field) });
      problem.textContent =
        `Not saved: changed elsewhere meanwhile. There it says: tags “${now.tags.join(", ")}”, ` +
        `notes “${now.notes}”. Save again to put what is above in its place.`;
    } finally {
      enable();
    }
  }

  for (const field of fields) put(field, run[field.name]);
  const form = h(
    "form",
    {
      class: "notes",
      onsubmit: (event) => {
        event.preventDefault();
        save();
      },
      oninput: enable,
      onkeydown: (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
      },
    },
    h("label", {}, h("span", {}, "Tags"), tags),
    h("label", {}, h("span", {}, "Notes"), area),
    problem,
    button,
  );
  return { form, refresh };
}

function command(title, line) {
  if (!line) return null;
  return h(
    "section",
    {},
    h("h3", {}, title),
    h(
      "div",
      { class: "command" },
      h("code", { tabIndex: 0 }, line),
      h(
        "button",
        { type: "button", class: "tool", "aria-label": `Copy: ${title}`, onclick: () => copy(line) },
        icon("copy"),
        "Copy",
      ),
    ),
  );
}

// As it is typed in a shell; dlx by its name, wherever it is installed.
function quoted(words) {
  const [first, ...rest] = words;
  const quote = (word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
  return first === undefined
    ? ""
    : [/\/dlx$|__main__\.py$/.test(first) ? "dlx" : first, ...rest].map((word) => quote(String(word))).join(" ");
}

function drawFigures(run) {
  const names = Object.keys(run.metrics).sort();
  show(
    parts.figures,
    names.map((name) => [name, number(run.metrics[name])]),
    facts,
  );
}

const facts = (pairs) =>
  h(
    "dl",
    { class: "pairs" },
    pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );

function flat(value, prefix = "") {
  if (value === null || typeof value !== "object") return [[prefix, String(value)]];
  return Object.entries(value)
    .filter(([, item]) => item !== undefined)
    .flatMap(([key, item]) => flat(item, prefix ? `${prefix}.${key}` : key));
}

// Hidden until it has content.
const section = (title, open = false) =>
  h("details", { open, hidden: true }, h("summary", {}, h("h3", {}, title)), h("div", { class: "content" }));

function drawChildren(run) {
  const n = leaves(run.id).length;
  belongs.hidden = !run.is_plan;
  belongs.textContent = `${n} ${n === 1 ? "run belongs" : "runs belong"} to it: select it in the table to compare them.`;
}

function logText() {
  next = -1;
  log = h("pre", { class: "text log", tabIndex: 0, role: "log", "aria-label": "Log" });
  return log;
}

let reading = false;

async function readLog() {
  if (!log || reading) return;
  reading = true;
  const target = log;
  try {
    const answer = await api.log(shown, next);
    if (target === log) {
      const end = target.scrollHeight - target.scrollTop - target.clientHeight < 24;
      next = answer.next;
      if (answer.text) target.append(answer.text);
      else if (target.textContent === "") target.append("The log is empty so far.");
      if (end) target.scrollTop = target.scrollHeight;
    }
  } catch (error) {
    toast(error.message, { kind: "error" });
  } finally {
    reading = false;
  }
}
