// Puts the page together: which view is shown, the keys that work anywhere, and what is drawn when something changes.

import { api } from "./api.js";
import { charts } from "./charts.js";
import { compare } from "./compare.js";
import { detail } from "./detail.js";
import { $, debounce, fill, h, icon, toast } from "./dom.js";
import { openHelp } from "./help.js";
import { connect } from "./live.js";
import { media } from "./media.js";
import { parameters } from "./parameters.js";
import { applyAll, onRuns, runs } from "./store.js";
import { state, subscribe, update } from "./state.js";
import { redraw } from "./table.js";
import { forget } from "./traces.js";
import { applyFilter, buildBar, buildFilter, drawBar, drawFilter, isExpression } from "./toolbar.js";

const VIEWS = [
  ["runs", "Runs"],
  ["curves", "Curves"],
  ["config", "Config"],
  ["parameters", "Parameters"],
  ["media", "Media"],
  ["run", "Run"],
];
const PARTS = { curves: charts, config: compare, parameters, media, run: detail };
const NEWEST = 5; // runs that are selected where the address says nothing
const phone = matchMedia("(max-width: 699px)");
let part = null;

const viewName = () => {
  const name = state().tab;
  if (phone.matches) return name || "runs";
  return PARTS[name] ? name : "curves";
};

function drawTabs() {
  const now = viewName();
  document.body.dataset.view = now;
  fill(
    $("tabs"),
    VIEWS.map(([name, label]) =>
      h(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${name}`,
          class: name,
          "aria-selected": String(name === now),
          "aria-controls": name === "runs" ? "runs" : "body",
          tabIndex: name === now ? 0 : -1,
          onclick: () => update({ tab: name }),
        },
        label,
      ),
    ),
  );
  $("body").setAttribute("aria-labelledby", `tab-${now}`);
}

function drawPart() {
  const next = PARTS[viewName()] ?? null;
  if (next === part) return false;
  part = next;
  fill($("body"));
  $("body").scrollTop = 0;
  part?.mount($("body"));
  return true;
}

subscribe((keys) => {
  if (keys.has("tab")) {
    const held = $("tabs").contains(document.activeElement);
    drawTabs();
    if (held) $("tabs").querySelector("[aria-selected=true]").focus();
  }
  if (keys.has("q")) {
    drawFilter();
    applyFilter().then(() => part?.update(keys));
  }
  if (["sort", "group", "cols", "open", "closed", "sel", "run"].some((key) => keys.has(key))) {
    redraw();
    drawBar();
  }
  if (!(keys.has("tab") && drawPart())) part?.update(keys);
});

const refilter = debounce(applyFilter, 400);

onRuns((ids) => {
  drawFilter();
  redraw();
  drawBar();
  if (isExpression(state().q)) refilter();
  part?.update(Object.assign(new Set(["runs"]), { ids }));
});

$("tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const names = VIEWS.map(([name]) => name).filter((name) => phone.matches || name !== "runs");
  update({ tab: names.at((names.indexOf(viewName()) + step) % names.length) });
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.closest("input:not([type=checkbox]):not([type=range]), textarea, select")) return;
  if (event.key === "/") $("filter").focus();
  else if (event.key === "?") openHelp();
  else if (/^[1-5]$/.test(event.key)) update({ tab: VIEWS[Number(event.key)][0] });
  else if (event.key === "Escape" && !document.querySelector(":popover-open")) $("grid").focus();
  else return;
  event.preventDefault();
});

// --- the theme: as the system has it, light, or dark

const THEMES = { "": ["auto", "light"], light: ["sun", "dark"], dark: ["moon", ""] };

function drawTheme() {
  const now = document.documentElement.dataset.theme ?? "";
  const label = `Theme: ${now || "as the system"}`;
  fill($("theme"), icon(THEMES[now][0]));
  $("theme").title = label;
  $("theme").setAttribute("aria-label", label);
}

$("theme").addEventListener("click", () => {
  const next = THEMES[document.documentElement.dataset.theme ?? ""][1];
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  try {
    localStorage.setItem("dlx-theme", next);
  } catch {
    // Then it lasts as long as the page.
  }
  drawTheme();
  part?.theme?.();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => part?.theme?.());
$("help-button").addEventListener("click", openHelp);

// --- the width of the table

const divider = $("divider");
function setSplit(share) {
  const bounded = Math.max(20, Math.min(80, share));
  $("split").style.setProperty("--split", `${bounded}%`);
  divider.setAttribute("aria-valuenow", String(Math.round(bounded)));
}
divider.addEventListener("pointerdown", (event) => divider.setPointerCapture(event.pointerId));
divider.addEventListener("pointermove", (event) => {
  if (divider.hasPointerCapture(event.pointerId)) setSplit((100 * event.clientX) / innerWidth);
});
divider.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -4, ArrowRight: 4 }[event.key];
  if (step) setSplit(Number(divider.getAttribute("aria-valuenow") ?? 50) + step);
});

phone.addEventListener("change", () => {
  drawTabs();
  drawPart();
  redraw();
});

function selectNewest() {
  const trained = [...runs.values()].filter((run) => !run.is_plan).sort((a, b) => b.created - a.created);
  update({ sel: trained.slice(0, NEWEST).map((run) => run.id) }, { replace: true });
}

async function start() {
  drawTheme();
  drawTabs();
  buildBar();
  buildFilter();
  try {
    applyAll(await api.runs());
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
  if (!location.hash) selectNewest();
  await applyFilter();
  drawPart();
  connect(
    (ids) => {
      forget(ids); // whichever tab is open: the curves may be looked at later
      part?.rows?.(ids);
    },
    () => {
      forget();
      part?.mount($("body"));
    },
  );
  document.body.dataset.ready = "1";
}

start();
