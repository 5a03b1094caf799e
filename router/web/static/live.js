// A board that shows what is so now: one stream of events for the page that is open, none for one that nobody sees.

import { ApiError, pause, query, request } from "./api.js";
import { fill, h } from "./dom.js";
import { eventsOf } from "./sse.js";

const REDRAW_MS = 20_000; // "2 min ago" grows old by itself
const MOST_MS = 15_000; // between two tries to reach a server that is away

// Draw `place` with draw(value) now and whenever the board's value changes; call what is returned to end that.
export function watch(board, args, place, draw) {
  const light = document.getElementById("live");
  let value = null;
  let reading = new AbortController();
  let over = false;

  function redraw() {
    if (value === null) return;
    const held = place.contains(document.activeElement) ? handle(document.activeElement) : null;
    fill(place, draw(value));
    if (held) place.querySelector(held)?.focus({ preventScroll: true });
  }

  async function read(signal) {
    for (let ms = 500; !signal.aborted; ms = Math.min(ms * 2, MOST_MS)) {
      try {
        const response = await request(`/api/boards/events${query({ board, ...args })}`, { signal });
        for await (const event of eventsOf(response)) {
          const told = JSON.parse(event.data);
          if (event.type === "error") throw new ApiError(told.error.message, 400, told.error.code);
          ms = 500;
          glow(true);
          value = told;
          redraw();
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error.status >= 400 && error.status < 500) {
          light.hidden = true;
          fill(place, h("p.note.bad", { role: "alert" }, error.message));
          return;
        }
      }
      glow(false);
      await pause(ms);
    }
  }

  function glow(on) {
    if (over) return;
    light.hidden = false;
    light.className = `live ${on ? "on" : "off"}`;
    light.textContent = on ? "live" : "connecting…";
  }

  function seen() {
    reading.abort();
    if (document.hidden) return;
    reading = new AbortController();
    read(reading.signal);
  }

  const timer = setInterval(() => !document.hidden && redraw(), REDRAW_MS);
  document.addEventListener("visibilitychange", seen);
  fill(place, h("p.loading", { role: "status" }, "Loading…"));
  seen();
  return () => {
    over = true;
    reading.abort();
    clearInterval(timer);
    document.removeEventListener("visibilitychange", seen);
    light.hidden = true;
  };
}

// How to find the same element in the next drawing.
function handle(element) {
  const name = ["id", "href", "aria-label"].find((attribute) => element.hasAttribute(attribute));
  return name ? `${element.tagName}[${name}="${CSS.escape(element.getAttribute(name))}"]` : null;
}
