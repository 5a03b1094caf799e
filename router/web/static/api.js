// Requests to this server. The token is never here: the browser keeps it in a cookie that scripts cannot read.

export class ApiError extends Error {
  // What the server said, its status (0: it could not be reached) and its code.
  constructor(message, status, code = null, headers = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = headers?.get("Retry-After");
    this.conversation = headers?.get("X-Shunter-Conversation");
    this.job = headers?.get("X-Shunter-Job");
  }
}

// A response that is well; ApiError for any other. Without a login everything stops and the page asks for one.
export async function request(path, { method = "GET", json, headers = {}, signal } = {}) {
  const sent = { method, signal, headers: { ...headers, "X-Shunter-Page": "1" }, credentials: "same-origin" };
  if (json !== undefined) {
    sent.body = JSON.stringify(json);
    sent.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, sent);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("Shunter cannot be reached. Is `shunter serve` still running?", 0);
  }
  if (response.ok) return response;
  if (response.status === 401 && path !== "/api/login") dispatchEvent(new Event("signed-out"));
  throw await errorOf(response);
}

async function errorOf(response) {
  let said = {};
  try {
    said = (await response.json()).error ?? {};
  } catch {
    // Whatever stands before this server answered in its own way.
  }
  const message = said.message ?? `the server answered ${response.status} ${response.statusText}`;
  return new ApiError(message, response.status, said.code, response.headers);
}

export const get = async (path, options) => (await request(path, options)).json();
export const post = (path, json = {}) => request(path, { method: "POST", json });
export const remove = (path) => request(path, { method: "DELETE" });

// "?a=1&b=2" of what has a value.
export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

// A name that nobody else gives, also where the page is not on a secure origin.
export function unique() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));
