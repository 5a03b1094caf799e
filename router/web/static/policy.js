// The policy in force, and what it would do with a prompt.

import { get, post } from "./api.js";
import { decision } from "./decision.js";
import { fill, h } from "./dom.js";
import { span } from "./figures.js";
import { board, facts, lane } from "./parts.js";

const LANES = ["", "stream", "sync", "background", "batch"];

export function policy(main) {
  const rules = h("div");
  fill(main, board("Policy", null, explain(), rules));
  show(rules);
}

async function show(place) {
  try {
    fill(place, draw(await get("/api/boards/policy")));
  } catch (error) {
    fill(place, h("p.note.bad", { role: "alert" }, error.message));
  }
}

// ---- explain ----

function explain() {
  const result = h("div", { "aria-live": "polite" });
  const field = (label, name, props) => h("label.field", {}, label, h("input", { name, ...props }));
  const form = h("form.explain", { onsubmit: (event) => ask(event, result) },
    h("label.field.wide", {}, "How would this go?", h("textarea", { name: "prompt", rows: 3, required: true, placeholder: "A prompt. Nothing is sent." })),
    field("Model", "model", { placeholder: "the usual one" }),
    field("Deadline", "deadline", { placeholder: "none, 6h, 08:00" }),
    field("At most, in tokens", "max_tokens", { type: "number", min: 1, placeholder: "no cap" }),
    h("label.field", {}, "Lane", h("select", { name: "lane" }, LANES.map((word) => h("option", { value: word }, word || "by the policy")))),
    h("label.check", {}, h("input", { type: "checkbox", name: "whole" }), " the answer must come whole"),
    h("button.button.main", { type: "submit" }, "Explain"));
  return h("section", {}, form, result);
}

async function ask(event, place) {
  event.preventDefault();
  const given = Object.fromEntries([...new FormData(event.target)].filter(([, value]) => value !== ""));
  if (given.max_tokens) given.max_tokens = Number(given.max_tokens);
  if (given.whole) given.whole = true;
  try {
    const value = await (await post("/api/boards/explain", given)).json();
    fill(place, decision(value, value.decided_at));
  } catch (error) {
    fill(place, h("p.note.bad", {}, error.message));
  }
}

// ---- the rules ----

function draw(view) {
  const numbers = (name) => Object.entries(view[name]).map(([key, value]) => `${key} ${Number(value.toPrecision(6))}`).join(", ");
  return [
    h("h2", {}, "Rules, in order"),
    h("ol.rules", {}, view.rules.map(rule)),
    h("h2", {}, "Numbers"),
    facts([
      ["Policy", view.name],
      ["File", h("span.mono", {}, view.file)],
      ["Confidence", `${Math.round(view.confidence * 100)} of 100 keep their deadline`],
      ["Leaving", numbers("leave")],
      ["Timeouts", numbers("timeouts")],
      ...Object.entries(view.priors).flatMap(([name, one]) => believed(name, one)),
    ]),
  ];
}

function rule(one) {
  const when = Object.entries(one.when).map(([name, value]) => h("code", {}, `${name} = ${JSON.stringify(value)}`));
  return h("li", {}, h("div.when", {}, h("h3", {}, one.name), h("p", {}, when.length ? when.flatMap((part, n) => (n ? [" and ", part] : [part])) : "always")),
    h("div.then", {}, then(one)), h("p.soft", {}, one.why));
}

function then(one) {
  if (one.refuse) return h("span.state.failed", {}, "refuse");
  const named = ["tier", "model", "provider"].filter((name) => one[name]).map((name) => `${name} ${one[name]}`);
  if (one.deadline_s) named.push(`deadline ${span(one.deadline_s)}`);
  for (const [name, seconds] of Object.entries(one.timeouts)) named.push(`${name} ${span(seconds)}`);
  return [one.class && h("span", {}, one.class), one.lane && lane(one.lane), named.map((words) => h("span", {}, words))];
}

function believed(name, one) {
  if (name === "windows_s") return Object.entries(one).map(([window, times]) => [`Background ${window}`, spread(times)]);
  if (typeof one === "number") return [[name, `${Math.round(one * 100)}%`]];
  if (name === "flex_times") return [[name, `half within ${one.p50}, 19 of 20 within ${one.p95} plain calls`]];
  return [[name, spread(one)]];
}

const spread = ({ p50, p95 }) => `half within ${span(p50)}, 19 of 20 within ${span(p95)}`;
