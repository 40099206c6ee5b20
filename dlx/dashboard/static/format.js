// Values as text.

export function number(value) {
  if (typeof value !== "number") return text(value);
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (Number.isInteger(value) && size < 1e7) return minus(value.toLocaleString("en-US").replaceAll(",", "\u2009"));
  if (size >= 1e7 || size < 1e-3)
    return minus(
      value
        .toExponential(2)
        .replace(/\.?0+e/, "e")
        .replace("e+", "e"),
    );
  if (size < 100) return minus(value.toFixed(4));
  return minus(
    value.toLocaleString("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 }).replaceAll(",", "\u2009"),
  );
}

const minus = (shown) => shown.replace(/-/g, "−");

// How many values there are; nothing where there are none.
export const valuesOf = (count) => (count === 0 ? "" : `${count} ${count === 1 ? "value" : "values"}`);

// A setting, as one would write it: 0.001 stays 0.001, however small its digits.
export function text(value) {
  if (value === null || value === undefined) return "";
  return String(value);
}

// The same where there is little room: what a search drew has sixteen digits.
export function brief(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return text(value);
  const rounded = String(Number(value.toPrecision(4)));
  return String(value).length > rounded.length + 2 ? rounded : String(value);
}

export function spread(values) {
  const found = values.filter((value) => Number.isFinite(value));
  if (found.length === 0) return "";
  const mean = found.reduce((sum, value) => sum + value, 0) / found.length;
  if (found.length === 1) return number(mean);
  const std = Math.sqrt(found.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (found.length - 1));
  const rounding = std < 1e-12 * Math.abs(mean); // equal values, added up
  return `${number(mean)} ± ${rounding ? 0 : number(std)}`;
}

export function when(seconds) {
  const date = new Date(seconds * 1000);
  const two = (value) => String(value).padStart(2, "0");
  const day =
    date.getFullYear() === new Date().getFullYear()
      ? `${two(date.getMonth() + 1)}-${two(date.getDate())}`
      : `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

export const full = (seconds) => new Date(seconds * 1000).toLocaleString();

// RFC 4180. A spreadsheet runs cells that begin with = + - @ as formulas: text that does gets a ' before it.
export function csv(rows) {
  const cell = (value) => {
    let shown = value === null || value === undefined ? "" : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(shown)) shown = `'${shown}`;
    return /[",\n\r]/.test(shown) ? `"${shown.replaceAll('"', '""')}"` : shown;
  };
  return rows.map((row) => row.map(cell).join()).join("\r\n") + "\r\n";
}
