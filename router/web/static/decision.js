// Why a request goes the way it goes, and every road that was not taken.

import { h } from "./dom.js";
import { clock, moneyColumn, money, number, plan, span } from "./figures.js";
import { facts, table } from "./parts.js";

// A decision in its JSON form; times are counted from `since`.
export function decision(value, since) {
  const tokens = value.expected_output_tokens;
  return h("section.decision", {}, h("p.why", {}, value.reason), options(value, since), facts([
    ["Class", value.class],
    ["Rule", value.policy ? `${value.rule}, policy ${value.policy}` : value.rule],
    ["Request", sent(value.rests_on)],
    ["Answer", `about ${number(tokens.p50)} tokens, 9 of 10 times at most ${number(tokens.p90)}`],
    ["Cost", value.cost_usd === null ? "unknown" : `about ${money(value.cost_usd)}`],
    ["Done by", clock(value.finish_by)],
    ["Rests on", grounds(value.rests_on)],
  ]));
}

function options(value, since) {
  const costs = moneyColumn(value.options.map((option) => option.cost_usd));
  const from = new Date(since);
  const after = (time) => span((new Date(time) - from) / 1000);
  const rows = value.options.map((option, n) => ({ ...option, cost: costs[n], taken: same(option.plan, value.plan) }));
  const made = table([
    { head: "Plan", main: true, cell: (option) => h("span", { class: option.taken ? "taken" : option.feasible ? null : "faint" }, plan(option.plan)) },
    { head: "Cost", num: true, cell: (option) => option.cost },
    { head: "Half done in", num: true, cell: (option) => after(option.finish_p50) },
    { head: "19 of 20 in", num: true, cell: (option) => after(option.finish_p95) },
    { head: "Taken", cell: (option) => h("span.soft", {}, verdict(option)) },
  ], rows, { label: "Roads" });
  made.querySelectorAll("tbody tr").forEach((row, n) => row.classList.toggle("taken-row", rows[n].taken));
  return made;
}

function verdict({ taken, why_not: why }) {
  if (!taken) return why ? `no: ${why}` : "no";
  return why ? `yes, though ${why}` : "yes";
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

function sent(rests) {
  if (!rests) return null;
  const { input_tokens: many, counted_with: vocabulary, counted_whole: whole } = rests;
  const tokens = `${number(many)} ${many === 1 ? "token" : "tokens"}`;
  if (!vocabulary) return `about ${tokens}, estimated`;
  return whole ? `${tokens}, counted with ${vocabulary}` : `about ${tokens}, its beginning counted with ${vocabulary}`;
}

function grounds(rests) {
  if (!rests) return null;
  const seen = [[rests.batches_seen, "batch", "batches"], [rests.calls_seen, "call", "calls"]]
    .filter(([many]) => many).map(([many, one, more]) => `${number(many)} ${many === 1 ? one : more}`);
  if (!seen.length) return "what the policy assumes: nothing of this kind was seen here yet";
  return `${seen.join(" and ")} seen here, and what the policy assumes`;
}
