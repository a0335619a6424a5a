// Drawing a rectangle: by dragging, or by two clicks on opposite corners. Shift does it without the button.

const { L } = window;
const CLICK_PX = 6;

// done(bounds) is called with what was drawn, changed(active) when drawing starts or ends.
export function drawing(map, { done, changed }) {
  const container = map.getContainer();
  let active = false;
  let corner = null;
  let pressed = null;
  let shape = null;

  const place = (event) => map.mouseEventToLatLng(event);
  const show = (event) => {
    const bounds = L.latLngBounds(corner, place(event));
    if (shape) shape.setBounds(bounds);
    else shape = L.rectangle(bounds, { color: "#fff", weight: 2, dashArray: "6 4", interactive: false }).addTo(map);
    return bounds;
  };
  const set = (value) => {
    if (active === value) return;
    active = value;
    map.dragging[active ? "disable" : "enable"]();
    container.classList.toggle("drawing", active);
    if (!active) {
      shape?.remove();
      corner = pressed = shape = null;
    }
    changed(active);
  };

  const onMap = (event) => event.isPrimary && event.button === 0 && !event.target.closest(".leaflet-control, .leaflet-popup");
  container.addEventListener("pointerdown", (event) => {
    if (event.shiftKey && onMap(event)) set(true);
    if (!active || !onMap(event)) return;
    event.stopPropagation();
    pressed = [event.clientX, event.clientY];
    corner ??= place(event);
    container.setPointerCapture(event.pointerId);
  }, true);
  container.addEventListener("pointermove", (event) => {
    if (active && corner && event.isPrimary) show(event);
  });
  container.addEventListener("pointerup", (event) => {
    if (!active || !pressed || !event.isPrimary) return;
    const far = Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > CLICK_PX;
    pressed = null;
    const second = shape && !far && corner && !corner.equals(place(event), 1e-9) && shape.placed;
    if (!far && !second) { // the first of two clicks
      show(event);
      shape.placed = true;
      return;
    }
    const bounds = show(event);
    // The click that a browser may make of it is no question of its own.
    const swallow = (click) => click.stopPropagation();
    container.addEventListener("click", swallow, true);
    setTimeout(() => container.removeEventListener("click", swallow, true), 300);
    setTimeout(() => set(false));
    done(bounds);
  });
  container.addEventListener("pointercancel", () => set(false));
  return { toggle: () => set(!active), stop: () => set(false), get active() { return active; } };
}
