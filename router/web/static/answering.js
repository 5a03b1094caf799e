// The pieces of an answer, in order, whatever happens to the connection: who is cut off goes on at the last position.

import { ApiError, pause, post, request } from "./api.js";
import { eventsOf } from "./sse.js";

const PAUSES_MS = [200, 500, 1000, 2000, 4000, 8000, 15000, 30000];

// Ask, and read the answer. `told` is what /api/chat/stream takes.
export function ask(told, signal) {
  return new Reading(() => request("/api/chat/stream", { method: "POST", json: told, signal }), told.key, signal);
}

// Read the answer of a job that is there, from its beginning on.
export function attach(name, signal) {
  return new Reading(() => request(`/api/jobs/${name}/stream`, { signal }), name, signal);
}

export const stop = (name) => post(`/api/jobs/${name}/cancel`);

class Reading {
  conversation = null; // known once the answer has begun

  job = null; // the same

  #open;
  #name;
  #signal;
  #last = "";

  constructor(open, name, signal) {
    this.#open = open;
    this.#name = name;
    this.#signal = signal;
  }

  // The job's id, or the key that it was asked under.
  get name() {
    return this.#name;
  }

  // The values of the events. {lost: true} when the connection is lost, {back: true} when it is there again, and
  // {anew: true} when the text begins again.
  // ApiError when there is no answer, or none can be had any more.
  async *values() {
    let response = await this.#open();
    this.job = response.headers.get("X-Shunter-Job");
    this.#name = this.job ?? this.#name;
    this.conversation = response.headers.get("X-Shunter-Conversation");
    while (response) {
      if (yield* this.#read(response)) return;
      yield { lost: true };
      response = await this.#again();
      yield this.#last ? { back: true } : { anew: true };
    }
  }

  // True when the answer came to its end.
  async *#read(response) {
    const events = eventsOf(response);
    for (;;) {
      let event;
      try {
        event = await events.next();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        return false;
      }
      if (event.done) return false;
      if (event.value.id) this.#last = event.value.id;
      if (event.value.data === "[DONE]") return true;
      const value = JSON.parse(event.value.data);
      yield value.shunter?.anew ? { anew: true } : value;
      if (value.error) return true;
    }
  }

  async #again() {
    const headers = this.#last ? { "Last-Event-ID": this.#last } : {};
    for (const ms of PAUSES_MS) {
      await pause(ms);
      try {
        return await request(`/api/jobs/${this.#name}/stream`, { headers, signal: this.#signal });
      } catch (error) {
        if (error.name === "AbortError" || (error.status >= 400 && error.status < 500)) throw error;
      }
    }
    throw new ApiError("The connection was lost, and Shunter does not answer. The answer is kept: reload the page later.", 0);
  }
}
