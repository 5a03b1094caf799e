// One question, or one answer as it comes, with what it cost and why it came as it did.

import { h, fill, iconButton } from "./dom.js";
import { milliseconds, money, number } from "./figures.js";
import { Markdown, copied } from "./markdown.js";

export function question(text) {
  return h("article.turn.question", { "aria-label": "You" }, h("p", {}, text));
}

export class Turn {
  // `again` is called when the reader wants another answer; `grown` whenever the answer has changed its size.

  #text = "";
  #reasoning = "";
  #calls = [];
  #refused = false;
  #finish = null;
  #meta = null;
  #job = null; // its id, where an error names it
  #drawing = 0;
  #again;
  #grown;
  #words = h("div.prose");
  #thoughts = h("details.thoughts", { hidden: true }, h("summary", {}, "Reasoning"), h("p"));
  #note = h("div.note", { hidden: true });
  #foot = h("footer.meta");
  #markdown = new Markdown(this.#words);

  constructor({ again, grown }) {
    this.#again = again;
    this.#grown = grown;
    this.node = h("article.turn.answer.waiting", { "aria-label": "Answer", "aria-busy": "true" },
      this.#thoughts, this.#words, this.#note, this.#foot);
  }

  // ---- what comes ----

  take(value) {
    this.node.classList.toggle("lost", Boolean(value.lost));
    if (value.anew) this.#reset();
    for (const choice of value.choices ?? []) if ((choice.index ?? 0) === 0) this.#hear(choice);
    if (value.shunter) this.#meta = value.shunter;
    if (value.error) this.fail(value.error.message);
    this.#dirty();
  }

  #hear({ delta = {}, finish_reason: finish = null }) {
    this.#text += (delta.content ?? "") + (delta.refusal ?? "");
    this.#reasoning += delta.reasoning_content ?? "";
    this.#refused ||= Boolean(delta.refusal);
    for (const call of delta.tool_calls ?? []) this.#call(call);
    this.#finish = finish ?? this.#finish;
  }

  #call({ index = 0, function: called = {} }) {
    const one = (this.#calls[index] ??= { name: "", arguments: "" });
    one.name += called.name ?? "";
    one.arguments += called.arguments ?? "";
  }

  #reset() {
    [this.#text, this.#reasoning, this.#calls, this.#finish] = ["", "", [], null];
  }

  // The whole of an answer that was kept.
  restore(text, meta) {
    this.#text = text ?? "";
    this.#meta = meta;
    this.end();
  }

  // ---- how it ends ----

  // The job that answers it; null where none is known to.
  get job() {
    return this.#meta?.job ?? this.#job;
  }

  set job(id) {
    this.#job = id;
  }

  get text() {
    return this.#text;
  }

  end() {
    this.#settle();
    const { state, truncated, error } = this.#meta ?? {};
    if (!this.#meta && !this.#text) this.#say("This answer is not kept any more.");
    else if (state === "cancelled") this.#say("Stopped.");
    else if (state === "failed") this.fail(error?.message ?? "the answer failed");
    else if (truncated || this.#finish === "length") this.#say("Stopped at the length limit: the answer is not whole.", "warn");
    else if (this.#refused) this.#say("The model has refused.", "warn");
    else if (!this.#text && !this.#calls.length) this.#say("The answer is empty.");
  }

  // The reader has stopped it before it began.
  stopped() {
    this.#settle();
    this.#say("Stopped.");
  }

  // `job` is given where no figures have come that name it.
  fail(message, job = null) {
    this.#job = this.#meta?.job ?? job ?? this.#job;
    this.#settle();
    this.#say(this.#text ? `The answer was cut off: ${message}` : message, "bad");
  }

  #settle() {
    cancelAnimationFrame(this.#drawing);
    this.#draw();
    this.node.classList.remove("waiting", "lost");
    this.node.setAttribute("aria-busy", "false");
    fill(this.#foot, this.#figures(), this.#meta?.reason ? h("p.reason", {}, this.#meta.reason) : null, this.#actions());
    this.#grown();
  }

  #say(words, kind = "") {
    this.#note.className = `note ${kind}`.trim();
    this.#note.hidden = false;
    if (kind === "bad") this.#note.setAttribute("role", "alert");
    fill(this.#note, words);
    this.#grown();
  }

  // ---- how it looks ----

  #dirty() {
    if (!this.#drawing) this.#drawing = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#drawing = 0;
    this.node.classList.toggle("begun", Boolean(this.#text));
    const calls = this.#calls.map((call) => `\n\n\`\`\`${call.name}\n${call.arguments}\n\`\`\``).join("");
    this.#markdown.show(this.#text + calls);
    this.#thoughts.hidden = !this.#reasoning;
    this.#thoughts.lastChild.textContent = this.#reasoning;
    this.#grown();
  }

  #figures() {
    const meta = this.#meta;
    if (!meta) return null;
    const tier = meta.tier && meta.tier !== "default" ? ` ${meta.tier}` : "";
    const parts = [
      ["Lane", h(`span.lane.${meta.lane}`, {}, meta.lane + tier)],
      meta.ttft_ms !== null && ["Time to first token", `first token ${milliseconds(meta.ttft_ms)}`],
      meta.total_ms !== null && ["Time in all", `${milliseconds(meta.total_ms)} in all`],
      ["Cost", meta.cost_usd === null ? unknown(meta) : money(meta.cost_usd)],
      meta.tokens && ["Tokens of the answer", `${number(meta.tokens.output ?? 0)} tokens`],
      ["Model", meta.model],
      meta.attempts > 1 && ["Attempts", `${meta.attempts} tries`],
    ];
    return h("ul.figures", { "aria-label": "About this answer" },
      parts.filter(Boolean).map(([name, what]) => h("li.num", { title: name }, what)));
  }

  #actions() {
    const copy = this.#text && iconButton("copy", "Copy the answer", () => copied(this.#text));
    const again = this.#again && iconButton("again", "Try again", this.#again);
    const id = this.job;
    const job = id && h("a.job-link", { href: `/jobs/${id}`, title: "The job of this answer" }, "job");
    return h("div.actions", {}, job, copy, again);
  }

  // Only the last answer can be asked for anew.
  final() {
    this.#again = null;
    this.#foot.querySelector('[aria-label="Try again"]')?.remove();
  }
}

function unknown(meta) {
  return meta.at_risk_usd ? `cost unknown, at most ${money(meta.at_risk_usd)}` : "cost unknown";
}
