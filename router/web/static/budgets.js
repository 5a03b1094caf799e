// Budgets: what may be spent, what is, and what is set aside.

import { fill, h } from "./dom.js";
import { ago, count, money } from "./figures.js";
import { watch } from "./live.js";
import { bar, board, empty } from "./parts.js";

export function budgets(main) {
  const place = h("div");
  fill(main, board("Budgets", h("a", { href: "/reports/cost" }, "What was paid"), place));
  return watch("budgets", {}, place, draw);
}

function draw({ budgets: rows, waiting_jobs: waiting }) {
  if (!rows.length) return empty("No budgets. One is set by ", h("code", {}, "shunter budget set daily --usd 5 --per day"));
  const held = waiting > 0 && h("p.note.warn", {}, `${count(waiting, "job")} wait for room. `, h("code", {}, "shunter budget set NAME --usd N"), " makes some.");
  return [held, h("div.cards", {}, rows.map(card))];
}

function card(row) {
  const per = row.per === "total" ? "in all" : `a ${row.per}`;
  const over = Math.max(-Number(row.left_usd), 0);
  const part = (words, usd, kind) => h("div", {}, h("dt", { class: kind ?? null }, words), h("dd.num", {}, money(usd)));
  return h("article.card", { class: row.nearly_used ? "card nearly" : "card" },
    h("header", {}, h("h2", {}, row.name), h("span.soft", {}, row.tag ?? "everything")),
    h("p.big.num", {}, money(over || row.left_usd), h("small", {}, `${over ? " over" : " left of"} ${money(row.limit_usd)} ${per}`)),
    bar(Number(row.spent_usd), Number(row.limit_usd), { label: `${row.name}: spent`, aside: Number(row.reserved_usd), kind: row.nearly_used ? "nearly" : "" }),
    h("dl.row", {}, part("spent", row.spent_usd, "key-done"), part("set aside", row.reserved_usd, "key-aside"),
      row.ends_at ? h("div", {}, h("dt", {}, "begins anew"), h("dd", {}, `${ago(row.ends_at)}`)) : null),
    row.nearly_used ? h("p.soft", {}, gone(row, over)) : null);
}

function gone(row, over) {
  if (over) return `Over its limit by ${money(over)}: nothing more fits.`;
  return Number(row.left_usd) === 0 ? "Used up: all of it is spent or set aside." : "More than 80% is spent or set aside.";
}
