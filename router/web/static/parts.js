// What the boards are made of.

import { h } from "./dom.js";

// A board: its heading, what is beside it, and what is below.
export function board(title, beside, ...below) {
  return h("div.board", {}, h("div.inner", {}, h("div.head", {}, h("h1", {}, title), h("div.beside", {}, beside)), below));
}

// A table whose rows become cards on a phone. Columns: {head, cell(row), num, main}.
export function table(given, rows, { label, foot } = {}) {
  const columns = given.map((column) => ({ ...column, head: title(column.head) }));
  const cell = (tag) => (column, content) =>
    h(tag, { class: [column.num && "num to-right", column.main && "main"].filter(Boolean).join(" ") || null, "data-head": column.head || null }, content);
  const head = columns.map((column) => h("th", { scope: "col", class: column.num ? "to-right" : null }, column.head));
  const body = rows.map((row) => h("tr", {}, columns.map((column) => cell("td")(column, column.cell(row)))));
  const last = foot && h("tfoot", {}, h("tr", {}, columns.map((column, n) => cell("td")(column, foot[n]))));
  return h("div.table", {}, h("table", { "aria-label": label }, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body), last));
}

// Words begin with a capital; names such as p50 and tag:project stay as they are.
const title = (words) => (/^[a-z ]+$/.test(words ?? "") ? words[0].toUpperCase() + words.slice(1) : words);

export const state = (word) => h(`span.state.${word}`, {}, word);

export const lane = (word, tier = "default") => h(`span.lane.${word}`, {}, tier && tier !== "default" ? `${word} ${tier}` : word);

// Names and values; what has none is left out.
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  return h("dl.facts", {}, known.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

// How far something is. The second part, where there is one, is what is set aside.
export function bar(done, whole, { label, kind = "", aside = 0 } = {}) {
  const share = (part) => (whole > 0 ? Math.min(Math.max(part / whole, 0), 1) * 100 : 0);
  const parts = [[done, "done"], [aside, "aside"]].map(([part, name]) => {
    const element = h(`span.${name}`);
    element.style.width = `${share(part)}%`;
    return element;
  });
  return h(`div.bar ${kind}`.trim().replace(" ", "."), { role: "progressbar", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100,
    "aria-valuenow": Math.round(share(done)) }, parts);
}

export function select(label, value, options, onchange) {
  const made = options.map(([key, words]) => h("option", { value: key, selected: key === value }, words));
  return h("label.field", {}, label, h("select", { onchange: (event) => onchange(event.target.value) }, made));
}

export const empty = (words, ...more) => h("p.empty", {}, words, more);

// The address of this page with other values in its query.
export function address(values) {
  const given = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value) given.set(name, value);
    else given.delete(name);
  }
  return given.size ? `${location.pathname}?${given}` : location.pathname;
}

export const asked = () => Object.fromEntries(new URLSearchParams(location.search));
