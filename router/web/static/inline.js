// The words inside a block of Markdown, as nodes. Every kind of mark is looked for once and in vain at most, so that no
// text takes more than about linear time.

import { h } from "./dom.js";

const DEEPEST = 12;
const ESCAPE = /\\([!-/:-@[-`{-~])/y;
const LINK = /!?\[((?:[^[\]\\]|\\.)*)\]\(\s*<?([^\s<>()]*(?:\([^\s<>()]*\)[^\s<>()]*)*)>?(?:\s+"[^"]*")?\s*\)/y;
const BRACED = /<((?:https?:\/\/|mailto:)[^\s<>]+)>/y;
const BARE = /https?:\/\/[^\s<>]+/y;
const AFTER = ".,:;!?'\"*_~`"; // what follows an address and is not of it
const TICKS = /`+/y;
const BREAK = /(?: {2,}|\\)\n/y;
const MARKS = [["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];
const WORD = /[\p{L}\p{N}_]/u;

// Nodes of the text. Links go to web and mail addresses only, and an image is a link to it: nothing loads by itself.
export function inline(text, depth = 0, links = true) {
  const nodes = [];
  const vain = new Set(); // marks that have no end in this text
  let plain = "";
  let at = 0;
  const flush = () => {
    if (plain) nodes.push(plain);
    plain = "";
  };
  while (at < text.length) {
    const found = depth < DEEPEST ? special(text, at, { depth, links, vain }) : null;
    if (!found) plain += text[at++];
    else if (typeof found.node === "string") plain += found.node;
    else {
      flush();
      nodes.push(found.node);
    }
    if (found) at = found.end;
  }
  flush();
  return nodes;
}

function special(text, at, inside) {
  switch (text[at]) {
    case "\\":
      return breakAt(text, at) ?? match(ESCAPE, text, at, ([, sign]) => sign);
    case " ":
      return breakAt(text, at);
    case "`":
      return code(text, at, inside.vain);
    case "!":
      return inside.links && text[at + 1] === "[" ? link(text, at, inside.depth) : null;
    case "[":
      return inside.links ? link(text, at, inside.depth) : null;
    case "<":
      return inside.links && match(BRACED, text, at, ([, url]) => anchor(url, [url.replace(/^mailto:/, "")]));
    case "h":
      return !inside.links || (at && WORD.test(text[at - 1])) ? null : bare(text, at);
    case "*":
    case "_":
    case "~":
      return marked(text, at, inside);
    default:
      return null;
  }
}

function match(pattern, text, at, made) {
  pattern.lastIndex = at;
  const found = pattern.exec(text);
  return found && { node: made(found), end: pattern.lastIndex };
}

const breakAt = (text, at) => match(BREAK, text, at, () => h("br"));

function code(text, at, vain) {
  TICKS.lastIndex = at;
  const ticks = TICKS.exec(text)[0];
  const from = at + ticks.length;
  if (!vain.has(ticks)) {
    for (let end = text.indexOf(ticks, from); end >= 0; ) {
      const run = runOf("`", text, end);
      if (run === ticks.length) {
        const words = text.slice(from, end).replaceAll("\n", " ");
        const padded = words.startsWith(" ") && words.endsWith(" ") && words.trim();
        const stripped = padded ? words.slice(1, -1) : words;
        return { node: h("code", {}, stripped), end: end + run };
      }
      end = text.indexOf(ticks, end + run);
    }
    vain.add(ticks);
  }
  return { node: ticks, end: from };
}

function runOf(sign, text, at) {
  let end = at;
  while (text[end] === sign) end++;
  return end - at;
}

function link(text, at, depth) {
  return match(LINK, text, at, ([whole, words, url]) => {
    if (!safe(url)) return whole;
    if (whole[0] === "!") return anchor(url, [`image: ${words || url}`], "image-link");
    return anchor(url, inline(words, depth + 1, false));
  });
}

function bare(text, at) {
  BARE.lastIndex = at;
  const found = BARE.exec(text);
  if (!found) return null;
  let url = found[0];
  while (AFTER.includes(url.at(-1)) || (url.endsWith(")") && !url.includes("("))) url = url.slice(0, -1);
  return { node: anchor(url, [url]), end: at + url.length };
}

const safe = (url) => /^(https?:\/\/|mailto:)/i.test(url);

function anchor(url, words, kind = "") {
  return h("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow", class: kind || null }, words);
}

function marked(text, at, { depth, links, vain }) {
  for (const [mark, tag] of MARKS) {
    if (!text.startsWith(mark, at) || vain.has(mark)) continue;
    const from = at + mark.length;
    if (from >= text.length || /\s/.test(text[from])) continue;
    if (mark[0] === "_" && at && WORD.test(text[at - 1])) continue;
    const end = closing(mark, text, from);
    if (end < 0) vain.add(mark);
    else return { node: h(tag, {}, inline(text.slice(from, end), depth + 1, links)), end: end + mark.length };
  }
  const run = runOf(text[at], text, at);
  return { node: text.slice(at, at + run), end: at + run };
}

// Where the mark ends what began before `from`; -1 when nowhere.
function closing(mark, text, from) {
  for (let end = text.indexOf(mark, from + 1); end >= 0; ) {
    const run = runOf(mark[0], text, end);
    const fits = mark.length === 2 ? run >= 2 : run !== 2;
    const inWord = mark[0] === "_" && end + run < text.length && WORD.test(text[end + run]);
    if (fits && !/\s/.test(text[end - 1]) && !inWord) return end + (mark.length === 2 ? run - 2 : run - 1);
    end = text.indexOf(mark, end + run);
  }
  return -1;
}
