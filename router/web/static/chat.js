// The chat: one conversation, what is asked in it, and the list of all of them.

import { get, query, remove, unique } from "./api.js";
import { ask, attach, stop } from "./answering.js";
import { composer } from "./composer.js";
import { announce, fill, h, icon, iconButton } from "./dom.js";
import { Follower } from "./follower.js";
import { ago } from "./figures.js";
import { question, Turn } from "./turn.js";

const UNFINISHED = ["queued", "running", "submitted"];
const IDEAS = [
  "Explain how a railway switch works, to a child of eight.",
  "Write a haiku about waiting rooms.",
  "What is the capital of Iceland? One word.",
];

export function chat(main, { id, go }) {
  const talk = new Talk(main, id ?? null, go);
  talk.begin();
  return () => talk.leave();
}

class Talk {
  #id; // of the conversation; null before there is one
  #go;
  #reading = null; // of the answer that comes now
  #aborting = new AbortController();
  #stopping = false;
  #last = null; // turn
  #asked = null; // the last question, where no conversation keeps it
  #turns = h("div.turns", { role: "log", "aria-label": "Conversation", "aria-live": "off" });
  #scroller = h("div.scroller", { tabindex: -1 }, this.#turns);
  #list = h("ul");
  #composer;
  #follower;

  constructor(main, id, go) {
    this.#id = id;
    this.#go = go;
    const toEnd = iconButton("down", "To the end", () => this.#follower.toEnd(), { class: "icon-button to-end", hidden: true });
    this.#follower = new Follower(this.#scroller, toEnd);
    const opened = (now) => {
      aside.classList.toggle("open", now);
      open.setAttribute("aria-expanded", aside.classList.contains("open"));
    };
    const toggle = () => {
      opened();
      if (aside.classList.contains("open")) aside.querySelector("a").focus(); // it stands before the button, not behind it
    };
    const open = iconButton("menu", "Conversations", toggle, { class: "icon-button list-toggle", "aria-expanded": "false" });
    this.#composer = composer({ send: (text) => this.#send(text), stop: () => this.#stop(), lead: open });
    const aside = h("aside.conversations", { "aria-label": "Conversations" },
      h("a.button.new", { href: "/" }, icon("plus"), "New chat"), h("nav", { "aria-label": "Earlier conversations" }, this.#list));
    const section = h("section.talk", {}, h("h1.unseen", {}, "Chat"), this.#scroller, h("div.below", {}, toEnd, this.#composer.node));
    aside.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !aside.classList.contains("open")) return;
      opened(false);
      open.focus();
    });
    section.addEventListener("click", (event) => {
      if (!open.contains(event.target)) opened(false);
    });
    fill(main, h("div.chat", {}, aside, section));
  }

  async begin() {
    this.#showList();
    this.#composer.focus();
    const pending = JSON.parse(sessionStorage.getItem("pending") ?? "null");
    sessionStorage.removeItem("pending");
    if (this.#id) await this.#restore(pending);
    else if (pending) this.#resume(pending);
    else this.#welcome();
  }

  leave() {
    this.#aborting.abort(); // of the reading; the answer itself goes on, and is there when we come back
  }

  // ---- what was said before ----

  // `news` is said at the end.
  async #restore(pending, news = null) {
    let kept;
    try {
      kept = await get(`/api/conversations/${this.#id}`);
    } catch (error) {
      fill(this.#turns, h("p.note.bad", { role: "alert" }, error.status === 404 ? "This conversation is not kept any more." : error.message));
      return;
    }
    if (this.#aborting.signal.aborted) return; // it was left meanwhile
    document.title = `${kept.title} · Shunter`;
    fill(this.#turns);
    for (const message of kept.messages) this.#recall(message);
    const asked = kept.messages.findLast((message) => message.role === "user");
    if (pending && pending.message !== undefined && asked?.content !== pending.message) this.#resume(pending);
    if (news) this.#turns.append(h("p.note.warn", { role: "alert" }, news));
    this.#follower.toEnd();
  }

  #recall(message) {
    if (message.role !== "assistant") {
      this.#turns.append(question(message.content));
      return;
    }
    const turn = this.#turn();
    turn.job = message.job;
    if (UNFINISHED.includes(message.meta?.state)) this.#read(turn, attach(message.job, this.#aborting.signal));
    else turn.restore(message.content, message.meta);
  }

  // The page was left before the answer had begun: its key says whether the question arrived.
  #resume(pending) {
    const asked = question(pending.message ?? "");
    if (pending.message !== undefined) this.#turns.append(asked);
    this.#asked = pending;
    const turn = this.#turn();
    this.#read(turn, attach(pending.key, this.#aborting.signal), (error) => {
      if (error.status !== 404) return false;
      asked.remove();
      turn.node.remove();
      this.#composer.text = pending.message ?? "";
      if (!this.#id) this.#welcome();
      return true;
    });
  }

  #welcome() {
    const ideas = IDEAS.map((idea) => h("li", {}, h("button", { type: "button", onclick: () => this.#send(idea) }, idea)));
    fill(this.#turns, h("div.welcome", {}, h("h2", {}, "What would you like to know?"),
      h("p", {}, "Each answer takes the lane that suits it, and says which, why, and what it cost."), h("ul", {}, ideas)));
  }

  // ---- asking ----

  #send(text) {
    if (this.#reading) return;
    this.#turns.querySelector(".welcome")?.remove();
    this.#turns.querySelector(":scope > .note")?.remove();
    this.#turns.append(question(text));
    this.#ask({ key: unique(), message: text, conversation: this.#id ?? undefined, model: this.#composer.model });
    this.#composer.text = "";
  }

  #ask(told) {
    this.#asked = told;
    sessionStorage.setItem("pending", JSON.stringify(told));
    const turn = this.#turn();
    this.#follower.toEnd();
    this.#read(turn, ask(told, this.#aborting.signal));
  }

  #again() {
    if (this.#reading) return;
    this.#last.node.remove();
    this.#turns.querySelector(":scope > .note")?.remove();
    const { job } = this.#last;
    const model = this.#composer.model;
    // What no job is known of is asked under its key once more: it may have arrived, and is paid once.
    if (this.#id && job) this.#ask({ key: unique(), retry: true, job, conversation: this.#id, model });
    else this.#ask({ ...this.#asked, key: job ? unique() : this.#asked.key, model });
  }

  #turn() {
    this.#last?.final();
    this.#last = new Turn({ again: () => this.#again(), grown: () => this.#follower.grown() });
    this.#turns.append(this.#last.node);
    return this.#last;
  }

  async #read(turn, reading, excused = () => false) {
    this.#reading = reading;
    this.#composer.busy(true);
    try {
      for await (const value of reading.values()) {
        turn.job ??= reading.job;
        if (!this.#id && reading.conversation) this.#named(reading.conversation);
        sessionStorage.removeItem("pending");
        turn.take(value);
        if (value.error) return;
      }
      turn.end();
      announce("The answer is finished.");
    } catch (error) {
      this.#trouble(turn, error, excused);
    } finally {
      if (this.#reading === reading) this.#over();
    }
  }

  #trouble(turn, error, excused) {
    if (error.name === "AbortError") return; // we are leaving the page
    sessionStorage.removeItem("pending");
    if (!this.#id && error.conversation) this.#named(error.conversation);
    if (excused(error)) return;
    if (error.code === "conversation_changed") return void this.#restore(null, "This conversation went on elsewhere: here it is as it stands now.");
    turn.job ??= error.job ?? null;
    if (this.#stopping) return turn.stopped();
    const wait = error.retryAfter ? `; try again in ${error.retryAfter} s` : "";
    turn.fail(`${wait ? error.message.replace(/\.$/, "") : error.message}${wait}`, error.job);
  }

  #over() {
    this.#reading = null;
    this.#stopping = false;
    this.#composer.busy(false);
    if (!this.#aborting.signal.aborted) this.#showList();
  }

  async #stop() {
    if (!this.#reading || this.#stopping) return;
    this.#stopping = true;
    try {
      await stop(this.#reading.name);
    } catch (error) {
      this.#stopping = false;
      announce(`It could not be stopped: ${error.message}`);
    }
  }

  #named(id) {
    this.#id = id;
    history.replaceState(null, "", `/c/${id}`);
    this.#showList();
  }

  // ---- the list ----

  async #showList() {
    try {
      const { conversations } = await get(`/api/conversations${query({ limit: 60 })}`);
      fill(this.#list, conversations.map((one) => this.#entry(one)));
    } catch {
      // The list is a convenience: what it could say is said by the conversation itself.
    }
  }

  #entry({ id, title, updated_at: at }) {
    const here = id === this.#id;
    const link = h("a", { href: `/c/${id}`, "aria-current": here ? "page" : null, title: `${title}, ${ago(at)}` }, title);
    return h("li", {}, link, iconButton("trash", `Delete “${title}”`, () => this.#forget(id, title)));
  }

  async #forget(id, title) {
    if (!confirm(`Delete “${title}”? Its jobs and what they cost stay on the books.`)) return;
    try {
      await remove(`/api/conversations/${id}`);
    } catch (error) {
      announce(`It could not be deleted: ${error.message}`);
      return;
    }
    if (id === this.#id) this.#go("/");
    else this.#showList();
  }
}
