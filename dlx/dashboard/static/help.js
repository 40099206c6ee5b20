// The sheet of keys.

import { $, fill, h, icon } from "./dom.js";

const KEYS = [
  [
    "Anywhere",
    [
      ["/", "Filter the runs"],
      ["1 … 5", "Curves, config, parameters, media, run"],
      ["?", "This sheet"],
      ["Esc", "Close, or clear the filter or the selection"],
    ],
  ],
  [
    "In the table",
    [
      ["↑ ↓", "Move"],
      ["Space", "Select or leave out"],
      ["Shift ↑ ↓", "Select a range"],
      ["Ctrl A", "Select all shown"],
      ["← →", "Fold or unfold a sweep or a group"],
      ["Enter", "Details of the run"],
      ["Delete", "Move the selected runs to the trash"],
    ],
  ],
  [
    "With the mouse",
    [
      ["Click", "Select this run"],
      ["Ctrl click", "Add or leave out"],
      ["Shift click", "Select a range"],
      ["Drag on a chart", "Zoom; double click goes back"],
    ],
  ],
  [
    "In a filter",
    [
      ["resnet 0.1", "Text that a run's name, settings, tags or notes contain"],
      ["val/accuracy > 0.9 and optimizer.lr <= 0.01", "Figures and settings by name"],
      ["status in (failed, diverged) or tag == baseline", "Also reason, name, plan and note"],
      ["not model ~ res", "What does not contain it"],
    ],
  ],
];

export function openHelp() {
  const box = $("help");
  if (box.open) return box.close();
  fill(
    box,
    h(
      "header",
      {},
      h("h2", { id: "help-title" }, "Keys and filters"),
      h("button", { type: "button", class: "icon", "aria-label": "Close", onclick: () => box.close() }, icon("close")),
    ),
    h(
      "div",
      { class: "keys" },
      KEYS.map(([title, rows]) =>
        h(
          "section",
          { class: title === "In a filter" ? "long" : "" },
          h("h3", {}, title),
          h(
            "dl",
            {},
            rows.map(([key, says]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, says))),
          ),
        ),
      ),
    ),
  );
  box.showModal();
}

$("help").addEventListener("click", (event) => event.target === $("help") && $("help").close());
