// Building and changing the document. Text only ever becomes text nodes: nothing here takes HTML.

const SVG = "http://www.w3.org/2000/svg";

// h("a.name", {href, onclick, data…}, ...children); null, false and undefined children are left out.
export function h(what, props = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  return filled(document.createElement(tag), classes, props, children);
}

export function s(what, props = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  return filled(document.createElementNS(SVG, tag), classes, props, children);
}

function filled(element, classes, props, children) {
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(props)) set(element, name, value);
  element.append(...children.flat(Infinity).filter(shown));
  return element;
}

function set(element, name, value) {
  if (value === undefined || value === null || value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "value") element.value = value;
  else element.setAttribute(name, value === true ? "" : value);
}

const shown = (child) => child !== null && child !== undefined && child !== false;

// Make `parent` hold just these, and leave what is there already in its place.
export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter(shown));
  return parent;
}

// The icons are drawn here, so that no request is made for them.
const ICONS = {
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  again: "M4 12a8 8 0 1 0 2.6-5.9M4 4v5h5",
  copy: "M9 9h10v11H9zM5 15V4h10",
  check: "M5 13l4.5 4.5L19 7",
  plus: "M12 5v14M5 12h14",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  down: "M12 5v14M6 13l6 6 6-6",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6L6 18",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2.5v2.5M12 19v2.5M2.5 12H5M19 12h2.5M5.3 5.3L7 7M17 17l1.7 1.7M5.3 18.7L7 17M17 7l1.7-1.7",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  half: "M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17M12 3.5v17",
  away: "M14 5h5v5M19 5l-8 8M17 14v5H5V7h5",
};

export function icon(name) {
  return s("svg.icon", { viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, s("path", { d: ICONS[name] }));
}

// A button that shows an icon and has its name for whoever does not see it.
export function iconButton(name, label, onclick, props = {}) {
  return h("button.icon-button", { type: "button", title: label, "aria-label": label, onclick, ...props }, icon(name));
}

let announcer = null;

// Said by screen readers, once.
export function announce(words) {
  announcer ??= document.getElementById("announcer");
  announcer.textContent = words;
}
