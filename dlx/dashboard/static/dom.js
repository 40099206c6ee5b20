// Elements and messages. Data reaches the page as text nodes and properties only, never as markup.

export const $ = (id) => document.getElementById(id);

// h("button", {class: "x", onclick: f, "aria-label": "y"}, "text", child): null and false children are left out.
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, item] of Object.entries(value)) element.style.setProperty(key, item);
    else if (name in element && name !== "list" && !name.startsWith("aria")) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

const FOCUSABLE = "button, input, select, textarea, summary, [tabindex]";

// New content; the keyboard stays where it was, on what is now in the same place.
export function fill(element, ...children) {
  const active = document.activeElement;
  const held = active !== element && element.contains(active);
  const index = held ? [...element.querySelectorAll(FOCUSABLE)].indexOf(active) : -1;
  element.replaceChildren();
  add(element, children);
  const next = index >= 0 ? element.querySelectorAll(FOCUSABLE)[index] : null;
  if (next?.tagName === active.tagName) next.focus({ preventScroll: true });
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag, props = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  add(element, children);
  return element;
}

const ICONS = {
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.3 10.3 14 14",
  sun: "M8 5.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6M8 1v2M8 13v2M1 8h2M13 8h2M3 3l1.4 1.4M11.6 11.6 13 13M13 3l-1.4 1.4M4.4 11.6 3 13",
  moon: "M13.5 9.6A6 6 0 0 1 6.4 2.5 6 6 0 1 0 13.5 9.6Z",
  auto: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2ZM8 2v12M10 3.2v9.6M12 4.6v6.8",
  copy: "M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z",
  trash: "M2.5 4.5h11M6 4.5v-2h4v2M4 4.5l.7 9h6.6l.7-9",
  close: "M4 4l8 8M12 4l-8 8",
  expand: "M9.5 2.5h4v4M13.5 2.5 9 7M6.5 13.5h-4v-4M2.5 13.5 7 9",
  download: "M8 2v8M4.8 7 8 10.2 11.2 7M2.5 13.5h11",
  columns: "M2.5 3h11v10h-11zM6.2 3v10M9.8 3v10",
  layers: "M8 2.5 14 5.8 8 9.1 2 5.8ZM2.5 8.8 8 11.8l5.5-3M2.5 11.4 8 14.2l5.5-2.8",
  chart: "M2.5 2.5v11h11M4.5 10.5 7.5 7l2 2 4-5",
};

export function icon(name) {
  return svg(
    "svg",
    { viewBox: "0 0 16 16", width: 16, height: 16, class: "glyph", "aria-hidden": "true" },
    svg("path", { d: ICONS[name] }),
  );
}

// A message that goes by itself; with an action it stays long enough to be reached by keyboard.
export function toast(text, { kind = "info", action = null, run = null, seconds = action ? 15 : 6 } = {}) {
  const close = () => box.remove();
  const box = h(
    "div",
    { class: `toast ${kind}`, role: kind === "error" ? "alert" : "status" },
    h("span", {}, text),
    action &&
      h(
        "button",
        {
          type: "button",
          class: "link",
          onclick: () => {
            close();
            run();
          },
        },
        action,
      ),
    h("button", { type: "button", class: "icon small", "aria-label": "Dismiss", onclick: close }, icon("close")),
  );
  const shown = [...$("toasts").children];
  if (kind === "error" && shown.some((item) => item.firstChild.textContent === text)) return;
  $("toasts").append(box);
  let timer = setTimeout(close, seconds * 1000);
  box.addEventListener("pointerenter", () => clearTimeout(timer));
  box.addEventListener("focusin", () => clearTimeout(timer));
  box.addEventListener("pointerleave", () => {
    timer = setTimeout(close, 3000);
  });
}

export function empty(title, text, ...actions) {
  return h(
    "div",
    { class: "empty" },
    h("h2", {}, title),
    h("p", {}, text),
    actions.length > 0 && h("div", { class: "row" }, actions),
  );
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast("Copied");
  } catch {
    // A page over plain http from another host has no clipboard.
    const box = h("textarea", { value: text });
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    toast(done ? "Copied" : "The browser did not allow copying: select the text instead", {
      kind: done ? "info" : "error",
    });
  }
}

export function debounce(call, wait) {
  let timer = 0;
  return (...rest) => {
    clearTimeout(timer);
    timer = setTimeout(() => call(...rest), wait);
  };
}

// At most once in `wait` milliseconds, however often it is asked for: what asks without a pause must not put it off.
export function paced(call, wait) {
  let timer = 0;
  return () => {
    timer ||= setTimeout(() => {
      timer = 0;
      call();
    }, wait);
  };
}
