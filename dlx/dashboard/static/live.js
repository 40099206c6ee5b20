// News from the server while trainings run; a lost connection is shown and tried again.

import { api } from "./api.js";
import { $ } from "./dom.js";
import { apply, applyAll } from "./store.js";

const TEXT = { connecting: "Connecting", live: "Live", lost: "Connection lost, trying again" };
let source = null;
let lost = false;
let wait = 1000;

function show(name) {
  $("live").dataset.state = name;
  $("live").title = TEXT[name];
  $("live").lastElementChild.textContent = TEXT[name];
}

// onrows(ids): these runs wrote new figures. onback(): after a gap, whatever is shown may be old.
export function connect(onrows, onback) {
  source = new EventSource("/api/live");
  source.addEventListener("open", async () => {
    wait = 1000;
    if (lost) {
      try {
        applyAll(await api.runs());
        onback();
      } catch {
        return; // It went away again: the next opening asks anew.
      }
    }
    lost = false;
    show("live");
  });
  source.addEventListener("runs", (event) => apply(JSON.parse(event.data)));
  source.addEventListener("rows", (event) => onrows(JSON.parse(event.data).runs));
  source.addEventListener("error", () => {
    lost = true;
    show("lost");
    source.close();
    setTimeout(() => connect(onrows, onback), wait);
    wait = Math.min(wait * 1.5, 10000);
  });
}

addEventListener("pagehide", () => source?.close());
