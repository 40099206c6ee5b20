// One run: how it ended, how to make it again, notes and tags, figures, configuration, environment, log.

import { api } from "./api.js";
import { copy, empty, fill, h, icon, toast } from "./dom.js";
import { full, number } from "./format.js";
import { selected, trash } from "./selection.js";
import { apply, leaves, runs } from "./store.js";
import { state, update } from "./state.js";
import { badge } from "./cells.js";

let body,
  about,
  log,
  next = 0,
  shown = "",
  turn = 0;

export const detail = {
  mount(target) {
    body = target;
    shown = "";
    draw();
  },
  update(keys) {
    const id = current();
    if (id !== shown) draw();
    else if (keys.has("runs") && keys.ids?.has(id)) drawAbout(runs.get(id));
  },
  rows(ids) {
    if (ids.includes(shown)) readLog();
  },
};

const current = () => (runs.has(state().run) ? state().run : (selected()[0] ?? ""));

async function draw() {
  const id = current();
  const mine = (turn += 1);
  shown = id;
  log = null;
  if (!id)
    return fill(
      body,
      empty("No run chosen", "Click a run in the table, or press Enter on it, to see its details and its log."),
    );
  const run = runs.get(id);
  about = h("section", { class: "about" });
  drawAbout(run);
  const rest = h("div", {});
  fill(body, h("div", { class: "detail" }, about, notes(run), rest));
  try {
    const found = await api.run(id);
    if (mine !== turn || !rest.isConnected) return;
    fill(
      rest,
      command("Reproduce", found.reproduce),
      command("Command it was started by", quoted(found.command ?? [])),
      figures(run),
      section("Configuration", h("pre", { class: "text", tabIndex: 0 }, found.config_text)),
      section("Environment", facts(flat({ path: found.path, ...found.environment, command: undefined }))),
      found.log && logSection(),
      children(run),
    );
    if (found.log) readLog();
  } catch (error) {
    if (mine === turn) toast(error.message, { kind: "error" });
  }
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
      run.verdict && h("span", {}, `Verdict: ${run.verdict}`),
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

// Saved by the button or Ctrl+Enter; what is typed is never lost to news from the server.
function notes(run) {
  const tags = h("input", {
    type: "text",
    id: "tags",
    value: run.tags.join(", "),
    placeholder: "baseline, to repeat",
    autocomplete: "off",
  });
  const area = h("textarea", { id: "notes", rows: 3, value: run.notes, placeholder: "What was tried, what came out" });
  const button = h("button", { type: "submit", class: "tool primary", disabled: true }, "Save");
  const form = h(
    "form",
    {
      class: "notes",
      onsubmit: async (event) => {
        event.preventDefault();
        const list = [
          ...new Set(
            tags.value
              .split(",")
              .map((tag) => tag.trim())
              .filter(Boolean),
          ),
        ];
        try {
          const answer = await api.notes(run.id, list, area.value);
          apply({ runs: [answer.run] });
          button.disabled = true;
          toast("Saved");
        } catch (error) {
          toast(error.message, { kind: "error" });
        }
      },
      oninput: () => {
        button.disabled = false;
      },
      onkeydown: (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
      },
    },
    h("label", {}, h("span", {}, "Tags"), tags),
    h("label", {}, h("span", {}, "Notes"), area),
    button,
  );
  return form;
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

function figures(run) {
  const names = Object.keys(run.metrics).sort();
  return names.length > 0 && section("Figures", facts(names.map((name) => [name, number(run.metrics[name])])), true);
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

const section = (title, content, open = false) => h("details", { open }, h("summary", {}, h("h3", {}, title)), content);

function children(run) {
  const ids = leaves(run.id);
  return (
    run.is_plan &&
    h("p", { class: "muted" }, `${ids.length} runs belong to it: select it in the table to compare them.`)
  );
}

function logSection() {
  log = h("pre", { class: "text log", tabIndex: 0, role: "log", "aria-label": "Log" });
  next = -1;
  return section("Log", log, true);
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
