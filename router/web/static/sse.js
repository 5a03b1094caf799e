// Server-sent events, parsed as the standard says: https://html.spec.whatwg.org/multipage/server-sent-events.html

export class EventParser {
  // Text in any pieces in, whole events out: {type, data, id}. `id` is that of the last event that had one.

  #rest = "";
  #afterCr = false;
  #atStart = true;
  #data = [];
  #type = "";
  #id = "";

  push(text) {
    const events = [];
    if (text === "") return events; // half a character
    if (this.#atStart && text[0] === "\uFEFF") text = text.slice(1);
    if (this.#afterCr && text[0] === "\n") text = text.slice(1); // the other half of a CRLF
    this.#atStart = false;
    const lines = (this.#rest + text).split(/\r\n|\r|\n/);
    this.#afterCr = text.endsWith("\r");
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line, events);
    return events;
  }

  #line(line, events) {
    if (line === "") return this.#dispatch(events);
    const colon = line.indexOf(":");
    if (colon === 0) return undefined; // a comment
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value[0] === " ") value = value.slice(1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    return undefined;
  }

  #dispatch(events) {
    if (this.#data.length) {
      events.push({ type: this.#type || "message", data: this.#data.join("\n"), id: this.#id });
    }
    this.#data = [];
    this.#type = "";
  }
}

// The events of a response, as they come. An unfinished last event is not one.
export async function* eventsOf(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const parser = new EventParser();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever leaves early closes the connection
  }
}
