// One job: how it was decided, each attempt with its cost, and its answer.

import { get, post } from "./api.js";
import { decision } from "./decision.js";
import { announce, fill, h } from "./dom.js";
import { ago, clock, milliseconds, money, moneyColumn, number } from "./figures.js";
import { Growing } from "./growing.js";
import { watch } from "./live.js";
import { Markdown, copied } from "./markdown.js";
import { board, facts, lane, state, table } from "./parts.js";

const OPEN = ["queued", "running", "submitted"];

export function job(main, { id }) {
  const place = h("div");
  const question = h("details.sent", {}, h("summary", {}, "The request as it was sent"), h("div"));
  question.addEventListener("toggle", () => sent(id, question.lastChild), { once: true });
  const growing = new Growing(id);
  fill(main, board("Job", h("a", { href: "/jobs" }, "All jobs"), place, growing.node, question));
  const leave = watch("job", { id }, place, (view) => {
    growing.see(view);
    return draw(view);
  });
  return () => {
    leave();
    growing.end();
  };
}

function draw(view) {
  const { error } = view;
  return [
    h("div.lead", {}, state(view.state), lane(view.lane, view.tier), h("span.soft", {}, view.class), h("strong.num", {}, view.cost_usd === null ? "cost unknown" : money(view.cost_usd)),
      OPEN.includes(view.state) ? h("button.button", { type: "button", onclick: (event) => cancel(view.id, event.target) }, "Cancel the job") : null),
    error && h("p.note.bad", {}, `${error.message} (${error.code})`),
    facts([
      ["Id", h("span.mono", {}, view.id)],
      ["Model", `${view.model} at ${view.provider}`],
      ["Key", view.client_key],
      ["Submitted", `${clock(view.submitted_at)} (${ago(view.submitted_at)})`],
      ["Deadline", view.deadline_at && `${clock(view.deadline_at)} (${ago(view.deadline_at)})`],
      ["Finished", view.finished_at && `${clock(view.finished_at)} (${ago(view.finished_at)})`],
      ["Batch", view.batch && h("a.mono", { href: `/batches/${view.batch}` }, view.batch)],
      ["Tags", Object.entries(view.tags).map(([key, value]) => `${key}=${value}`).join(", ")],
    ]),
    answer(view),
    h("h2", {}, "Why"), decision(view.decision, view.submitted_at),
    view.attempts.length ? [h("h2", {}, "Attempts"), attempts(view)] : null,
  ];
}

function answer(view) {
  if (view.text === null && !view.tool_calls?.length) return null;
  const words = h("div.prose");
  const text = view.text || view.refusal || "";
  if (isJson(text)) words.append(block(JSON.stringify(JSON.parse(text), null, 2)));
  else new Markdown(words).show(text);
  if (view.tool_calls?.length) words.append(block(JSON.stringify(view.tool_calls, null, 2)));
  const flags = ["truncated", "partial"].filter((word) => view[word]).join(", ");
  const copy = h("button.button.small", { type: "button", onclick: () => copied(text) }, "Copy");
  return [h("div.with-button", {}, h("h2", {}, flags ? `Answer (${flags})` : "Answer"), copy),
    h("div.paper", { tabindex: 0, role: "region", "aria-label": "Answer" }, words),
    view.output === null ? null : [h("h2", {}, "After post-processing"), h("div.paper.prose", {}, block(view.output))]];
}

const block = (text) => h("pre", { tabindex: 0 }, h("code", {}, text));

function isJson(text) {
  try {
    return typeof JSON.parse(text) === "object";
  } catch {
    return false;
  }
}

function attempts(view) {
  const costs = moneyColumn(view.attempts.map((one) => one.cost_usd));
  const rows = view.attempts.map((one, n) => ({ ...one, cost: costs[n] }));
  return table([
    { head: "Try", main: true, cell: (one) => `${one.n}` },
    { head: "State", cell: (one) => state(one.state) },
    { head: "Lane", cell: (one) => lane(one.lane, one.tier === one.lane || one.tier === "standard" ? "default" : one.tier) },
    { head: "Sent", num: true, cell: (one) => ago(one.sent_at) },
    { head: "First token", num: true, cell: (one) => milliseconds(one.first_token_ms) },
    { head: "Took", num: true, cell: (one) => milliseconds(one.total_ms) },
    { head: "Tokens", num: true, cell: (one) => (one.tokens ? `${number(one.tokens.input ?? 0)} + ${number(one.tokens.output ?? 0)}` : "–") },
    { head: "Cost", num: true, cell: (one) => one.cost },
    { head: "Note", cell: (one) => note(one) && h("span.soft", {}, note(one)) },
  ], rows, { label: "Attempts" });
}

function note(one) {
  const ended = one.error || one.outcome === "complete" ? null : one.outcome;
  const risk = one.at_risk_usd ? `may have cost up to ${money(one.at_risk_usd)}` : null;
  const held = one.reserved_usd ? `${money(one.reserved_usd)} of a budget held for it` : null;
  const speed = one.tokens_per_second ? `${number(Math.round(one.tokens_per_second))} tokens/s` : null;
  return [ended, risk, held, one.error?.message, speed].filter(Boolean).join("; ");
}

async function cancel(id, button) {
  button.disabled = true;
  try {
    const { state: now, stopping } = await (await post(`/api/jobs/${id}/cancel`)).json();
    announce(stopping ? "The job is being stopped where it runs." : `The job is ${now}.`);
  } catch (error) {
    button.disabled = false;
    announce(error.message);
  }
}

async function sent(id, place) {
  fill(place, h("p.loading", {}, "Loading…"));
  try {
    const { request } = await get(`/api/boards/request?job=${encodeURIComponent(id)}`);
    fill(place, h("div.paper.prose", {}, block(JSON.stringify(request, null, 2))));
  } catch (error) {
    fill(place, h("p.note.bad", {}, error.message));
  }
}
