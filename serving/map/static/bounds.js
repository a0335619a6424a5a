// Bounds: of Leaflet, of the service, and around the globe.

const { L } = window;
export const WORLD = L.latLngBounds([-85.05, -180], [85.05, 180]);

// Longitudes of Leaflet go on beyond the antimeridian: the same place has one in every turn of the globe.
export function turned(bounds, degrees) {
  return L.latLngBounds([bounds.getSouth(), bounds.getWest() + degrees], [bounds.getNorth(), bounds.getEast() + degrees]);
}

// By how much bounds must be turned to meet others, degrees; undefined where they never do.
export function turnToMeet(bounds, others) {
  return [0, -360, 360].find((degrees) => turned(bounds, degrees).intersects(others));
}

// What two bounds that meet have in common.
export function common(one, other) {
  return L.latLngBounds(
    [Math.max(one.getSouth(), other.getSouth()), Math.max(one.getWest(), other.getWest())],
    [Math.min(one.getNorth(), other.getNorth()), Math.min(one.getEast(), other.getEast())],
  );
}

// Bounds of Leaflet → what the service takes: within the world, to a centimetre.
export function boxOf(bounds) {
  const [low, high] = [WORLD.getSouthWest(), WORLD.getNorthEast()];
  const within = (value, from, to) => +Math.min(Math.max(value, from), to).toFixed(7);
  const longitude = (value) => within(value, low.lng, high.lng);
  const latitude = (value) => within(value, low.lat, high.lat);
  return [longitude(bounds.getWest()), latitude(bounds.getSouth()), longitude(bounds.getEast()), latitude(bounds.getNorth())];
}

// Bounds of the service → Leaflet's.
export function boundsOf([west, south, east, north]) {
  return L.latLngBounds([south, west], [north, east]);
}

// Where a source has imagery; null where it does not say.
export function extentOf(source) {
  return source.bounds ? boundsOf(source.bounds) : null;
}
