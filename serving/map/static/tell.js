// What the panel says: the status, notes about layers, and problems with what to do.

import { Problem } from "./service.js";

export const $ = (id) => document.getElementById(id);

export function tell(text) {
  $("status").textContent = text;
}

const notes = { imagery: "", mask: "" };

export function note(layer, text) {
  notes[layer] = text;
  $("note").textContent = Object.values(notes).filter(Boolean).join(" ");
  $("note").hidden = !$("note").textContent;
}

// Tell what goes wrong with the tiles of a layer, until it has them.
export function watch(layer, name, well) {
  layer.on("loading", () => { layer.failed = false; });
  layer.on("problem", ({ problem }) => {
    if (problem.status === 401) {
      tellProblem(problem);
      return;
    }
    const { title, message, fix, retryAfter } = problem;
    layer.failed ||= !retryAfter;
    const more = retryAfter ? `It goes on in ${retryAfter} s.` : [message, fix].filter(Boolean).join(" ");
    note(name, `${name === "mask" ? "Mask" : "Imagery"}: ${title || "failed"}. ${more}`);
  });
  layer.on("load", () => { if (!layer.failed) well(); });
}

let counting = null;

export function tellProblem(problem, again) {
  clearInterval(counting);
  $("problem").hidden = $("again").hidden = !problem;
  if (!problem) return;
  if (!(problem instanceof Problem)) {
    console.error(problem);
    problem = new Problem(0, { title: "The page failed", detail: String(problem.message || problem) });
  }
  if (problem.status === 401) {
    $("key-form").hidden = false;
    $("key").focus();
  }
  $("problem").querySelector("strong").textContent = problem.title;
  $("problem").querySelector("p").textContent = problem.status === 401
    ? problem.message : [problem.message, problem.fix].filter(Boolean).join(" ");
  $("again").hidden = problem.status === 401 || !again;
  $("again").onclick = again;
  let left = problem.retryAfter || 0;
  const count = () => {
    $("again").disabled = left > 0;
    $("again").textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left-- <= 0) clearInterval(counting);
  };
  count();
  counting = setInterval(count, 1000);
}
