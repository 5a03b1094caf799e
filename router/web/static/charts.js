// Charts, drawn as SVG as wide as their place. What they show is in the table beside them as well.

import { fill, h, s } from "./dom.js";
import { money, span } from "./figures.js";

const LEFT = 62;
const RIGHT = 8;
const BOTTOM = 26;
const TOP = 8;
const WIDEST_BAR = 44;

// A figure that is drawn anew for every width: draw(width) is an SVG.
function figure(label, draw, legend = null) {
  const place = h("div");
  new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width > 0) fill(place, draw(width));
  }).observe(place);
  return h("figure.chart", { "aria-label": label }, legend, place);
}

const svg = (width, height, label, ...inside) => s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, inside);

const key = (names) => h("figcaption.legend", {}, names.map(([name, words]) => h(`span.key.${name}`, {}, words)));

// ---- columns ----

// Money by day or hour: parts on top of each other, and behind them, where there is one, what it would have been.
// times: [{at, parts: {name: dollars}, behind: dollars?}], names: [[name, words]].
export function columns(label, times, names) {
  const tops = times.map((one) => Math.max(one.behind ?? 0, Object.values(one.parts).reduce((sum, part) => sum + part, 0)));
  const ticks = nice(Math.max(...tops));
  return figure(label, (width) => drawColumns(label, width, times, names, ticks), key(names));
}

function drawColumns(label, width, times, names, ticks) {
  const height = 240;
  const highest = ticks.at(-1);
  const y = (value) => TOP + (height - TOP - BOTTOM) * (1 - value / highest);
  const step = (width - LEFT - RIGHT) / times.length;
  const thick = Math.max(Math.min(step * 0.66, WIDEST_BAR), 2);
  const box = (name, x, from, to, title) =>
    s(`rect.fill.${name}`, { x, y: y(to), width: thick, height: Math.max(y(from) - y(to), to > from ? 1 : 0), rx: 2 }, s("title", {}, title));
  const bars = times.map((one, n) => {
    const x = LEFT + n * step + (step - thick) / 2;
    let base = 0;
    const parts = names.filter(([name]) => one.parts[name]).map(([name, words]) => {
      base += one.parts[name];
      return box(name, x, base - one.parts[name], base, `${one.at}, ${words}: ${money(String(one.parts[name]))}`);
    });
    const behind = one.behind === undefined ? [] : [box("behind", x, 0, one.behind, `${one.at}, as plain calls: ${money(String(one.behind))}`)];
    return [...behind, ...parts];
  });
  const every = Math.max(1, Math.ceil(56 / step));
  const labels = times.map((one, n) => (times.length - 1 - n) % every === 0 && s("text", { x: LEFT + (n + 0.5) * step, y: height - 7, "text-anchor": "middle" }, short(one.at)));
  const lines = ticks.map((tick) => [s("line.grid", { x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }),
    s("text", { x: LEFT - 10, y: y(tick) + 4, "text-anchor": "end" }, axis(tick, highest))]);
  return svg(width, height, label, lines, bars, labels);
}

// "Nov 23" of a day, "14:00" of an hour.
function short(at) {
  if (at.length > 10) return new Date(at).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  return new Date(`${at}T12:00:00Z`).toLocaleDateString(undefined, { day: "numeric", month: "short", timeZone: "UTC" });
}

// Round numbers from 0 to above the highest.
function nice(highest) {
  if (!(highest > 0)) return [0, 1];
  const rough = highest / 3;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((times) => times * size).find((one) => one >= rough * 0.999);
  return Array.from({ length: Math.ceil(highest / step - 1e-9) + 1 }, (_, n) => n * step);
}

function axis(value, highest) {
  if (value === 0) return "$0";
  const places = highest >= 100 ? 0 : Math.max(2, Math.min(6, 1 - Math.floor(Math.log10(highest))));
  return `$${value.toFixed(places).replace(/(\.\d\d.*?)0+$/, "$1")}`;
}

// All days, or hours, between the first and the last of the rows: one without anything is one, too. At most the last `most`.
export function moments(rows, by, most = 60) {
  const known = [...new Set(rows.map((row) => row[by]))].filter(Boolean).sort();
  if (!known.length) return [];
  const [step, written] = by === "hour" ? [3_600_000, 16] : [86_400_000, 10];
  const found = [];
  for (let at = Date.parse(known[0]); at <= Date.parse(known.at(-1)); at += step) {
    found.push(`${new Date(at).toISOString().slice(0, written)}${by === "hour" ? "Z" : ""}`);
  }
  return found.slice(-most);
}

// ---- ranges ----

// Times, each from its half to 99 of 100, on one logarithmic axis. rows: [{name, words, spread: {p50, p95, p99}}] in seconds.
export function ranges(label, rows) {
  return figure(label, (width) => drawRanges(label, width, rows));
}

function drawRanges(label, width, rows) {
  const narrow = width < 620; // then the names stand above their lines
  const left = narrow ? 14 : 230;
  const row = narrow ? 48 : 34;
  const height = TOP + rows.length * row + BOTTOM;
  const all = rows.flatMap(({ spread }) => [spread.p50, spread.p99]).map((value) => Math.max(value, 0.001));
  const [low, high] = [Math.floor(Math.log10(Math.min(...all))), Math.ceil(Math.log10(Math.max(...all) * 1.0001))];
  const x = (seconds) => left + ((Math.log10(Math.max(seconds, 0.001)) - low) / Math.max(high - low, 1)) * (width - left - RIGHT - 26);
  const ticks = Array.from({ length: Math.max(high - low, 1) + 1 }, (_, n) => 10 ** (low + n));
  const grid = ticks.map((tick) => [s("line.grid", { x1: x(tick), x2: x(tick), y1: TOP, y2: height - BOTTOM }),
    s("text", { x: x(tick), y: height - 7, "text-anchor": "middle" }, span(tick).replace(".0", ""))]);
  const drawn = rows.map(({ name, words, spread }, n) => {
    const y = TOP + n * row + (narrow ? row - 12 : row / 2);
    const title = s("title", {}, `${words}: half within ${span(spread.p50)}, 95 of 100 within ${span(spread.p95)}, 99 within ${span(spread.p99)}`);
    return s("g", {}, title, s("text.name", { x: 0, y: narrow ? y - 16 : y + 4 }, words),
      s(`line.range.${name}`, { x1: x(spread.p50), x2: x(spread.p99), y1: y, y2: y }),
      s(`circle.ring.${name}`, { cx: x(spread.p95), cy: y, r: 6.5 }),
      s(`circle.fill.${name}`, { cx: x(spread.p50), cy: y, r: 4.5 }));
  });
  return svg(width, height, label, grid, drawn);
}
