// Provider batches: how far each is, when it may end, what it cost.

import { fill, h } from "./dom.js";
import { ago, clock, money, moneyColumn, number } from "./figures.js";
import { watch } from "./live.js";
import { address, asked, bar, board, empty, facts, state, table } from "./parts.js";

const KNOWN_BY = {
  pace: "by its own pace",
  history: "by what earlier ones of this model took",
  prior: "a guess: no such batch has ended here yet",
};

export function batches(main) {
  const args = asked();
  const place = h("div");
  const link = (lane, words) => h("a", { href: address({ lane }), "aria-current": (args.lane ?? "") === lane ? "true" : null }, words);
  fill(main, board("Batches", null, h("nav.pills", { "aria-label": "Lane" }, link("", "Batch API"), link("background", "Background")), place));
  return watch("batches", args, place, list);
}

const isOpen = (row) => row.state !== "imported";
const inAll = (row) => (row.cost_usd === null ? null : Number(row.cost_usd) + (isOpen(row) ? Number(row.expected_usd) : 0));

function list({ batches: rows }) {
  if (!rows.length) return empty("No batches yet. Work that can wait goes into them: ", h("code", {}, "shunter submit --file prompts.jsonl --deadline 8h"));
  const costs = moneyColumn(rows.map(inAll));
  return table([
    { head: "Batch", main: true, cell: (row) => h("a.mono", { href: `/batches/${row.id}` }, row.id) },
    { head: "State", cell: (row) => state(row.state) },
    { head: "Model", cell: (row) => row.model },
    { head: "Done", cell: (row) => progress(row) },
    { head: "Ends", num: true, cell: (row) => ago(row.ended_at ?? row.imported_at ?? row.eta_at) },
    { head: "Cost", num: true, cell: (row) => (isOpen(row) ? `~${row.cost}` : row.cost) },
    { head: "At the provider", cell: (row) => h("span.soft.mono.clip", { title: row.provider_batch_id }, row.status ?? "") },
  ], rows.map((row, n) => ({ ...row, cost: costs[n] })), { label: "Batches" });
}

function progress(row) {
  return h("div.progress", {}, bar(row.done, row.rows, { label: `${row.done} of ${row.rows} rows done`, kind: isOpen(row) ? "" : "over" }),
    h("span.num", {}, `${number(row.done)} of ${number(row.rows)}`));
}

export function batch(main, { id }) {
  const place = h("div");
  fill(main, board("Batch", h("a", { href: "/batches" }, "All batches"), place));
  return watch("batch", { id }, place, one);
}

function one(row) {
  const at = (iso) => iso && `${clock(iso)} (${ago(iso)})`;
  const held = Object.entries(row.jobs).filter(([, many]) => many).map(([word, many]) => `${number(many)} ${word}`).join(", ");
  return [
    h("div.lead", {}, state(row.state), h("strong.num", {}, `${number(row.done)} of ${number(row.rows)} rows`), h("span.num", {}, costs(row))),
    bar(row.done, row.rows, { label: "Rows done", kind: isOpen(row) ? "" : "over" }),
    row.error && h("p.note.bad", {}, row.error),
    facts([
      ["Id", h("span.mono", {}, row.id)],
      ["Model", `${row.model} at ${row.provider}`],
      ["There", [row.status, row.provider_batch_id].filter(Boolean).join(" ")],
      ["Jobs", held && h("a", { href: `/jobs?batch=${row.id}` }, held)],
      ["Packed", at(row.packed_at)],
      ["Sent", at(row.submitted_at)],
      ["May end", row.eta_at && `${at(row.eta_at)}, ${KNOWN_BY[row.eta_by]}`],
      ["Leave by", isOpen(row) && at(row.leave_by)],
      ["Next look", isOpen(row) && at(row.next_poll_at)],
      ["Runs out", !row.ended_at && at(row.expires_at)],
      ["Cancel asked", at(row.cancel_at)],
      ["Ended", at(row.ended_at)],
      ["Imported", at(row.imported_at)],
    ]),
  ];
}

function costs(row) {
  const parts = [isOpen(row) ? `${money(row.cost_usd)} so far` : money(row.cost_usd)];
  if (isOpen(row) && Number(row.expected_usd)) parts.push(`about ${money(row.expected_usd)} to come`);
  if (Number(row.at_risk_usd)) parts.push(`at most ${money(row.at_risk_usd)} at risk`);
  return parts.join(" · ");
}
