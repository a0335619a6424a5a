// How the page asks the service: with the key, where there is one; what goes wrong comes as a Problem.

const KEPT = "footprint-key";

export class Problem extends Error {
  // told: of problem+json; retryAfter: seconds, or null.
  constructor(status, told, retryAfter = null) {
    super(told.detail || "");
    Object.assign(this, { status, title: told.title || `The service answers ${status}`, fix: told.fix || "", retryAfter });
    this.kind = (told.type || "").replace("urn:footprint:", "");
  }
}

let key = sessionStorage.getItem(KEPT) || "";

export function useKey(text) {
  key = text;
  sessionStorage.setItem(KEPT, text);
}

export async function ask(path, { body, accept, signal } = {}) {
  const headers = {};
  if (accept) headers.Accept = accept;
  if (key) headers["X-API-Key"] = key;
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { title: "The service does not answer", fix: "See whether it runs and the network is there." });
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Problem(response.status, told, Number(response.headers.get("Retry-After")) || null);
}
