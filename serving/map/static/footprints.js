// The outlines on the map: coloured by confidence, shown from a minimum area on.

const { L } = window;

// Colours that people who see few colours tell apart too; the least sure are dashed besides.
export const CLASSES = [
  { from: 0.9, told: "90 % and more", colour: "#4aa3ff" },
  { from: 0.7, told: "70 to 90 %", colour: "#c6ecff" },
  { from: 0.5, told: "50 to 70 %", colour: "#ffc36b" },
  { from: 0, told: "below 50 %", colour: "#ff6b3d", dashArray: "5 4" },
];

// Each line is drawn over a wider dark one, so that it shows on any imagery.
const Cased = L.Canvas.extend({
  _fillStroke(context, layer) {
    const { weight } = layer.options;
    context.globalAlpha = 0.65;
    context.strokeStyle = "#000";
    context.lineWidth = weight + 2.5;
    context.setLineDash?.([]);
    context.stroke();
    L.Canvas.prototype._fillStroke.call(this, context, layer);
  },
});

export class Footprints {
  constructor(map) {
    this.map = map;
    this.group = L.layerGroup().addTo(map);
    this.renderer = new Cased({ padding: 0.3, tolerance: 4 });
    this.clear();
  }

  clear() {
    this.group.clearLayers();
    this.collection = null;
    this.all = [];
    this.shown = [];
  }

  // A FeatureCollection of the service, the surest first.
  show(collection, minArea) {
    this.clear();
    this.collection = collection;
    this.all = collection.features.map((feature) => ({ feature, kind: kindOf(feature), layer: this.outline(feature) }));
    this.filter(minArea);
  }

  outline(feature) {
    const rings = feature.geometry.coordinates.map((ring) => L.GeoJSON.coordsToLatLngs(ring, 0));
    const { colour, dashArray } = CLASSES[kindOf(feature)];
    const style = { color: colour, weight: 2, dashArray, fillOpacity: 0.12, renderer: this.renderer };
    return L.polygon(rings, { ...style, bubblingMouseEvents: false }).bindPopup(() => told(feature));
  }

  filter(minArea) {
    this.shown = this.all.filter(({ feature }) => feature.properties.area_m2 >= minArea);
    const keep = new Set(this.shown.map(({ layer }) => layer));
    for (const { layer } of this.all) {
      if (!keep.has(layer)) this.group.removeLayer(layer);
      else if (!this.group.hasLayer(layer)) this.group.addLayer(layer);
    }
  }

  get area() {
    return this.shown.reduce((sum, { feature }) => sum + feature.properties.area_m2, 0);
  }

  count(kind) {
    return this.shown.filter((each) => each.kind === kind).length;
  }

  geojson() {
    const features = this.shown.map(({ feature }) => feature);
    return { ...this.collection, numberMatched: features.length, numberReturned: features.length, features };
  }
}

export function summary({ confidence, area_m2: area }) {
  return `${Math.round(100 * confidence)} % sure, ${metres(area)}`;
}

export function metres(area) {
  return `${area.toLocaleString("en", { maximumFractionDigits: area < 10 ? 1 : 0 })} m²`;
}

function kindOf(feature) {
  return CLASSES.findIndex(({ from }) => feature.properties.confidence >= from);
}

function told(feature) {
  const box = document.createElement("div");
  const { imagery, imagery_date: date, model_version: version } = feature.properties;
  const lines = [summary(feature.properties), `Model version ${version}`, date ? `${imagery}, ${date}` : imagery, feature.id];
  for (const line of lines) box.appendChild(document.createElement("p")).textContent = line;
  return box;
}
