// Where questions are written, the model is picked, and an answer is stopped.

import { get } from "./api.js";
import { fill, h, icon } from "./dom.js";

// `send` and `stop` are called with what is asked; `lead` stands before the model.
export function composer({ send, stop, lead }) {
  const words = h("textarea", { rows: 1, placeholder: "Ask anything", "aria-label": "Message", enterkeyhint: "send",
    onkeydown: key, oninput: fit });
  const models = h("select", { "aria-label": "Model", onchange: () => localStorage.setItem("model", models.value) });
  const button = h("button.send", { type: "submit" });
  const hint = h("span.hint", { "aria-hidden": "true" }, "Enter sends, Shift + Enter makes a new line");
  const node = h("form.composer", { onsubmit: submit }, words, h("div.under", {}, lead, models, hint, button));
  let busy = false;

  function submit(event) {
    event?.preventDefault();
    if (busy) return stop();
    const text = words.value.trim();
    return text ? send(text) : words.focus();
  }

  function key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!busy) submit();
  }

  function fit() {
    words.style.height = "auto";
    words.style.height = `${Math.min(words.scrollHeight + 2, 260)}px`;
  }

  function show() {
    fill(button, icon(busy ? "stop" : "send"));
    button.classList.toggle("stop", busy);
    button.title = busy ? "Stop (Esc)" : "Send";
    button.setAttribute("aria-label", busy ? "Stop the answer" : "Send");
  }

  // Listens as long as the form is there.
  document.addEventListener("keydown", function listen(event) {
    if (!node.isConnected) return document.removeEventListener("keydown", listen);
    const elsewhere = !event.target.closest("input, textarea, select");
    if (event.key === "Escape" && busy) stop();
    else if (event.key === "/" && elsewhere && !event.metaKey && !event.ctrlKey) {
      event.preventDefault();
      words.focus();
    }
    return undefined;
  });

  show();
  offer(models).catch(() => {}); // without a list the usual model answers
  return {
    node,
    get model() {
      return models.value || undefined;
    },
    set text(text) {
      words.value = text;
      fit();
    },
    busy(now) {
      busy = now;
      show();
    },
    focus() {
      if (matchMedia("(hover: hover)").matches) words.focus(); // on a phone the keyboard would hide the page
    },
  };
}

async function offer(select) {
  const { models, default: usual } = await get("/api/models");
  const chosen = localStorage.getItem("model");
  const wanted = models.some((model) => model.id === chosen) ? chosen : usual;
  const groups = Map.groupBy(models, (model) => model.provider);
  const options = (some) => some.map(({ id }) => h("option", { value: id, selected: id === wanted }, id));
  fill(select, [...groups].map(([name, some]) => h("optgroup", { label: name }, options(some))));
}
