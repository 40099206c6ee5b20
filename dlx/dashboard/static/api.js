// The server's answers. Every failure is an Error with one line for a person.

const query = (params) => {
  const result = new URLSearchParams();
  for (const [key, value] of Object.entries(params))
    for (const item of Array.isArray(value) ? value : [value]) result.append(key, item);
  return result.toString();
};

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The dashboard does not answer. Is `dlx dashboard` still running?", { cause: error });
  }
  if (answer.ok) return answer;
  let said = {};
  try {
    said = await answer.json();
  } catch {
    // Not from our server: the status says enough.
  }
  throw Object.assign(new Error(said.error ?? `${answer.status} ${answer.statusText}`), { answer: said });
}

const get = async (path, params = {}) => (await ask(`${path}?${query(params)}`)).json();

const post = async (path, body) =>
  (
    await ask(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    })
  ).json();

export const api = {
  runs: () => get("/api/runs"),
  filter: (where) => get("/api/filter", { where }),
  curves: (ids) => get("/api/curves", { runs: ids }),
  bands: (metric, x, groups) =>
    get("/api/bands", { metric, x, points: 500, group: groups.map((ids) => JSON.stringify(ids)) }),
  media: (ids) => get("/api/media", { runs: ids }),
  mediumText: async (url) => (await ask(url)).text(),
  mediumData: async (url) => (await ask(url)).json(),
  run: (id) => get("/api/run", { id }),
  log: (id, offset) => get("/api/log", { id, offset }),
  goals: (ids) => get("/api/goals", { runs: ids }),
  importance: (metric, ids) => get("/api/importance", { metric, runs: ids }),
  notes: (id, before, { tags, notes }) => post("/api/notes", { id, before, tags, notes }),
  trash: (ids) => post("/api/trash", { ids }),
  restore: (undo) => post("/api/restore", { undo }),
  series,
};

// Map of id -> {x, y, smooth | null}: float64 arrays. A run without the metric is absent.
async function series(metric, ids, { x, smooth, points = 1000 }) {
  const answer = await ask(`/api/series?${query({ metric, runs: ids, x, points, smooth })}`);
  const bytes = await answer.arrayBuffer();
  const length = new DataView(bytes).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
  const result = new Map();
  let at = 4 + length;
  const take = (n) => {
    const part = new Float64Array(bytes, at, n);
    at += 8 * n;
    return part;
  };
  for (const item of head.series)
    result.set(item.id, { x: take(item.n), y: take(item.n), smooth: item.smooth ? take(item.n) : null });
  return result;
}
