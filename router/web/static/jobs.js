// The jobs, newest first.

import { fill, h } from "./dom.js";
import { ago, moneyColumn, number } from "./figures.js";
import { watch } from "./live.js";
import { address, asked, board, empty, lane, select, state, table } from "./parts.js";

const STATES = ["queued", "running", "submitted", "succeeded", "failed", "cancelled"];
const TIMES = [["", "any time"], ["1h", "the last hour"], ["24h", "the last day"], ["7d", "the last week"], ["30d", "the last month"]];

export function jobs(main, { go }) {
  const args = asked();
  const states = h("nav.pills", { "aria-label": "State" });
  const place = h("div");
  const set = (name) => (value) => go(address({ [name]: value, after: "" }));
  const text = (name, label, hint) => h("label.field", {}, label,
    h("input", { type: "search", value: args[name] ?? "", placeholder: hint, onchange: (event) => set(name)(event.target.value.trim()) }));
  const filters = h("div.filters", { role: "search" }, text("model", "Model", "any"), text("error", "Error", "any code"),
    text("batch", "Batch", "any"), select("Submitted", args.since ?? "", TIMES, set("since")));
  fill(main, board("Jobs", null, states, filters, place));
  pills(states, args, null);
  return watch("jobs", args, place, (page) => {
    pills(states, args, page.counts);
    return list(page, args);
  });
}

function pills(place, args, counts) {
  const all = counts && Object.values(counts).reduce((sum, one) => sum + one, 0);
  const pill = (word, words, many) => h("a", { href: address({ state: word, after: "" }), "aria-current": (args.state ?? "") === word ? "true" : null },
    words, many ? [" ", h("span.num", {}, number(many))] : null);
  fill(place, pill("", "All", all), STATES.map((word) => pill(word, word, counts?.[word])));
}

function list(page, args) {
  if (!page.jobs.length) {
    return empty(args.state || args.model || args.error || args.batch || args.since ? "No job is like that." : "No jobs yet. ",
      h("a", { href: "/" }, "Ask something"), " or submit a file: ", h("code", {}, "shunter submit --file prompts.jsonl"));
  }
  const costs = moneyColumn(page.jobs.map((job) => job.cost_usd));
  const rows = page.jobs.map((job, n) => ({ ...job, cost: costs[n] }));
  const shown = table([
    { head: "Job", main: true, cell: (job) => h("a.mono", { href: `/jobs/${job.id}` }, job.id) },
    { head: "State", cell: (job) => h("span", {}, state(job.state), job.error ? h("span.faint", {}, ` ${job.error.code}`) : null) },
    { head: "Lane", cell: (job) => lane(job.lane, job.tier) },
    { head: "Class", cell: (job) => h("span.soft.whole", {}, job.class) },
    { head: "Model", cell: (job) => job.model },
    { head: "Key", cell: (job) => job.client_key && h("span.soft.clip", { title: job.client_key }, job.client_key) },
    { head: "Submitted", num: true, cell: (job) => h("time", { datetime: job.submitted_at, title: job.submitted_at }, ago(job.submitted_at)) },
    { head: "Cost", num: true, cell: (job) => job.cost },
  ].filter((column) => column.head !== "Key" || rows.some((job) => job.client_key)), rows, { label: "Jobs" });
  const newer = args.after && h("a.button", { href: address({ after: "" }) }, "Newest");
  const older = page.next && h("a.button", { href: address({ after: page.next }) }, "Older");
  return [shown, h("div.pages", {}, newer, older)];
}
