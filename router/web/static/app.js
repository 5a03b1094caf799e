// The frame: which page is shown, the login, the colours. Every page is a function of its place and its address; what
// it returns is called when it is left.

import { get, post } from "./api.js";
import { h, fill, icon, announce } from "./dom.js";
import { chat } from "./chat.js";
import { job } from "./job.js";
import { jobs } from "./jobs.js";
import { batch, batches } from "./batches.js";
import { reports } from "./reports.js";
import { policy } from "./policy.js";
import { budgets } from "./budgets.js";

const PAGES = [
  [/^\/(?:c\/([\w-]+))?$/, chat, "Chat"],
  [/^\/jobs$/, jobs, "Jobs"],
  [/^\/jobs\/([\w-]+)$/, job, "Job"],
  [/^\/batches$/, batches, "Batches"],
  [/^\/batches\/([\w-]+)$/, batch, "Batch"],
  [/^\/reports\/(cost|latency|savings|errors)$/, reports, "Reports"],
  [/^\/policy$/, policy, "Policy"],
  [/^\/budgets$/, budgets, "Budgets"],
];

const main = document.getElementById("main");
let leave = () => {};
let me = null;
let lastChat = "/"; // where the chat goes on when one comes back from a board

// Go to a page of ours without loading it anew; `replace` leaves no way back to where we were.
export function go(path, { replace = false } = {}) {
  lastChat = isChat(location.pathname) ? location.pathname : lastChat;
  const elsewhere = path.split("?")[0] !== location.pathname;
  history[replace ? "replaceState" : "pushState"](null, "", path);
  if (elsewhere) main.focus({ preventScroll: true }); // a reader of the screen hears that it is another page
  show();
}

async function show() {
  leave();
  leave = () => {};
  me ??= await whoAmI();
  if (!me) return;
  const found = PAGES.find(([pattern]) => pattern.test(location.pathname));
  mark(found ? location.pathname : "");
  if (!found) {
    fill(main, h("div.login", {}, h("h1", {}, "There is nothing here"), h("p", {}, h("a", { href: "/" }, "To the chat"))));
    return;
  }
  const [pattern, page, title] = found;
  document.title = `${title} · Shunter`;
  leave = page(main, { id: pattern.exec(location.pathname)[1], me, go }) ?? (() => {});
}

const isChat = (path) => path === "/" || path.startsWith("/c/");

function mark(path) {
  document.querySelector(".tabs a").setAttribute("href", isChat(path) ? "/" : lastChat);
  for (const link of document.querySelectorAll(".tabs a")) {
    const href = link.getAttribute("href");
    const here = isChat(href) ? isChat(path) : path.startsWith(`/${href.split("/")[1]}`);
    if (here) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else link.removeAttribute("aria-current");
  }
}

// ---- the login ----

async function whoAmI() {
  try {
    return await get("/api/me");
  } catch (error) {
    if (error.status !== 401) fill(main, h("div.login", {}, h("h1", {}, "Shunter does not answer"), h("p", {}, error.message),
      h("p", {}, h("button.button", { type: "button", onclick: () => show() }, "Try again"))));
    return null;
  }
}

function login() {
  leave();
  leave = () => {};
  me = null;
  if (main.querySelector("form.sign-in")) return;
  document.title = "Sign in · Shunter";
  const token = h("input", { type: "password", name: "token", required: true, autocomplete: "current-password",
    "aria-label": "Token", placeholder: "Token" });
  const name = h("input", { name: "username", value: "shunter", autocomplete: "username", hidden: true }); // for password managers
  const trouble = h("p.note.bad", { hidden: true, role: "alert" });
  const form = h("form.sign-in", { onsubmit: (event) => enter(event, token, trouble) }, name, token,
    h("button.button.main", { type: "submit" }, "Sign in"));
  fill(main, h("div.login", {}, h("img", { src: "/static/icon.svg", alt: "" }), h("h1", {}, "Sign in to Shunter"),
    h("p", {}, "The token of this installation. ", h("code", {}, "shunter serve"), " says where it is kept when it starts."),
    form, trouble));
  token.focus();
}

async function enter(event, token, trouble) {
  event.preventDefault();
  try {
    await post("/api/login", { token: token.value.trim() });
    await show();
  } catch (error) {
    trouble.textContent = error.status === 401 ? "That is not the token." : error.message;
    trouble.hidden = false;
    token.select();
  }
}

// ---- the colours ----

const THEMES = ["system", "light", "dark"];
const LOOKS = { system: ["half", "as the system"], light: ["sun", "light"], dark: ["moon", "dark"] };

function dress() {
  const button = document.getElementById("theme");
  const theme = localStorage.getItem("theme") ?? "system";
  const [drawn, words] = LOOKS[theme];
  fill(button, icon(drawn));
  button.title = `Colours: ${words}`;
  button.setAttribute("aria-label", `Colours: ${words}. Change`);
  button.onclick = () => {
    const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    if (next === "system") localStorage.removeItem("theme");
    else localStorage.setItem("theme", next);
    dispatchEvent(new Event("theme"));
    dress();
    announce(`Colours: ${LOOKS[next][1]}`);
  };
}

// ---- where links lead ----

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href]");
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !plain || link.target || link.origin !== location.origin || link.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  go(link.pathname + link.search);
});

addEventListener("popstate", show);
addEventListener("signed-out", login);
dress();
show();
