"""The parts that districts share: houses, halls, gardens, cars, trees, and how land is cut into lots.

`blocks` decides which of them stand on a block.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import shapely

from footprint_pipeline.spacenet.synthetic.scene import Building, Ground, Prop, Scene, Stripe, Tree, Wing
from footprint_pipeline.spacenet.synthetic.streets import Box, area, bounding_box, inset

ROOFS = {
    "suburb": ("tiles_red", "tiles_brown", "tiles_grey", "tiles_red", "tiles_pale"),
    "dense": ("cement", "sheet_rust", "sheet_light", "concrete", "concrete_light", "tiles_red", "cement", "sheet_blue"),
    "courtyard": ("tiles_red", "tiles_brown", "tiles_grey", "tiles_red", "gravel"),
    "industrial": ("membrane", "sheet_light", "cement", "gravel", "sheet_blue", "sheet_green", "membrane"),
    "village": ("tiles_red", "cement", "sheet_rust", "sheet_light", "tiles_brown"),
}
_CARS = ("white", "white", "silver", "silver", "grey", "black", "black", "red", "blue")


class Builder:
    """Adds things to a scene; `site` is the block in work, which nothing is built or laid beyond."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self.scene = scene
        self.rng = rng
        self.site = shapely.Polygon()

    def pick(self, *options: str) -> str:
        """One of the options, each as likely as the others."""
        return options[int(self.rng.integers(len(options)))]

    def fits(self, ring: np.ndarray) -> bool:
        """Whether a ring is no mere corner (nor inside out) and lies within the site."""
        return area(ring) > 6.0 and bool(self.site.contains(shapely.Polygon(ring)))

    def lay(
        self, ring: np.ndarray, material: str, rows_m: float = 0.0, rows_along: tuple[float, float] = (1.0, 0.0)
    ) -> None:
        """Cover the part of a ring within the site."""
        for part in shapely.get_parts(shapely.Polygon(ring).intersection(self.site)):
            if part.geom_type == "Polygon" and part.area > 0.5:
                corners = np.asarray(part.exterior.coords)[:-1]
                self.scene.grounds.append(Ground(corners, material, rows_m, rows_along))

    def outline(self, ring: np.ndarray) -> None:
        """Paint a line along a ring."""
        for start, end in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            self.scene.stripes.append(Stripe(start, end, 0.2))

    def park_car(self, centre: np.ndarray, along: np.ndarray) -> None:
        """A car with its windscreens, looking along."""
        across = np.array([-along[1], along[0]])
        half_length, half_width = 2.2, 0.95
        body = Box(centre, along, across, 2 * half_length, 2 * half_width)
        colour = self.pick(*_CARS)
        self.scene.props.append(Prop(body.rectangle(-half_length, -half_width, half_length, half_width), 0.9, colour))
        cabin = body.rectangle(-half_length * 0.5, -half_width * 0.85, half_length * 0.35, half_width * 0.85)
        self.scene.props.append(Prop(cabin, 1.1, "glass"))
        top = body.rectangle(-half_length * 0.42, -half_width * 0.75, half_length * 0.12, half_width * 0.75)
        self.scene.props.append(Prop(top, 1.4, colour))

    def pieces(self, length: float, shortest: float, longest: float) -> list[tuple[float, float]]:
        """A length, centred on 0, in equal pieces of about the given size."""
        count = max(1, round(length / self.rng.uniform(shortest, longest)))
        ends = np.linspace(-length / 2, length / 2, count + 1)
        return [(float(start), float(end)) for start, end in pairwise(ends)]

    def lots(self, ring: np.ndarray, narrow: float, wide: float, *, rows_from_m: float = 20.0) -> Iterator[Box]:
        """Rectangles along both long sides of a block, back to back; their front is at -depth / 2."""
        box = bounding_box(ring)
        rows = 2 if box.depth_m > rows_from_m else 1
        depth = box.depth_m / rows
        for row in range(rows):
            turn = 1.0 if row == 0 else -1.0
            for start, end in self.pieces(box.length_m, narrow, wide):
                centre = box.point((start + end) / 2, turn * (-box.depth_m / 2 + depth / 2))
                yield Box(centre, turn * box.along, turn * box.across, end - start, depth)

    def house(
        self, lot: Box, left: float, front: float, width: float, depth: float, *, height: float = 3.2, shed: float = 0.0
    ) -> tuple[Wing, ...]:
        """One or two wings within a rectangle of the lot: gable, hip, shed roof or L-shape."""
        pitch, body = self.rng.uniform(0.35, 0.7), lot.rectangle(left, front, left + width, front + depth)
        chance = self.rng.random()
        if chance < shed:
            return (Wing(body, (int(self.rng.integers(4)),), height, 0.12),)
        ridge_along = (0, 2) if width >= depth else (1, 3)
        if chance > 0.68 and min(width, depth) > 7.5:
            bar, cut = depth * self.rng.uniform(0.5, 0.62), width * self.rng.uniform(0.42, 0.58)
            near = self.rng.random() < 0.5
            main = lot.rectangle(left, front + (depth - bar if near else 0.0), left + width, front + depth)
            if not near:
                main = lot.rectangle(left, front, left + width, front + bar)
            side = 0.0 if self.rng.random() < 0.5 else width - cut
            wing = lot.rectangle(left + side, front, left + side + cut, front + depth)
            return (Wing(main, (0, 2), height, pitch), Wing(wing, (1, 3), height, pitch))
        return (Wing(body, ridge_along if chance < shed + 0.4 * (1 - shed) else (0, 1, 2, 3), height, pitch),)

    def build(self, wings: tuple[Wing, ...], covering: str, *, hole: np.ndarray | None = None) -> None:
        """A building, a little brighter or darker than its kind."""
        self.scene.buildings.append(Building(wings, covering, float(self.rng.normal(1.0, 0.09)), hole))

    def rooftop(self, ring: np.ndarray, height: float) -> None:
        """Ventilators and hatches on a flat roof."""
        box = bounding_box(ring)
        for _ in range(int(self.rng.integers(1, 3 + int(box.length_m * box.depth_m / 250)))):
            u = self.rng.uniform(-0.42, 0.42) * box.length_m
            v = self.rng.uniform(-0.35, 0.35) * box.depth_m
            w, d = self.rng.uniform(1.0, 3.0, 2)
            colour = self.pick("silver", "grey", "silver", "glass")
            self.scene.props.append(
                Prop(box.rectangle(u, v, u + w, v + d), height + self.rng.uniform(0.8, 1.8), colour)
            )

    def grow(
        self,
        ring: np.ndarray,
        count: int,
        avoid: shapely.Geometry,
        *,
        radius: tuple[float, float],
        clumps: bool = False,
    ) -> None:
        """Trees within a ring; a crown may reach over what it avoids by up to half of its radius."""
        box, inside = bounding_box(ring), shapely.Polygon(ring)
        places = self.rng.uniform(-0.5, 0.5, (count, 2))
        if clumps and count:
            centres = self.rng.uniform(-0.5, 0.5, (max(1, count // 14), 2))
            drawn = centres[self.rng.integers(len(centres), size=count)] + self.rng.normal(0, 0.07, (count, 2))
            places = np.where(self.rng.random((count, 1)) < 0.7, drawn, places)
        radii = self.rng.triangular(radius[0], radius[0] + 0.35 * (radius[1] - radius[0]), radius[1], count)
        reach = self.rng.choice([1.0, 1.0, 0.5], count)
        species = self.rng.integers(0, 3, count)
        for (u, v), size, share, kind in zip(places, radii, reach, species, strict=True):
            centre = box.point(u * box.length_m, v * box.depth_m)
            point = shapely.Point(centre)
            if not inside.contains(point) or (not avoid.is_empty and avoid.distance(point) < share * size):
                continue
            tall = size * self.rng.uniform(1.2, 1.9) + 1.0
            self.scene.trees.append(Tree(centre, float(size), float(tall), int(kind)))

    def footpath(self, box: Box, avoid: list[shapely.Geometry]) -> shapely.Polygon:
        """A winding path along a box, and the space that it takes."""
        u = np.linspace(-0.6, 0.6, 40) * box.length_m
        bend, phase = self.rng.uniform(18.0, 40.0), self.rng.uniform(0, 2 * np.pi)
        v = box.depth_m * (self.rng.uniform(-0.25, 0.25) + self.rng.uniform(0.04, 0.12) * np.sin(u / bend + phase))
        path = shapely.LineString([box.point(*place) for place in zip(u, v, strict=True)]).buffer(1.2)
        for part in shapely.get_parts(path.difference(shapely.union_all(avoid))):
            self.lay(np.asarray(part.exterior.coords)[:-1], "dirt")
        return path

    def back_garden(self, lot: Box, start: float) -> None:
        """A shed or a pool, or neither, behind `start` metres across the lot."""
        room = lot.depth_m / 2 - start
        left, right = -lot.length_m / 2 + 1.0, lot.length_m / 2 - 1.0
        if room > 4.5 and self.rng.random() < 0.35:
            width, depth = self.rng.uniform(2.8, 4.5), self.rng.uniform(2.5, 3.5)
            u = left if self.rng.random() < 0.5 else right - width
            shed = lot.rectangle(u, lot.depth_m / 2 - depth - 0.8, u + width, lot.depth_m / 2 - 0.8)
            if self.fits(shed):
                self.build((Wing(shed, (0,), 2.2, 0.15),), self.pick(*ROOFS["dense"]))
        elif room > 6.0 and self.rng.random() < 0.3:
            pool = lot.rectangle(-3.8, start + 0.3, 3.8, start + 4.6)
            self.lay(rounded(pool, 1.0), "paving")
            self.lay(rounded(inset(pool, 0.8), 0.8), "pool")

    def hall(self, lot: Box, left: float, front: float, width: float, depth: float) -> None:
        """A large flat roof or a row of low gables with skylights, often with an office in front."""
        covering, height = self.pick(*ROOFS["industrial"]), self.rng.uniform(6.0, 10.0)
        flat = covering in ("membrane", "gravel")
        bays = 1 if flat else max(1, round(width / self.rng.uniform(16.0, 26.0)))
        bay = width / bays
        wings = [
            Wing(
                lot.rectangle(left + i * bay, front, left + (i + 1) * bay, front + depth),
                () if flat else (1, 3),
                height,
                0.14,
            )
            for i in range(bays)
        ]
        if self.rng.random() < 0.6:
            office = lot.rectangle(left, front - self.rng.uniform(6, 9), left + width * 0.4, front + 1.0)
            wings.append(Wing(office, (), height * 0.6, 0.0))
        self.build(tuple(wings), covering)
        whole = lot.rectangle(left, front, left + width, front + depth)
        if flat:
            self.rooftop(whole, height)
            return
        for i in range(bays):
            for share in (0.3, 0.7):
                u = left + (i + share) * bay
                for start, end in self.pieces(depth - 4.0, 7.0, 9.0):
                    v = front + depth / 2
                    light = lot.rectangle(u - 0.6, v + start + 1.5, u + 0.6, v + end - 1.5)
                    self.scene.props.append(Prop(light, height + 0.14 * bay * 0.3 + 0.15, "skylight"))

    def loading_yard(self, lot: Box, front: float) -> None:
        """A car park or containers before a hall."""
        low, high = -lot.depth_m / 2 + 3.0, front - 11.0
        if high - low < 6.0:
            return
        if self.rng.random() < 0.6:
            for u in np.arange(-lot.length_m / 2 + 3.0, lot.length_m / 2 - 3.0, 2.7):
                edge, tip = lot.point(u, low), lot.point(u, low + 5.0)
                if self.site.contains(shapely.LineString([edge, tip])):
                    self.scene.stripes.append(Stripe(edge, tip, 0.2))
                    if self.rng.random() < 0.5:
                        self.park_car(lot.point(u + 1.35, low + 2.5), lot.across)
        else:
            for _ in range(int(self.rng.integers(3, 9))):
                u, v = self.rng.uniform(-0.42, 0.42) * lot.length_m, self.rng.uniform(low, high)
                long = lot.rectangle(u, v, u + 12.0, v + 2.5)
                if self.fits(long):
                    self.scene.props.append(Prop(long, 2.7, self.pick("red", "blue", "rust", "white")))


def disc(centre: np.ndarray, radius: float) -> np.ndarray:
    """A ring of twelve corners."""
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    return centre + radius * np.column_stack([np.cos(angle), np.sin(angle)])


def rounded(ring: np.ndarray, radius: float) -> np.ndarray:
    """The ring with round corners."""
    polygon = shapely.Polygon(ring).buffer(-radius).buffer(radius, quad_segs=4)
    return np.asarray(polygon.exterior.coords)[:-1]


def blob(centre: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """A round outline with bays."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    phase = rng.uniform(0, 2 * np.pi, 3)
    reach = 1 + 0.14 * np.sin(2 * angle + phase[0]) + 0.1 * np.sin(3 * angle + phase[1])
    reach += 0.05 * np.sin(7 * angle + phase[2])
    return centre + (radius * reach)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
