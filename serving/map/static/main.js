// The page: what is asked, when, and how it is told. Parts of it are in the other modules.

import { boundsOf, boxOf, common, extentOf, turned, turnToMeet, WORLD } from "./bounds.js";
import { drawing } from "./draw.js";
import { CLASSES, Footprints, metres, summary } from "./footprints.js";
import { credit, ImageryLayer, MaskLayer, maskZoom } from "./layers.js";
import { ask, Problem, useKey } from "./service.js";
import { $, note, tell, tellProblem, watch } from "./tell.js";
import { read, write } from "./view.js";

const { L } = window;
const CLICK_PX = 512; // a click asks for a square of so many of the model's pixels
const LISTED = 200; // at first, and more of each time that is asked for

const view = { area: null, tolerance: 0.5, min_area: 0, opacity: 0.35, outline: "raw", imagery: null };
let sources = [];
const shownSource = () => sources.find(({ name }) => name === view.imagery);
let gsd = 0.5;
const chosen = new Set(); // which sliders, by a person or a link; otherwise the tolerance is the model's at each place
let imageryLayer = null;
let maskLayer = null;
let extentLayer = null;
let areaLayer = null;
let asking = null; // AbortController of the question under way
let ready = false;
let listed = LISTED;

const map = L.map("map", { zoomControl: true, boxZoom: false, maxZoom: 22, worldCopyJump: true });
map.attributionControl.setPrefix("Leaflet");
L.control.scale({ imperial: false }).addTo(map);
map.createPane("mask").style.zIndex = 300;
const footprints = new Footprints(map);
const HINT = matchMedia("(pointer: coarse)").matches
  ? "Touch the map to find the buildings around a place."
  : "A click asks about its surroundings, dragging with Shift about a rectangle.";
$("hint").textContent = HINT;
const pen = drawing(map, {
  done: (bounds) => askAbout(bounds),
  changed: (active) => {
    $("draw").setAttribute("aria-pressed", active);
    $("hint").textContent = active
      ? "Drag over the map, or click on two corners. Escape ends it."
      : HINT;
  },
});

// ---- what is told ----

function tellFootprints() {
  const { all, shown, collection } = footprints;
  CLASSES.forEach((_, kind) => { $("legend").children[kind].lastChild.textContent = collection ? footprints.count(kind) : ""; });
  for (const button of $("downloads").children) button.disabled = shown.length === 0;
  if ($("list").open) list();
  if (!collection) return;
  const hidden = all.length - shown.length;
  let text = `${shown.length.toLocaleString("en")} ${shown.length === 1 ? "building" : "buildings"}, ${metres(footprints.area)}.`;
  if (!all.length) text = `No building here at tolerance ${view.tolerance}.`;
  else if (!shown.length) text = `No building of ${view.min_area} m² or more here.`;
  if (hidden) text += ` ${hidden.toLocaleString("en")} smaller ${hidden === 1 ? "one is" : "ones are"} left out.`;
  if (collection.out_of_domain >= 0.95) text += " The imagery looks unlike what the model was trained on.";
  tell(text);
}

// Whoever stands on a building of the list stays on it, as an answer comes.
function list() {
  const stood = document.activeElement.dataset.footprint;
  const items = footprints.shown.slice(0, listed).map(({ feature, layer }) => {
    const item = document.createElement("li");
    const button = item.appendChild(document.createElement("button"));
    button.type = "button";
    button.dataset.footprint = feature.id;
    button.textContent = summary(feature.properties);
    button.addEventListener("click", () => { map.panTo(layer.getBounds().getCenter()); layer.openPopup(); });
    return item;
  });
  const leaves = document.activeElement === $("more") && footprints.shown.length <= listed;
  $("list").querySelector("ol").replaceChildren(...items);
  $("more").hidden = footprints.shown.length <= listed;
  $("more").textContent = `And ${(footprints.shown.length - items.length).toLocaleString("en")} more`;
  if (!stood && !leaves) return;
  const again = items.find((item) => item.firstChild.dataset.footprint === stood);
  (again?.firstChild ?? $("list").querySelector("summary")).focus({ preventScroll: true });
}

// ---- what is asked ----

function question(minArea) {
  const { area, tolerance, outline, imagery } = view;
  return { bbox: area, ...(chosen.has("tolerance") && { tolerance }), min_area_m2: minArea, outline, imagery };
}

function around(latlng) {
  return askAbout(latlng.toBounds(CLICK_PX * gsd));
}

// That of some bounds of which there is imagery; null where there is none.
function withImagery(bounds) {
  const whole = extentOf(shownSource());
  if (!whole) return bounds;
  const turn = turnToMeet(whole, bounds);
  return turn === undefined ? null : common(bounds, turned(whole, turn));
}

function askAbout(asked) {
  const turn = -360 * Math.round(asked.getCenter().lng / 360);
  const bounds = turned(asked, turn);
  if (turn) { // answers are of the first turn: the view goes there
    const { lat, lng } = map.getCenter();
    map.setView([lat, lng + turn], map.getZoom(), { animate: false });
  }
  view.area = boxOf(bounds);
  forget();
  const [west, south, east, north] = view.area;
  areaLayer = L.rectangle([[south, west], [north, east]], { color: "#fff", weight: 2, dashArray: "6 4", fill: false, interactive: false }).addTo(map);
  remember();
  return askAgain();
}

// The same area, once more: as the tolerance has changed, say.
async function askAgain() {
  stopAsking();
  const mine = asking = new AbortController();
  tellProblem(null);
  tell("Looking for buildings …");
  $("panel").setAttribute("aria-busy", "true");
  try {
    const collection = await (await ask("v1/footprints", { body: question(0), signal: mine.signal })).json();
    if (mine !== asking) return;
    footprints.show(collection, view.min_area);
    if (!chosen.has("tolerance")) { // it may have been chosen meanwhile
      view.tolerance = collection.tolerance;
      tellControls();
    }
    if (!maskLayer) showMask();
  } catch (problem) {
    if (mine !== asking || problem.name === "AbortError") return;
    footprints.clear();
    tell(problem.kind === "no-imagery" ? "There is no imagery here." : "No answer.");
    tellProblem(problem, problem.status === 422 ? null : askAgain); // the same would be refused again
  }
  $("panel").removeAttribute("aria-busy");
  tellFootprints();
}

let later = null;

function stopAsking() {
  clearTimeout(later);
  asking?.abort();
  asking = null;
  $("panel").removeAttribute("aria-busy");
}

function askSoon() {
  if (!view.area) return;
  clearTimeout(later);
  later = setTimeout(askAgain, 300);
}

// What is on the map of the area before, and what was asked about it.
function forget() {
  stopAsking();
  tell("");
  listed = LISTED;
  footprints.clear();
  for (const layer of [areaLayer, maskLayer]) layer?.remove();
  areaLayer = maskLayer = null;
  note("mask", "");
  tellFootprints();
}

function showMask() {
  const bounds = withImagery(areaLayer.getBounds());
  if (!bounds) return;
  const zoom = maskZoom(bounds, gsd);
  maskLayer = new MaskLayer({
    bounds, imagery: view.imagery, tolerance: view.tolerance, opacity: view.opacity, pane: "mask", noWrap: true,
    minNativeZoom: zoom, maxNativeZoom: zoom, minZoom: zoom - 3, maxZoom: 22,
  });
  watch(maskLayer, "mask", () => note("mask", ""));
  maskLayer.addTo(map);
}

async function download(button) {
  const { media, ending } = button.dataset;
  button.disabled = true;
  try {
    const blob = media === "application/geo+json"
      ? new Blob([JSON.stringify(footprints.geojson())], { type: media })
      : await (await ask("v1/footprints", { body: question(view.min_area), accept: media })).blob();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `footprints.${ending}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    tellProblem(null);
  } catch (problem) {
    tellProblem(problem, () => download(button));
  }
  button.disabled = footprints.shown.length === 0;
}

// ---- imagery ----

function showImagery() {
  const source = shownSource();
  for (const layer of [imageryLayer, extentLayer]) layer?.remove();
  extentLayer = null;
  const bounds = extentOf(source);
  const across = bounds && !WORLD.contains(bounds); // on both edges of the world
  if (bounds) {
    const frame = { color: "#8a8f98", weight: 1, fill: false, interactive: false };
    const turns = across ? [0, -360] : [0];
    extentLayer = L.layerGroup(turns.map((turn) => L.rectangle(turned(bounds, turn), frame))).addTo(map);
  }
  imageryLayer = new ImageryLayer({
    imagery: source.name, attribution: credit(source), minZoom: source.min_zoom, maxNativeZoom: source.max_zoom, maxZoom: 22,
    ...(bounds && !across ? { bounds } : {}),
  });
  watch(imageryLayer, "imagery", tellImagery);
  imageryLayer.addTo(map);
}

function tellImagery() {
  const source = shownSource();
  const bounds = extentOf(source);
  if (map.getZoom() < source.min_zoom) note("imagery", "Zoom in to see the imagery.");
  else if ((bounds && turnToMeet(bounds, map.getBounds()) === undefined) || !imageryLayer.shows()) note("imagery", "There is no imagery in view.");
  else note("imagery", "");
}

// ---- the view, and its link ----

function remember() {
  if (!ready) return;
  const { lat, lng } = map.getCenter();
  const fragment = write({ ...view, at: [map.getZoom(), lat, lng] }, chosen);
  history.replaceState(null, "", fragment);
  $("link").href = fragment;
}

function tellControls() {
  $("min-area").max = Math.max(300, view.min_area);
  for (const [id, value, text] of [
    ["tolerance", view.tolerance, view.tolerance],
    ["min-area", view.min_area, `${view.min_area} m²`],
    ["opacity", view.opacity, `${Math.round(100 * view.opacity)} %`],
  ]) {
    $(id).value = value;
    $(id).setAttribute("aria-valuetext", text);
    $(`${id}-told`).textContent = text;
  }
  $("square").checked = view.outline === "regularised";
  $("imagery").value = view.imagery;
}

// Go where a fragment says, else where the imagery is.
function follow(fragment) {
  const { at, area, ...told } = read(fragment);
  Object.assign(view, told);
  for (const name of Object.keys(told)) chosen.add(name);
  if (!sources.some(({ name }) => name === view.imagery)) view.imagery = sources[0].name;
  const extent = extentOf(shownSource());
  if (at) map.setView([at[1], at[2]], at[0], { animate: false });
  else if (area) map.fitBounds([[area[1], area[0]], [area[3], area[2]]], { animate: false });
  else if (extent) map.fitBounds(extent, { animate: false });
  else map.setView([20, 0], 2);
  tellControls();
  forget();
  tell($("status").dataset.first);
  view.area = null;
  showImagery();
  remember();
  if (!imageryLayer.isLoading()) tellImagery();
  if (area && ready) askAbout(boundsOf(area));
}

let starting = null;

async function start() {
  clearTimeout(starting);
  try {
    const [imagery, model] = await Promise.all(["v1/imagery", "v1/model"].map((path) => ask(path).then((it) => it.json())));
    const told = read(location.hash);
    if (model.spec) {
      gsd = model.spec.gsd_m;
      view.tolerance = told.tolerance ?? model.spec.tolerance;
      view.min_area = told.min_area ?? Math.round(model.spec.min_area_m2);
      $("model").textContent = `${model.spec.model_name}, version ${model.version}, sees ${Number(gsd.toPrecision(3))} m a pixel.`;
    }
    ready = Boolean(model.spec); // without a model there is only imagery to look at
    tellProblem(ready ? null : new Problem(503, { title: "No model is loaded", detail: model.problem || "" }), start);
    if (!imageryLayer) {
      sources = imagery.sources;
      $("imagery").replaceChildren(...sources.map(({ name, title }) => new Option(title === name ? name : title, name)));
      $("imagery-row").hidden = sources.length < 2;
      follow(location.hash);
    } else if (ready) { // whoever looked at the imagery meanwhile stays where they are
      tellControls();
      remember();
      if (told.area) askAbout(boundsOf(told.area));
    }
    if (!ready) starting = setTimeout(start, 5000);
  } catch (problem) {
    tellProblem(problem, start);
  }
}

// ---- controls ----

CLASSES.forEach(({ told, colour, dashArray }) => {
  const item = $("legend").appendChild(document.createElement("li"));
  const swatch = item.appendChild(document.createElement("span"));
  swatch.className = dashArray ? "swatch dashed" : "swatch";
  swatch.style.borderColor = colour;
  item.appendChild(document.createElement("span")).textContent = told;
  item.appendChild(document.createElement("span")).className = "told";
});

map.on("click", ({ latlng }) => { if (ready && !pen.active) around(latlng); });
map.on("moveend", () => {
  remember();
  if (imageryLayer && !imageryLayer.isLoading() && !imageryLayer.failed) tellImagery();
});
map.getContainer().addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target === map.getContainer() && ready) around(map.getCenter());
});
// Leaflet gives the map the focus at every click; what Enter asks about is shown to those who use keys.
for (const [event, keyed] of [["keyup", true], ["pointerdown", false]]) {
  map.getContainer().addEventListener(event, ({ currentTarget }) => currentTarget.classList.toggle("keyed", keyed));
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") pen.stop(); });
$("draw").addEventListener("click", () => pen.toggle());
$("view").addEventListener("click", () => { if (ready) askAbout(withImagery(map.getBounds()) ?? map.getBounds()); });

function slider(id, name, act) {
  $(id).addEventListener("input", () => {
    view[name] = Number($(id).value);
    chosen.add(name);
    tellControls();
    remember();
    act();
  });
}
slider("tolerance", "tolerance", () => { maskLayer?.setTolerance(view.tolerance); askSoon(); });
slider("min-area", "min_area", () => { footprints.filter(view.min_area); tellFootprints(); });
slider("opacity", "opacity", () => maskLayer?.setOpacity(view.opacity));

$("square").addEventListener("change", () => {
  view.outline = $("square").checked ? "regularised" : "raw";
  remember();
  if (view.area) askAgain();
});
$("imagery").addEventListener("change", () => {
  view.imagery = $("imagery").value;
  showImagery();
  const extent = extentOf(shownSource());
  if (extent && turnToMeet(extent, map.getBounds()) === undefined) map.fitBounds(extent);
  remember();
  if (view.area) askAbout(areaLayer.getBounds());
});
$("downloads").addEventListener("click", ({ target }) => { if (target.dataset.media) download(target); });
$("list").addEventListener("toggle", () => { if ($("list").open) list(); });
$("more").addEventListener("click", () => {
  const first = listed;
  listed += LISTED;
  list();
  $("list").querySelectorAll("li button")[first].focus();
});
$("copy").hidden = !navigator.clipboard;
$("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText($("link").href);
  $("copy").textContent = "Copied";
  setTimeout(() => { $("copy").textContent = "Copy"; }, 2000);
});
$("link").addEventListener("click", (event) => event.preventDefault());
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = $("key").value.trim();
  $("key").value = "";
  if (!/^[\x21-\x7e]+$/.test(key)) {
    tellProblem(new Problem(401, { title: "A key is needed", detail: "That is no key: it has other signs than letters, digits and marks." }));
    return;
  }
  useKey(key);
  $("key-form").hidden = true;
  start();
});
$("place-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const [latitude, longitude, ...more] = $("place").value.split(",").map(Number);
  const good = !more.length && Math.abs(latitude) <= 85 && Math.abs(longitude) <= 180;
  $("place").setCustomValidity(good ? "" : "Degrees, as in 38.1334, -39.5411.");
  if (good) map.setView([latitude, longitude], Math.max(map.getZoom(), 16));
  else $("place").reportValidity();
});
$("place").addEventListener("input", () => $("place").setCustomValidity(""));
window.addEventListener("hashchange", () => { if (imageryLayer && location.hash !== $("link").getAttribute("href")) follow(location.hash); });

start();
