// Menus, switches and choices.

import { fill, h, icon } from "./dom.js";

// A button that opens a small sheet below it; `build` makes its content each time. Escape and a click outside close it.
export function menu(label, glyph, build) {
  const sheet = h("div", { class: "sheet", popover: "auto" });
  const button = h(
    "button",
    { type: "button", class: "tool", "aria-haspopup": "dialog", "aria-expanded": "false" },
    glyph && icon(glyph),
    h("span", {}, label),
  );
  button.popoverTargetElement = sheet;
  const redraw = () => {
    const top = sheet.querySelector(".options")?.scrollTop ?? 0;
    fill(sheet, build(redraw));
    const options = sheet.querySelector(".options");
    if (options) options.scrollTop = top;
  };
  sheet.addEventListener("beforetoggle", (event) => {
    button.setAttribute("aria-expanded", String(event.newState === "open"));
    if (event.newState !== "open") return;
    redraw();
    const box = button.getBoundingClientRect();
    sheet.style.top = `${box.bottom + 4}px`;
    sheet.style.left = `${Math.max(8, Math.min(box.left, innerWidth - 328))}px`;
  });
  sheet.addEventListener("toggle", (event) => {
    if (event.newState === "open") sheet.querySelector("input, button")?.focus();
  });
  return h("span", { class: "menu" }, button, sheet);
}

// Rows of a menu: [{name, label, checked, hint}], with a box to search them by when there are many.
export function checklist(options, onchange, { find = "" } = {}) {
  const list = h(
    "div",
    { class: "options" },
    options.map((option) =>
      h(
        "label",
        { class: "option", "data-text": option.label.toLowerCase() },
        h("input", {
          type: "checkbox",
          name: option.name,
          "aria-label": option.label,
          checked: option.checked,
          onchange: (event) => onchange(option.name, event.target.checked),
        }),
        h("span", {}, option.label),
        option.hint && h("small", {}, option.hint),
      ),
    ),
  );
  const search = (text) => {
    for (const row of list.children) row.hidden = !row.dataset.text.includes(text.toLowerCase());
  };
  if (options.length < 10) return [list];
  return [
    h("input", {
      type: "search",
      class: "find",
      placeholder: "Search",
      "aria-label": "Search this list",
      value: find,
      oninput: (event) => search(event.target.value),
    }),
    list,
  ];
}

// One of a few: [[value, label], ...].
export function segmented(label, options, value, onchange) {
  return h(
    "div",
    { class: "segmented", role: "group", "aria-label": label },
    options.map(([name, text]) =>
      h("button", { type: "button", "aria-pressed": String(name === value), onclick: () => onchange(name) }, text),
    ),
  );
}

// quiet: the label is for screen readers alone.
export function select(label, options, value, onchange, { quiet = false } = {}) {
  return h(
    "label",
    { class: "field" },
    !quiet && h("span", {}, label),
    h(
      "select",
      { "aria-label": label, onchange: (event) => onchange(event.target.value) },
      options.map((item) => {
        const [name, text] = Array.isArray(item) ? item : [item, item];
        return h("option", { value: name, selected: name === value }, text);
      }),
    ),
  );
}

export function toggle(label, checked, onchange, title = "") {
  return h(
    "label",
    { class: "check", title },
    h("input", { type: "checkbox", checked, onchange: (event) => onchange(event.target.checked) }),
    h("span", {}, label),
  );
}
