// Markdown shown as it comes: blocks that did not change since the last time keep their nodes.

import { h, iconButton, announce } from "./dom.js";
import { inline } from "./inline.js";

const DEEPEST = 8;
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(\s.*)?$/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( {1,4}|$)/;
const DELIMITERS = /^ {0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const INDENTED = /^(?: {4}|\t)/;

export class Markdown {
  #root;
  #shown = []; // {source, node}

  constructor(root) {
    this.#root = root;
  }

  show(text) {
    const blocks = parse(text.replace(/\r\n?/g, "\n").split("\n"));
    let same = 0;
    while (same < blocks.length && this.#shown[same]?.source === blocks[same].source) same++;
    for (const old of this.#shown.splice(same)) old.node.remove();
    for (const block of blocks.slice(same)) {
      const node = render(block, 0);
      this.#root.append(node);
      this.#shown.push({ source: block.source, node });
    }
  }
}

// ---- blocks ----

// The lines as blocks: {kind, source, …}.
function parse(lines) {
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    if (lines[at].trim() === "") {
      at++;
      continue;
    }
    const [block, end] = block_(lines, at);
    blocks.push({ ...block, source: lines.slice(at, end).join("\n") });
    at = end;
  }
  return blocks;
}

function block_(lines, at) {
  const line = lines[at];
  if (FENCE.test(line)) return fence(lines, at);
  if (INDENTED.test(line)) return indented(lines, at);
  const heading = HEADING.exec(line);
  if (heading) return [{ kind: "heading", level: heading[1].length, text: titled(heading[2] ?? "") }, at + 1];
  if (RULE.test(line)) return [{ kind: "rule" }, at + 1];
  if (QUOTE.test(line)) return quote(lines, at);
  if (ITEM.test(line)) return list(lines, at);
  if (isTable(lines, at)) return table(lines, at);
  return paragraph(lines, at);
}

// The words of a heading, without the signs that may close it.
function titled(words) {
  const whole = words.trim();
  let end = whole.length;
  while (whole[end - 1] === "#") end--;
  return end === 0 || /\s/.test(whole[end - 1]) ? whole.slice(0, end).trimEnd() : whole;
}

function fence(lines, at) {
  const [, marks, info] = FENCE.exec(lines[at]);
  const indent = /^ */.exec(lines[at])[0].length;
  const ends = new RegExp(`^ {0,3}${marks[0]}{${marks.length},}\\s*$`);
  let end = at + 1;
  while (end < lines.length && !ends.test(lines[end])) end++;
  const words = lines.slice(at + 1, end).map((line) => line.replace(new RegExp(`^ {0,${indent}}`), ""));
  const closed = end < lines.length;
  return [{ kind: "code", language: info.trim().split(/\s/)[0], text: words.join("\n"), closed }, end + (closed ? 1 : 0)];
}

function indented(lines, at) {
  let end = at;
  while (end < lines.length && (INDENTED.test(lines[end]) || lines[end].trim() === "")) end++;
  while (lines[end - 1].trim() === "") end--;
  return [{ kind: "code", language: "", text: lines.slice(at, end).map((line) => line.replace(INDENTED, "")).join("\n") }, end];
}

function quote(lines, at) {
  let end = at;
  while (end < lines.length && (QUOTE.test(lines[end]) || goesOn(lines, end))) end++;
  return [{ kind: "quote", blocks: lines.slice(at, end).map((line) => line.replace(QUOTE, "")) }, end];
}

// A paragraph goes on in a line that begins nothing else.
function goesOn(lines, at) {
  const line = lines[at];
  const begins = FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) || ITEM.test(line);
  return line.trim() !== "" && !begins;
}

function list(lines, at) {
  const first = ITEM.exec(lines[at])[2];
  const ordered = /\d/.test(first);
  const sign = first.at(-1);
  const items = [];
  let loose = false;
  let end = at;
  while (end < lines.length) {
    const found = ITEM.exec(lines[end]);
    if (!found || found[2].at(-1) !== sign || /\d/.test(found[2]) !== ordered || RULE.test(lines[end])) break;
    const [item, next, spaced] = itemAt(lines, end, found[0].length + (found[3] ? 0 : 1));
    items.push(item);
    loose ||= spaced && items.length > 0 && ITEM.test(lines[next] ?? "");
    end = next;
  }
  return [{ kind: "list", ordered, start: ordered ? parseInt(first, 10) : 1, items, loose }, end];
}

// The lines of one item without their indent, where the next begins, and whether blank lines came before that.
function itemAt(lines, at, width) {
  const indent = new RegExp(`^(?: {1,${width}}|\\t)`);
  const deeper = new RegExp(`^(?: {${Math.min(width, 2)},}|\\t)`);
  const item = [lines[at].slice(width)];
  let end = at + 1;
  let blank = 0;
  for (; end < lines.length; end++) {
    const line = lines[end];
    if (line.trim() === "") blank++;
    else if (deeper.test(line) || (!blank && goesOn(lines, end))) {
      item.push(...Array(blank).fill(""), line.replace(indent, ""));
      blank = 0;
    } else break;
  }
  return [item, end, blank > 0];
}

function isTable(lines, at) {
  const next = lines[at + 1] ?? "";
  if (!lines[at].includes("|") || !next.includes("-") || !DELIMITERS.test(next)) return false;
  return cells(lines[at]).length === cells(next).length;
}

function table(lines, at) {
  const aligns = cells(lines[at + 1]).map((cell) => (/^:-+:$/.test(cell) ? "center" : cell.endsWith(":") ? "right" : ""));
  let end = at + 2;
  while (end < lines.length && lines[end].includes("|") && goesOn(lines, end)) end++;
  return [{ kind: "table", aligns, rows: [lines[at], ...lines.slice(at + 2, end)].map(cells) }, end];
}

function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1");
  return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function paragraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && goesOn(lines, end) && !isTable(lines, end)) end++;
  return [{ kind: "paragraph", text: lines.slice(at, end).map((line) => line.trimStart()).join("\n") }, end];
}

// ---- as nodes ----

const SHOWN = {
  heading: (block) => h(`h${Math.min(block.level + 2, 6)}.md-h${block.level}`, {}, inline(block.text)),
  rule: () => h("hr"),
  code: (block) => codeBlock(block),
  quote: (block, depth) => h("blockquote", {}, inside(block.blocks, depth)),
  list: listNode,
  table: tableNode,
  paragraph: (block) => h("p", {}, inline(block.text.trimEnd())),
};

const render = (block, depth) => SHOWN[block.kind](block, depth);

function inside(lines, depth) {
  if (depth >= DEEPEST) return [h("p", {}, lines.join("\n"))];
  return parse(lines).map((block) => render(block, depth + 1));
}

function listNode(block, depth) {
  const items = block.items.map((lines) => {
    const task = /^\[([ xX])\]\s+/.exec(lines[0]);
    const rest = task ? [lines[0].slice(task[0].length), ...lines.slice(1)] : lines;
    const box = task && h("input", { type: "checkbox", disabled: true, checked: task[1] !== " ", "aria-label": "task" });
    const nodes = inside(rest, depth);
    if (!block.loose && nodes[0]?.tagName === "P") nodes.splice(0, 1, ...nodes[0].childNodes);
    return h(task ? "li.task" : "li", {}, box, nodes);
  });
  return block.ordered ? h("ol", { start: block.start === 1 ? null : block.start }, items) : h("ul", {}, items);
}

function tableNode(block) {
  const cell = (tag, words, n) => h(tag, { class: block.aligns[n] ? `to-${block.aligns[n]}` : null }, inline(words ?? ""));
  const [head, ...rows] = block.rows;
  const body = rows.map((row) => h("tr", {}, head.map((_, n) => cell("td", row[n], n))));
  const whole = h("table", {}, h("thead", {}, h("tr", {}, head.map((words, n) => cell("th", words, n)))), h("tbody", {}, body));
  return h("div.md-table", { tabindex: 0, role: "region", "aria-label": "table" }, whole);
}

function codeBlock(block) {
  const copy = iconButton("copy", "Copy the code", () => copied(block.text), { class: "icon-button md-copy" });
  const top = h("figcaption", {}, h("span", {}, block.language || "text"), copy);
  return h("figure.md-code", {}, top, h("pre", { tabindex: 0 }, h("code", {}, block.text)));
}

export async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    announce("Copied");
    return true;
  } catch {
    announce("The browser does not let this page copy");
    return false;
  }
}
