// What the address tells of the view, after its #: so that a link shows it again. A key is never part of it.

const NUMBERS = { tolerance: [0.01, 1], min_area: [0, 1e6], opacity: [0, 1] };

function numbers(text, count, separator) {
  const values = (text || "").split(separator).map(Number);
  return text && values.length === count && values.every(Number.isFinite) ? values : null;
}

// → {at: [zoom, latitude, longitude], area: [west, south, east, north], tolerance, min_area, opacity, outline, imagery};
// what is not there or makes no sense is left out.
export function read(fragment) {
  const told = new URLSearchParams(fragment.replace(/^#/, ""));
  const view = {};
  const at = numbers(told.get("at"), 3, "/");
  if (at && Math.abs(at[1]) <= 90) view.at = at;
  const area = numbers(told.get("area"), 4, ",");
  if (area && area[0] < area[2] && area[1] < area[3]) view.area = area;
  for (const [name, [low, high]] of Object.entries(NUMBERS)) {
    const [value] = numbers(told.get(name), 1, " ") || [];
    if (value >= low && value <= high) view[name] = value;
  }
  if (["raw", "regularised"].includes(told.get("outline"))) view.outline = told.get("outline");
  if (told.get("imagery")) view.imagery = told.get("imagery");
  return view;
}

// Of the sliders only those that were chosen: the others are the model's, whichever answers then.
export function write(view, chosen) {
  const { at: [zoom, latitude, longitude], area, outline, imagery } = view;
  const told = [`at=${+zoom.toFixed(2)}/${latitude.toFixed(6)}/${longitude.toFixed(6)}`];
  if (area) told.push(`area=${area.join(",")}`);
  for (const name of Object.keys(NUMBERS)) if (chosen.has(name)) told.push(`${name}=${view[name]}`);
  if (outline !== "raw") told.push(`outline=${outline}`);
  if (imagery) told.push(`imagery=${encodeURIComponent(imagery)}`);
  return `#${told.join("&")}`;
}
