// What lies below the outlines: imagery and mask, as tiles that are fetched with the key and drawn on canvases.

import { ask } from "./service.js";

const { L } = window;
const MASK_RGB = [190, 80, 255];
const MOST_MASK_TILES = 64;

const Fetched = L.GridLayer.extend({
  // Subclasses: url(coords), and paint(canvas, image, coords). `problem` is fired for what is no "nothing there". A tile
  // that is refused for a while is asked for again when that is over.
  createTile(coords, done) {
    const canvas = L.DomUtil.create("canvas");
    canvas.width = canvas.height = 256;
    canvas.abort = new AbortController();
    this.live.add(canvas);
    this.attempt(canvas, coords, done);
    return canvas;
  },
  async attempt(canvas, coords, done) {
    try {
      await this.load(canvas, coords);
      done(null, canvas);
    } catch (error) {
      if (error.name === "AbortError") return;
      canvas.empty = error.kind === "no-imagery";
      if (!canvas.empty) this.fire("problem", { problem: error });
      const wait = 1000 * error.retryAfter * (1 + Math.random());
      if (wait) canvas.later = setTimeout(() => this.attempt(canvas, coords, done), wait);
      else done(canvas.empty ? null : error, canvas);
    }
  },
  async load(canvas, coords) {
    const response = await ask(this.url(coords), { signal: canvas.abort.signal });
    const image = await createImageBitmap(await response.blob());
    this.paint(canvas, image, coords);
  },
  initialize(options) {
    L.setOptions(this, options);
    this.live = new Set();
    this.on("tileunload", ({ tile }) => { tile.abort.abort(); clearTimeout(tile.later); this.live.delete(tile); });
  },
});

export const ImageryLayer = Fetched.extend({
  url({ z, x, y }) {
    return `v1/imagery/${z}/${x}/${y}?imagery=${encodeURIComponent(this.options.imagery)}`;
  },
  paint(canvas, image) {
    canvas.getContext("2d").drawImage(image, 0, 0);
  },
  shows() { // whether there is imagery in view
    return [...this.live].some((tile) => !tile.empty);
  },
});

export const MaskLayer = Fetched.extend({
  // The building probability of an area (options.bounds), shown where it is above 1 - options.tolerance. It is the
  // alpha of a map tile.
  url({ z, x, y }) {
    return `v1/tiles/${z}/${x}/${y}.png?imagery=${encodeURIComponent(this.options.imagery)}`;
  },
  paint(canvas, image, coords) {
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const rgba = context.getImageData(0, 0, 256, 256).data;
    canvas.probability = new Uint8Array(256 * 256);
    const [west, south, east, north] = this.within(coords);
    for (let row = north; row < south; row++) {
      for (let column = west; column < east; column++) {
        const pixel = row * 256 + column;
        canvas.probability[pixel] = rgba[4 * pixel + 3];
      }
    }
    this.threshold(canvas);
  },
  within({ z, x, y }) { // the area in pixels of a tile
    const corner = (latlng) => L.CRS.EPSG3857.latLngToPoint(latlng, z).subtract([256 * x, 256 * y]).round();
    const [low, high] = [corner(this.options.bounds.getNorthWest()), corner(this.options.bounds.getSouthEast())];
    return [low.x, high.y, high.x, low.y].map((value) => Math.min(Math.max(value, 0), 256));
  },
  threshold(canvas) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(256, 256);
    const level = 255 * (1 - this.options.tolerance);
    const colour = new Uint32Array(new Uint8Array([...MASK_RGB, 255]).buffer)[0];
    const pixels = new Uint32Array(image.data.buffer);
    canvas.probability.forEach((value, pixel) => { if (value > level) pixels[pixel] = colour; });
    context.putImageData(image, 0, 0);
  },
  setTolerance(tolerance) {
    this.options.tolerance = tolerance;
    for (const canvas of this.live) if (canvas.probability) this.threshold(canvas);
  },
});

// The finest zoom of map tiles that shows all the model sees of an area, and takes few of them.
export function maskZoom(bounds, gsd) {
  const latitude = bounds.getCenter().lat * Math.PI / 180;
  const pixel = 2 * Math.PI * L.CRS.EPSG3857.projection.R / 256 * Math.cos(latitude); // metres, at zoom 0
  let zoom = Math.ceil(Math.log2(pixel / gsd) - 0.5);
  const tiles = () => {
    const [low, high] = [bounds.getNorthWest(), bounds.getSouthEast()].map((it) => L.CRS.EPSG3857.latLngToPoint(it, zoom).divideBy(256).floor());
    return (high.x - low.x + 1) * (high.y - low.y + 1);
  };
  while (zoom > 0 && tiles() > MOST_MASK_TILES) zoom--;
  return zoom;
}

// Who made the imagery, and when, as HTML.
export function credit({ attribution, date }) {
  const text = document.createElement("span");
  text.textContent = [attribution, date].filter(Boolean).join(", ");
  return text.innerHTML;
}
