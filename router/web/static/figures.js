// Money, times and counts for people, in the words of the command line.

// "$0.000012", "$12.50"; what is not known is not 0.
export function money(usd) {
  return moneyColumn([usd])[0];
}

// Amounts of one column, with as many decimals as the one that needs most.
export function moneyColumn(amounts) {
  const known = amounts.filter((amount) => amount !== null && amount !== undefined).map(Number);
  const largest = Math.max(0, ...known.map(Math.abs));
  const most = largest < 10 ? 6 : largest < 1000 ? 4 : 2;
  const places = Math.max(2, ...known.map((value) => decimals(value, most)));
  return amounts.map((amount) => (amount === null || amount === undefined ? "unknown" : dollars(Number(amount), places)));
}

function decimals(value, most) {
  if (value !== 0 && Math.abs(value) < 0.5 * 10 ** -most) return most;
  return value.toFixed(most).replace(/0+$/, "").split(".")[1]?.length ?? 0;
}

function dollars(value, places) {
  if (value === 0) return "$0";
  if (Math.abs(value) < 0.5 * 10 ** -places) return `<$${(10 ** -places).toFixed(places)}`;
  const [whole, rest] = Math.abs(value).toFixed(places).split(".");
  return `${value < 0 ? "-" : ""}$${whole.replace(/\B(?=(\d{3})+$)/g, ",")}${rest ? `.${rest}` : ""}`;
}

// A length of time in at most two words: "450 ms", "3.2 s", "40 min", "5 h", "3 d".
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.9995) return `${Math.round(Math.max(seconds, 0) * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  for (const [limit, size, unit] of [[99.5, 1, "s"], [99.5 * 60, 60, "min"], [47.5 * 3600, 3600, "h"]]) {
    if (seconds < limit) return `${Math.round(seconds / size)} ${unit}`;
  }
  return `${Math.round(seconds / 86400)} d`;
}

export const milliseconds = (ms) => (ms === null || ms === undefined ? "–" : span(ms / 1000));

// "2 min ago", "in 3 h".
export function ago(iso, now = Date.now()) {
  if (!iso) return "–";
  const seconds = (new Date(iso) - now) / 1000;
  if (Math.abs(seconds) < 1) return "now";
  return seconds < 0 ? `${span(-seconds)} ago` : `in ${span(seconds)}`;
}

// "14:03", with the day where that is not today.
export function clock(iso) {
  if (!iso) return "–";
  const at = new Date(iso);
  const sameDay = at.toDateString() === new Date().toDateString();
  const day = sameDay ? {} : { day: "numeric", month: "short" };
  return at.toLocaleString(undefined, { ...day, hour: "2-digit", minute: "2-digit" });
}

export const number = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en-US"));

// "1 job", "2,000 jobs".
export const count = (value, word) => `${number(value)} ${word}${value === 1 ? "" : "s"}`;

// "batch → sync flex"
export function plan(steps) {
  return steps.map((step) => [step.lane, step.window, step.tier].filter((word) => word && word !== "default").join(" ")).join(" → ");
}
