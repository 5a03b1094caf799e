// What it cost, how long it took, and what routing saved.

import { columns, moments, ranges } from "./charts.js";
import { fill, h } from "./dom.js";
import { count, money, moneyColumn, number, span } from "./figures.js";
import { watch } from "./live.js";
import { address, asked, board, empty, lane, select, state, table } from "./parts.js";

const KINDS = [["cost", "Cost"], ["latency", "Latency"], ["savings", "Savings"], ["errors", "Errors"]];
const TIMES = [["24h", "the last day"], ["7d", "the last week"], ["30d", "the last month"], ["", "all time"]];
const GROUPS = [["lane", "lane"], ["model", "model"], ["lane,model", "lane and model"], ["class", "class"], ["provider", "provider"], ["tier", "tier"], ["day", "day"], ["hour", "hour"]];
const LANES = [["stream", "stream"], ["sync", "sync"], ["background", "background"], ["batch", "batch"]];
const MEASURES = [ // as the command line names them, and the unit in seconds
  ["first_token_ms", "first token", 0.001], ["gap_ms", "between tokens", 0.001], ["call_ms", "whole call", 0.001],
  ["wait_s", "wait to be sent", 1], ["turnaround_s", "submit to answer", 1], ["batch_s", "row of a batch", 1],
];
const DRAWN = { cost, latency, savings, errors };

export function reports(main, { id: kind, go }) {
  const args = { by: "lane", ...asked() };
  const place = h("div");
  const kinds = h("nav.pills", { "aria-label": "Reports" }, KINDS.map(([name, words]) =>
    h("a", { href: `/reports/${name}${location.search}`, "aria-current": name === kind ? "true" : null }, words)));
  const set = (name) => (value) => go(address({ [name]: value }));
  const groups = GROUPS.some(([key]) => key === args.by) ? GROUPS : [...GROUPS, [args.by, args.by]];
  const tag = h("label.field", {}, "Tag", h("input", { type: "search", placeholder: "e.g. project", value: args.by.startsWith("tag:") ? args.by.slice(4) : "",
    onchange: (event) => go(address({ by: event.target.value.trim() && `tag:${event.target.value.trim()}` })) }));
  const filters = h("div.filters", {}, select("By", args.by, groups, set("by")), tag, select("In", args.since ?? "", TIMES, set("since")));
  fill(main, board("Reports", null, kinds, filters, place));
  return watch(kind, args, place, (value) => (value.rows.length ? DRAWN[kind](value, args.by.split(",")) : nothing(value)));
}

function nothing({ of_attempts: whole }) {
  return empty(whole ? `All of ${count(whole, "attempt")} brought an answer.` : "Nothing was sent in this time.");
}

const keys = (by) => by.map((word) => ({ head: word, main: word === by[0], cell: (row) => (row[word] === null ? "–" : word === "lane" ? lane(row[word]) : row[word]) }));

const totals = (by) => ["all", ...by.slice(1).map(() => "")];

// ---- cost ----

function cost(value, by) {
  const costs = moneyColumn([...value.rows.map((row) => row.cost_usd), value.total_usd]);
  const sum = (name) => number(value.rows.reduce((total, row) => total + row[name], 0));
  const shown = table([
    ...keys(by),
    { head: "jobs", num: true, cell: (row) => number(row.jobs) },
    { head: "attempts", num: true, cell: (row) => number(row.attempts) },
    { head: "tokens in", num: true, cell: (row) => number(row.input_tokens) },
    { head: "tokens out", num: true, cell: (row) => number(row.output_tokens) },
    { head: "cost", num: true, cell: (row) => row.cost },
    ...(value.unknown_attempts ? [{ head: "unknown", num: true, cell: (row) => number(row.unknown_attempts) }] : []),
  ], value.rows.map((row, n) => ({ ...row, cost: costs[n] })), {
    label: "Cost",
    foot: [...totals(by), sum("jobs"), sum("attempts"), sum("input_tokens"), sum("output_tokens"), costs.at(-1), ...(value.unknown_attempts ? [number(value.unknown_attempts)] : [])],
  });
  return [headline(money(value.total_usd), "paid"), unknown(value), overTime("Cost over time, by lane", value.over_time), shown];
}

const headline = (big, words) => h("p.headline", {}, h("strong.num", {}, big), " ", h("span", {}, words));

function unknown(value) {
  if (!value.unknown_attempts) return null;
  const open = value.open_attempts ? ` (${number(value.open_attempts)} still on their way)` : "";
  const risk = Number(value.at_risk_usd) ? `, up to ${money(value.at_risk_usd)} at risk` : "";
  return h("p.note.warn", {}, `${count(value.unknown_attempts, "attempt")} of unknown cost${open}${risk}.`);
}

function overTime(label, { by, rows }) {
  const times = moments(rows, by).map((at) => {
    const parts = rows.filter((row) => row[by] === at).map((row) => [row.lane, Number(row.cost_usd ?? 0)]);
    return { at, parts: Object.fromEntries(parts) };
  });
  const used = LANES.filter(([name]) => times.some((one) => one.parts[name]));
  return used.length ? columns(label, times, used) : null;
}

// ---- latency ----

function latency(value, by) {
  const rows = [...value.rows, ...(value.rows.length > 1 ? [{ ...value, all: true }] : [])];
  const lines = rows.flatMap((row) => MEASURES.filter(([name]) => row[name]).map(([name, words, unit]) => ({ row, words, unit, spread: row[name] })));
  const time = (part) => (line) => span(line.spread[part] * line.unit);
  const shown = table([
    ...by.map((word, n) => ({ head: word, main: n === 0, cell: ({ row }) => (row.all ? (n ? "" : "all") : word === "lane" && row[word] ? lane(row[word]) : row[word] ?? "–") })),
    { head: "time", cell: (line) => line.words },
    { head: "count", num: true, cell: (line) => number(line.spread.count) },
    ...["p50", "p90", "p95", "p99"].map((part) => ({ head: part, num: true, cell: time(part) })),
  ], lines, { label: "Latency" });
  const drawn = lines.filter(({ row }) => !row.all).slice(0, 24).map(({ row, words, unit, spread }) => ({
    name: row.lane ?? "plain",
    words: `${by.map((word) => row[word] ?? "–").join(" ")}, ${words}`,
    spread: { p50: spread.p50 * unit, p95: spread.p95 * unit, p99: spread.p99 * unit },
  }));
  const within = `Each within ${Number((value.relative_error * 100).toPrecision(3))} % of the exact percentile.`;
  const says = h("p.soft", {}, `A dot: half are done by then. A ring: 95 of 100. The end of the line: 99 of 100. ${within}`);
  return [drawn.length ? [ranges("Latency", drawn), says] : null, shown];
}

// ---- savings ----

function savings(value, by) {
  const rows = [...value.rows, value];
  const [paid, plain, saved] = ["paid_usd", "standard_usd", "saved_usd"].map((name) => moneyColumn(rows.map((row) => row[name])));
  const cells = (n) => ({ paid: paid[n], plain: plain[n], saved: saved[n], share: percent(rows[n].saved_percent) });
  const last = cells(rows.length - 1);
  const shown = table([
    ...keys(by),
    { head: "attempts", num: true, cell: (row) => number(row.attempts) },
    { head: "paid", num: true, cell: (row) => row.paid },
    { head: "as plain calls", num: true, cell: (row) => row.plain },
    { head: "saved", num: true, cell: (row) => row.saved },
    { head: "share", num: true, cell: (row) => row.share },
  ], value.rows.map((row, n) => ({ ...row, ...cells(n) })), {
    label: "Savings", foot: [...totals(by), number(value.attempts), last.paid, last.plain, last.saved, last.share],
  });
  const left = value.unknown_attempts > 0 && h("p.note.warn", {}, `${count(value.unknown_attempts, "attempt")} left out: cost or price unknown.`);
  const words = `saved, ${last.share} of what plain calls would have cost (${last.plain.trim()})`;
  return [headline(money(value.saved_usd), words), h("p.soft", {}, hindsight(value)), left, paidOverTime(value.over_time), shown];
}

function hindsight(value) {
  const missed = Number(value.paid_usd) - Number(value.best_usd);
  if (missed < 0.5e-9) return "In hindsight no lane that was used here would have been cheaper.";
  return `In hindsight, the cheapest lane that each class and model used would have made it ${money(value.best_usd)}, ${money(String(missed))} less.`;
}

const percent = (value) => (value === null ? "–" : `${value.toFixed(1)}%`);

function paidOverTime({ by, rows }) {
  const times = moments(rows, by).map((at) => {
    const row = rows.find((one) => one[by] === at);
    return { at, parts: { paid: Number(row?.paid_usd ?? 0) }, behind: Number(row?.standard_usd ?? 0) };
  });
  return times.length ? columns("Paid, and the same as plain calls", times, [["paid", "paid"], ["behind", "as plain calls"]]) : null;
}

// ---- errors ----

function errors(value, by) {
  const rows = [...value.rows, value];
  const [costs, risks] = ["cost_usd", "at_risk_usd"].map((name) => moneyColumn(rows.map((row) => row[name])));
  const shown = table([
    ...keys(by),
    { head: "error", cell: (row) => row.error ?? "–" },
    { head: "state", cell: (row) => state(row.state) },
    { head: "attempts", num: true, cell: (row) => number(row.attempts) },
    { head: "of all", num: true, cell: (row) => percent(row.percent) },
    { head: "cost", num: true, cell: (row) => row.cost },
    { head: "at risk", num: true, cell: (row) => row.risk },
  ], value.rows.map((row, n) => ({ ...row, cost: costs[n], risk: risks[n] })), {
    label: "Errors", foot: [...totals(by), "", "", number(value.attempts), percent(value.percent), costs.at(-1), risks.at(-1)],
  });
  const failed = value.jobs_failed.map(({ error, jobs }) => h("li", {}, h("a", { href: `/jobs?state=failed&error=${encodeURIComponent(error ?? "")}` },
    count(jobs, "job")), ` of ${error ?? "no cause that is known"}`));
  const lost = failed.length > 0 && [h("h2", {}, "Failed for good"), h("ul.plain", {}, failed)];
  return [headline(percent(value.percent), `of ${count(value.of_attempts, "attempt")} brought no usable answer`), shown, lost];
}
