// The answer of a job that runs, as it grows; once the job has ended, its board has the whole of it.

import { attach } from "./answering.js";
import { fill, h } from "./dom.js";
import { Markdown } from "./markdown.js";

const NEAR_PX = 12;

export class Growing {
  node = h("section", { hidden: true, "aria-label": "Answer so far" });

  #id;
  #reading = null;
  #text = "";
  #drawing = 0;
  #words = h("div.prose");
  #paper = h("div.paper", { tabindex: 0, role: "region", "aria-label": "Text", "aria-busy": "true" }, this.#words);
  #markdown = new Markdown(this.#words);

  constructor(id) {
    this.#id = id;
    fill(this.node, h("h2", {}, "Answer so far"), this.#paper);
  }

  // To be called whenever more is known of the job.
  see({ state }) {
    if (state === "running") this.#reading ??= this.#read();
    else if (state !== "queued") this.end();
  }

  end() {
    this.#reading?.abort();
    this.node.hidden = true;
  }

  #read() {
    const reading = new AbortController();
    this.#hear(reading.signal).catch(() => {}); // the board says what became of it
    return reading;
  }

  async #hear(signal) {
    for await (const value of attach(this.#id, signal).values()) {
      if (value.anew) this.#text = "";
      for (const { index = 0, delta = {} } of value.choices ?? []) if (index === 0) this.#text += (delta.content ?? "") + (delta.refusal ?? "");
      this.#drawing ||= requestAnimationFrame(() => this.#draw(signal));
    }
  }

  #draw(signal) {
    this.#drawing = 0;
    if (signal.aborted) return;
    const { scrollTop, scrollHeight, clientHeight } = this.#paper;
    const follows = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    this.node.hidden = !this.#text;
    this.#markdown.show(this.#text);
    if (follows) this.#paper.scrollTop = this.#paper.scrollHeight;
  }
}
