"""The things a synthetic city is made of, as plain geometry without pixels.

Here belong the dataclasses only. `blocks` puts them in their places, `render` draws them.
The frame is that of `streets`: metres, x east, y south, the upper left corner of the image is (0, 0).
"""

from dataclasses import dataclass, field

import numpy as np
import shapely


@dataclass(frozen=True)
class Wing:
    """A convex part of a building: the roof rises from the edges named in `eaves`, none of them for a flat roof."""

    ring: np.ndarray
    eaves: tuple[int, ...]
    height_m: float
    pitch: float


@dataclass(frozen=True)
class Building:
    """Wings under one roof covering, less a courtyard; `tone` is the brightness of this roof against its kind."""

    wings: tuple[Wing, ...]
    covering: str
    tone: float
    hole: np.ndarray | None = None

    @property
    def footprint(self) -> shapely.Polygon:
        """The outline on the ground."""
        outline = shapely.union_all([shapely.Polygon(wing.ring) for wing in self.wings])
        return outline if self.hole is None else outline.difference(shapely.Polygon(self.hole))


@dataclass(frozen=True)
class Ground:
    """A patch of ground, convex or not; `rows_m` is the distance of furrows along `rows_along`, 0 without."""

    ring: np.ndarray
    material: str
    rows_m: float = 0.0
    rows_along: tuple[float, float] = (1.0, 0.0)


@dataclass(frozen=True)
class Prop:
    """A box that is no building: a car, a container, a ventilator or a tank on a roof."""

    ring: np.ndarray
    height_m: float
    colour: str


@dataclass(frozen=True)
class Tree:
    """A crown: centre, radius and height in metres."""

    centre: np.ndarray
    radius_m: float
    height_m: float
    species: int


@dataclass(frozen=True)
class Stripe:
    """Paint on the ground; `dash_m` is the length of a dash and of a gap, 0 for a line without gaps."""

    start: np.ndarray
    end: np.ndarray
    width_m: float
    dash_m: float = 0.0


@dataclass
class Scene:
    """A city without pixels; later things of a kind lie on earlier ones."""

    width_m: float
    height_m: float
    grounds: list[Ground] = field(default_factory=list)
    stripes: list[Stripe] = field(default_factory=list)
    buildings: list[Building] = field(default_factory=list)
    props: list[Prop] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)
