"""Pixels of the synthetic city: materials, roofs, crowns, sunlight, shadows and the sensor.

Everything that stands is drawn into one height map, from which the shadows follow; so all of them agree with
one sun. Geometry comes from `scene`; files and georeference are the business of `city`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from footprint_pipeline.spacenet.synthetic.scene import Building, Ground, Prop, Scene, Stripe, Tree, Wing
from footprint_pipeline.spacenet.synthetic.streets import signed_distance

SUN_AZIMUTH = np.radians(128.0)  # clockwise from north: the shadows fall to the north-west
SUN_ELEVATION = np.radians(47.0)
_SUN = np.array(  # towards the sun: east, south, up
    [
        np.sin(SUN_AZIMUTH) * np.cos(SUN_ELEVATION),
        -np.cos(SUN_AZIMUTH) * np.cos(SUN_ELEVATION),
        np.sin(SUN_ELEVATION),
    ]
)
_IN_SHADE = np.array([0.42, 0.45, 0.52], np.float32)
_SHIFT = 4  # fixed point bits of OpenCV's drawing


class Material(NamedTuple):
    """Two colours (RGB) that mix by the noise of about 3 m and 25 m, and the strength of the finest noise."""

    low: tuple[int, int, int]
    high: tuple[int, int, int]
    middle: float
    wide: float
    fine: float


_GROUND = {
    "asphalt": Material((98, 97, 94), (124, 121, 116), 0.12, 0.25, 3.5),
    "asphalt_old": Material((120, 114, 105), (146, 139, 128), 0.15, 0.25, 4.0),
    "pavement": Material((146, 141, 132), (170, 164, 153), 0.15, 0.25, 4.0),
    "concrete": Material((150, 145, 135), (188, 182, 170), 0.2, 0.25, 4.0),
    "paving": Material((140, 118, 100), (170, 150, 130), 0.2, 0.2, 6.0),
    "dirt": Material((150, 126, 98), (190, 168, 138), 0.2, 0.2, 5.0),
    "soil": Material((128, 104, 80), (176, 152, 122), 0.25, 0.25, 6.0),
    "yard": Material((112, 104, 94), (164, 152, 134), 0.35, 0.2, 8.0),
    "lawn": Material((82, 98, 56), (114, 124, 76), 0.2, 0.3, 5.0),
    "dry": Material((112, 112, 70), (158, 146, 104), 0.25, 0.35, 6.0),
    "garden": Material((58, 80, 42), (138, 130, 92), 0.3, 0.3, 8.0),
    "meadow": Material((70, 88, 46), (130, 128, 82), 0.25, 0.4, 8.0),
    "crop": Material((74, 94, 50), (106, 120, 68), 0.15, 0.35, 5.0),
    "water": Material((58, 72, 68), (82, 94, 86), 0.06, 0.3, 1.5),
    "pool": Material((70, 150, 172), (110, 190, 205), 0.2, 0.1, 3.0),
    "court_red": Material((150, 92, 70), (166, 104, 80), 0.1, 0.2, 3.0),
    "court_green": Material((62, 104, 84), (74, 116, 94), 0.1, 0.2, 3.0),
}


class Covering(NamedTuple):
    """A roof covering: colour (RGB), ribs (distance in metres, strength), sheets (strength), stains, grain."""

    colour: tuple[int, int, int]
    rib_m: float
    ribs: float
    sheets: float
    stains: float
    fine: float


_COVERINGS = {
    "tiles_red": Covering((164, 104, 80), 1.1, 0.05, 0.05, 0.07, 5.0),
    "tiles_brown": Covering((126, 92, 74), 1.1, 0.05, 0.05, 0.07, 5.0),
    "tiles_grey": Covering((104, 100, 98), 1.1, 0.05, 0.05, 0.06, 4.0),
    "tiles_pale": Covering((188, 158, 126), 1.1, 0.04, 0.05, 0.07, 5.0),
    "cement": Covering((134, 128, 118), 1.4, 0.06, 0.1, 0.12, 4.0),
    "concrete": Covering((148, 142, 132), 0.0, 0.0, 0.0, 0.14, 5.0),
    "concrete_light": Covering((188, 182, 172), 0.0, 0.0, 0.0, 0.12, 5.0),
    "gravel": Covering((140, 136, 130), 0.0, 0.0, 0.0, 0.07, 6.0),
    "membrane": Covering((206, 204, 198), 5.0, 0.02, 0.0, 0.05, 3.0),
    "sheet_light": Covering((204, 204, 200), 1.6, 0.04, 0.07, 0.06, 3.0),
    "sheet_blue": Covering((118, 134, 150), 1.6, 0.04, 0.05, 0.06, 3.0),
    "sheet_green": Covering((104, 124, 108), 1.6, 0.04, 0.05, 0.06, 3.0),
    "sheet_rust": Covering((140, 102, 80), 1.6, 0.05, 0.22, 0.12, 5.0),
}
_PROPS = {
    "white": (226, 226, 222),
    "silver": (172, 174, 176),
    "grey": (108, 110, 114),
    "black": (48, 48, 52),
    "glass": (74, 80, 88),
    "red": (158, 56, 48),
    "blue": (58, 84, 132),
    "rust": (142, 88, 60),
    "tank": (92, 128, 160),
    "skylight": (186, 202, 206),
}
_CROWNS = ((72, 92, 50), (60, 80, 48), (96, 106, 62))


@dataclass(frozen=True)
class Picture:
    """A picture of a scene.

    Attributes:
        rgb: uint8, 1 to 255, shape (H, W, 3).
        roofs: where a roof was drawn, also where a crown hides it now; bool, shape (H, W).
    """

    rgb: np.ndarray
    roofs: np.ndarray


@dataclass(frozen=True)
class _Canvas:
    """The layers under the brush: colour (H, W, 3), light and height in metres (H, W), noise; all float32."""

    gsd_m: float
    colour: np.ndarray
    light: np.ndarray
    height: np.ndarray
    fine: np.ndarray
    middle: np.ndarray
    wide: np.ndarray

    def window(self, ring: np.ndarray, margin_px: int = 2) -> tuple[slice, slice] | None:
        """Rows and columns around a ring, None outside of the canvas."""
        x0, y0 = np.floor(ring.min(axis=0) / self.gsd_m).astype(int) - margin_px
        x1, y1 = np.ceil(ring.max(axis=0) / self.gsd_m).astype(int) + margin_px
        rows, columns = self.height.shape
        window = slice(max(y0, 0), min(y1, rows)), slice(max(x0, 0), min(x1, columns))
        return window if window[0].start < window[0].stop and window[1].start < window[1].stop else None

    def places(self, window: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """Ground coordinates of the pixel centres in a window, metres, shape (1, w) and (h, 1)."""
        x, y = (np.arange(part.start, part.stop) + 0.5 for part in reversed(window))
        return x[None, :] * self.gsd_m, y[:, None] * self.gsd_m

    def cover(self, ring: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        """Share of each pixel of a window that a ring of any form covers, float32, shape (h, w)."""
        mask = np.zeros((window[0].stop - window[0].start, window[1].stop - window[1].start), np.uint8)
        corners = ring / self.gsd_m - 0.5 - (window[1].start, window[0].start)
        points = np.round(corners * 2**_SHIFT).astype(np.int32)
        cv2.fillPoly(mask, [points], 255, cv2.LINE_AA, _SHIFT)
        return mask.astype(np.float32) / 255.0

    def blend(self, window: tuple[slice, slice], alpha: np.ndarray, colour: np.ndarray) -> None:
        """Lay a colour, shape (3,) or (h, w, 3), over the window."""
        patch = self.colour[window]
        patch += alpha[..., None] * (colour - patch)


def render(scene: Scene, *, height: int, width: int, gsd_m: float, rng: np.random.Generator) -> Picture:
    """An aerial picture of the scene as a nadir sensor would take it.

    Args:
        scene: what to draw.
        height: rows of the picture.
        width: columns of the picture.
        gsd_m: size of a pixel on the ground, metres.
        rng: where chance comes from.
    """
    canvas = _blank(height, width, gsd_m, rng)
    for ground in scene.grounds:
        _draw_ground(canvas, ground)
    for stripe in scene.stripes:
        _draw_stripe(canvas, stripe)
    for building in scene.buildings:
        _draw_building(canvas, building, rng)
    roofs = canvas.height > 0
    for prop in scene.props:
        _draw_prop(canvas, prop)
    for tree in scene.trees:
        _draw_tree(canvas, tree, rng)
    return Picture(_sensed(canvas, rng), roofs)


def _blank(height: int, width: int, gsd_m: float, rng: np.random.Generator) -> _Canvas:
    """Asphalt from edge to edge."""
    fine = cv2.GaussianBlur(rng.standard_normal((height, width), np.float32), (0, 0), 0.6) * np.float32(2.0)
    middle = _noise(height, width, 3.0 / gsd_m, rng) + np.float32(0.4) * fine
    wide = _noise(height, width, 25.0 / gsd_m, rng) + np.float32(0.5) * _noise(height, width, 9.0 / gsd_m, rng)
    colour = np.empty((height, width, 3), np.float32)
    flat = np.ones((height, width), np.float32)
    canvas = _Canvas(gsd_m, colour, flat, np.zeros((height, width), np.float32), fine, middle, wide)
    colour[:] = _textured(canvas, _GROUND["asphalt"], (slice(0, height), slice(0, width)))
    return canvas


def _noise(height: int, width: int, cell_px: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of about unit variance and spots of about `cell_px`, float32, shape (height, width)."""
    step = max(cell_px / 2.5, 1.0)
    rows, columns = int(height / step) + 6, int(width / step) + 6
    coarse = cv2.GaussianBlur(rng.standard_normal((rows, columns), np.float32), (0, 0), 1.25)
    size = round(columns * step), round(rows * step)
    return np.float32(4.4) * cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)[:height, :width]


def _textured(canvas: _Canvas, material: Material, window: tuple[slice, slice]) -> np.ndarray:
    low, high = np.array(material.low, np.float32), np.array(material.high, np.float32)
    mix = 0.5 + material.middle * canvas.middle[window] + material.wide * canvas.wide[window]
    texture = low + np.clip(mix, 0, 1)[..., None] * (high - low)
    texture += (material.fine * canvas.fine[window])[..., None]
    return texture


def _draw_ground(canvas: _Canvas, ground: Ground) -> None:
    window = canvas.window(ground.ring)
    if window is None:
        return
    texture = _textured(canvas, _GROUND[ground.material], window)
    if ground.rows_m:
        x, y = canvas.places(window)
        across = y * ground.rows_along[0] - x * ground.rows_along[1]
        furrows = 1 + 0.1 * np.sin(across * (2 * np.pi / ground.rows_m)) + 0.05 * canvas.middle[window]
        texture *= furrows.astype(np.float32)[..., None]
    canvas.blend(window, canvas.cover(ground.ring, window), texture)


def _draw_stripe(canvas: _Canvas, stripe: Stripe) -> None:
    length = float(np.hypot(*(stripe.end - stripe.start)))
    along = (stripe.end - stripe.start) / max(length, 1e-9)
    side = np.array([-along[1], along[0]]) * stripe.width_m / 2
    dash = stripe.dash_m or length
    for start in np.arange(0.0, length, 2 * dash):
        first, last = stripe.start + start * along, stripe.start + min(start + dash, length) * along
        ring = np.array([first - side, last - side, last + side, first + side])
        window = canvas.window(ring)
        if window is not None:
            x, y = canvas.places(window)
            distance = signed_distance(ring, x, y)[0].max(axis=0)
            share = np.clip(0.5 - distance / canvas.gsd_m, 0, 1) * min(1.0, stripe.width_m / canvas.gsd_m)
            canvas.blend(window, 0.8 * share.astype(np.float32), np.array([205, 203, 196], np.float32))


def _draw_building(canvas: _Canvas, building: Building, rng: np.random.Generator) -> None:
    covering = _COVERINGS[building.covering]
    tint = np.array(covering.colour, np.float32) * np.float32(building.tone) * rng.normal(1, 0.012, 3)
    sheets = rng.normal(0, covering.sheets, (16, 16))
    for wing in building.wings:
        window = canvas.window(wing.ring)
        if window is None:
            continue
        x, y = canvas.places(window)
        top, light, across, beyond = _roof(wing, building.hole, x, y)
        share = np.clip(0.5 - beyond / canvas.gsd_m, 0, 1).astype(np.float32)
        if len(building.wings) > 1:  # a later wing shows only where it is the higher one
            share *= top >= canvas.height[window] - 1e-3
        along, rise = across
        pattern = 1.0 + covering.stains * 0.6 * (0.6 * canvas.middle[window] + canvas.wide[window])
        if covering.rib_m:
            pattern += covering.ribs * np.sin(along * (2 * np.pi / covering.rib_m))
        if covering.sheets:
            pattern += sheets[(along // 1.6).astype(int) % 16, (rise // 3.0).astype(int) % 16]
        if not wing.eaves:  # a parapet
            pattern += np.where((beyond > -0.9) & (beyond < -0.1), 0.12, 0.0)
        roof = tint * pattern.astype(np.float32)[..., None] + covering.fine * canvas.fine[window][..., None]
        canvas.blend(window, share, roof.astype(np.float32))
        solid = share > 0.5
        canvas.height[window][solid] = top[solid]
        canvas.light[window][solid] = light[solid]


def _roof(
    wing: Wing, hole: np.ndarray | None, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Height, light, coordinates on the roof (along the eave, up from it) and distance beyond the outline."""
    distances, normals = signed_distance(wing.ring, x, y)
    beyond = distances.max(axis=0)
    eaves, facing = -distances[list(wing.eaves)], normals[list(wing.eaves)]
    if hole is not None:
        inner, inner_normals = signed_distance(hole, x, y)
        beyond = np.maximum(beyond, -inner.max(axis=0))
        if wing.eaves:
            nearest = inner.argmax(axis=0)
            inner_rise = inner.max(axis=0)
            eaves = np.concatenate([eaves, np.where(np.arange(len(hole))[:, None, None] == nearest, inner_rise, 1e3)])
            facing = np.concatenate([facing, -inner_normals])
    if not wing.eaves:
        flat = np.full(beyond.shape, wing.height_m, np.float32)
        return flat, np.ones_like(flat), (x + 0 * y, y + 0 * x), beyond
    plane = eaves.argmin(axis=0)
    rise = eaves.min(axis=0)
    normal = facing[plane]
    sunlit = (wing.pitch * (normal @ _SUN[:2]) + _SUN[2]) / np.hypot(1.0, wing.pitch) / _SUN[2]
    along = normal[..., 0] * y - normal[..., 1] * x
    ordered = np.sort(eaves, axis=0) if len(eaves) > 1 else None
    light = np.clip(0.35 + 0.65 * sunlit, 0.3, 1.5)
    if ordered is not None:  # the ridge catches the light
        light = light + 0.1 * (ordered[1] - ordered[0] < 0.45)
    top = wing.height_m + wing.pitch * np.maximum(rise, 0)
    return top.astype(np.float32), light.astype(np.float32), (along, rise), beyond


def _draw_prop(canvas: _Canvas, prop: Prop) -> None:
    window = canvas.window(prop.ring)
    if window is None:
        return
    x, y = canvas.places(window)
    beyond = signed_distance(prop.ring, x, y)[0].max(axis=0)
    share = np.clip(0.5 - beyond / canvas.gsd_m, 0, 1).astype(np.float32)
    solid = share > 0.5
    if not (canvas.height[window][solid] < prop.height_m).all():
        return
    canvas.blend(window, share, np.array(_PROPS[prop.colour], np.float32) + 3.0 * canvas.fine[window][..., None])
    canvas.height[window][solid] = prop.height_m
    canvas.light[window][solid] = 1.0


def _draw_tree(canvas: _Canvas, tree: Tree, rng: np.random.Generator) -> None:
    window = canvas.window(np.array([tree.centre - tree.radius_m, tree.centre + tree.radius_m]))
    tint = rng.normal(1.0, [0.1, 0.07, 0.08]) * rng.normal(1.0, 0.12)
    lobes = rng.uniform(0, 2 * np.pi, 2)
    if window is None or min(window[0].stop - window[0].start, window[1].stop - window[1].start) < 2:
        return
    x, y = canvas.places(window)
    u, v = (x - tree.centre[0]) / tree.radius_m, (y - tree.centre[1]) / tree.radius_m
    angle = np.arctan2(v, u)
    edge = 1 + 0.1 * np.sin(3 * angle + lobes[0]) + 0.07 * np.sin(5 * angle + lobes[1]) + 0.08 * canvas.fine[window]
    reach = np.hypot(u, v) / edge
    dome = np.sqrt(np.clip(1 - reach**2, 0, 1))
    crown = tree.height_m - tree.radius_m + tree.radius_m * dome + 0.5 * canvas.fine[window] * np.minimum(dome * 2, 1)
    share = np.clip((1 - reach) * tree.radius_m / canvas.gsd_m + 0.5, 0, 1) * (crown > canvas.height[window])
    slope_y, slope_x = np.gradient(crown, canvas.gsd_m)
    lit = (_SUN[2] - slope_x * _SUN[0] - slope_y * _SUN[1]) / np.sqrt(1 + slope_x**2 + slope_y**2)
    shading = np.clip(0.5 + 0.62 * lit + 0.05 * canvas.fine[window], 0.4, 1.45)
    colour = np.array(_CROWNS[tree.species], np.float32) * tint.astype(np.float32)
    solid = share > 0.5
    canvas.blend(window, share.astype(np.float32), (colour * shading[..., None]).astype(np.float32))
    canvas.height[window][solid] = crown[solid]
    canvas.light[window][solid] = 1.0


def _shade(height: np.ndarray, gsd_m: float) -> np.ndarray:
    """How much of each pixel lies in the shadow of something higher, float32 in [0, 1], same shape.

    The height map is moved step by step away from the sun and lowered by the slope of its rays; what comes to
    lie above the ground throws its shadow there.
    """
    rays = np.full_like(height, -np.inf)
    drop = np.tan(SUN_ELEVATION)
    rows, columns = height.shape
    for step in range(1, int(height.max() / drop / gsd_m) + 2):
        dx, dy = round(-np.sin(SUN_AZIMUTH) * step), round(np.cos(SUN_AZIMUTH) * step)
        if max(abs(dx), abs(dy)) >= min(rows, columns):
            break
        to = (slice(max(dy, 0), rows + min(dy, 0)), slice(max(dx, 0), columns + min(dx, 0)))
        source = (slice(max(-dy, 0), rows + min(-dy, 0)), slice(max(-dx, 0), columns + min(-dx, 0)))
        np.maximum(rays[to], height[source] - np.float32(step * gsd_m * drop), out=rays[to])
    return np.clip((rays - height) / np.float32(0.5), 0, 1)


def _sensed(canvas: _Canvas, rng: np.random.Generator) -> np.ndarray:
    """Light, shadow, haze, the sensor's blur and its noise; RGB, uint8, 1 to 255."""
    height, width = canvas.height.shape
    shade = cv2.GaussianBlur(_shade(canvas.height, canvas.gsd_m), (0, 0), 0.5)
    image = canvas.colour
    image *= canvas.light[..., None] * (1 - shade[..., None] * (1 - _IN_SHADE))
    image *= (1 + np.float32(0.035) * _noise(height, width, 180.0 / canvas.gsd_m, rng))[..., None]
    image += np.array([4, 5, 8], np.float32)
    image = cv2.GaussianBlur(image, (0, 0), 0.55)
    image += rng.standard_normal(image.shape, np.float32) * (np.float32(1.2) + np.float32(0.012) * image)
    return np.clip(np.rint(image), 1, 255).astype(np.uint8)
