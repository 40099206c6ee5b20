// Which runs are selected, and what is done with them.

import { api } from "./api.js";
import { toast } from "./dom.js";
import { apply, applyAll, runs } from "./store.js";
import { state, update } from "./state.js";

export const selected = () => state().sel.filter((id) => runs.has(id));

export const selectedRuns = () => selected().map((id) => runs.get(id));

export function setSelected(ids, patch = {}) {
  update({ sel: [...new Set(ids)], ...patch });
}

// All of a row's runs, or none of them when all are selected already.
export function toggleSelected(ids) {
  const now = new Set(state().sel);
  const drop = ids.every((id) => now.has(id));
  for (const id of ids) drop ? now.delete(id) : now.add(id);
  setSelected(now);
}

// To the trash, with a way back. A plan goes with its members.
export async function trash(ids) {
  const before = state();
  try {
    const answer = await api.trash(ids);
    apply({ runs: [], gone: answer.gone });
    const gone = new Set(answer.gone);
    update({ sel: before.sel.filter((id) => !gone.has(id)), run: gone.has(before.run) ? "" : before.run });
    toast(ids.length === 1 ? `Moved ${name(ids[0])} to the trash` : `Moved ${ids.length} runs to the trash`, {
      action: "Undo",
      run: () => restore(answer.undo, before),
    });
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
}

async function restore(undo, before) {
  try {
    await api.restore(undo);
    applyAll(await api.runs());
    update({ sel: before.sel, run: before.run });
    toast("Restored");
  } catch (error) {
    toast(error.message, { kind: "error" });
  }
}

const name = (id) => id.split("/").at(-1);
