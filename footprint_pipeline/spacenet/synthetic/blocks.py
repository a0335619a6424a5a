"""What stands on each block of the synthetic city: six kinds of district, and the streets between them.

Here belong the decisions; the houses, trees and cars themselves are made in `parts`.
"""

import numpy as np
import shapely

from footprint_pipeline.spacenet.synthetic.parts import ROOFS, Builder, blob, disc
from footprint_pipeline.spacenet.synthetic.scene import Building, Ground, Prop, Scene, Stripe, Tree, Wing
from footprint_pipeline.spacenet.synthetic.streets import Block, Box, Street, bounding_box, divide, inset


def lay_out(width_m: float, height_m: float, open_land: list[np.ndarray], rng: np.random.Generator) -> Scene:
    """A city on a rectangle of ground, with no building on any of the rings of open land."""
    blocks, streets = divide(width_m, height_m, open_land, rng)
    architect = _Architect(Scene(width_m, height_m), rng)
    architect.pave(streets)
    for block in blocks:
        architect.furnish(block)
    return architect.scene


class _Architect(Builder):
    """Furnishes one block after the other."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        super().__init__(scene, rng)
        self.greens = 0

    def pave(self, streets: list[Street]) -> None:
        """Main streets last, so that the others end at their kerbs."""
        for street in reversed(streets):
            length = float(np.hypot(*(street.end - street.start)))
            along = (street.end - street.start) / length
            axis = Box((street.start + street.end) / 2, along, np.array([-along[1], along[0]]), length, street.width_m)
            ring = axis.rectangle(-length / 2, -street.width_m / 2, length / 2, street.width_m / 2)
            self.scene.grounds.append(Ground(ring, street.surface))
            if street.surface == "dirt":
                continue
            if street.width_m > 8:
                self.scene.stripes.append(Stripe(street.start, street.end, 0.25, 3.0))
            lane = street.width_m / 2 - (2.7 if street.width_m > 8 else 2.0)
            for side in (-1, 1):
                for u in np.arange(-length / 2 + 8, length / 2 - 8, 6.0):
                    if self.rng.random() < 0.13:
                        self.park_car(axis.point(u + self.rng.uniform(-0.4, 0.4), side * lane), axis.along)

    def furnish(self, block: Block) -> None:
        if block.district == "green":
            self.open_land(block)
            return
        if block.district in ("suburb", "courtyard", "industrial"):
            self.scene.grounds.append(Ground(block.ring, "pavement"))
            ring = inset(block.ring, 2.0)
        else:
            ring = inset(block.ring, 0.4)
        if len(ring) < 3:
            return
        self.site = shapely.Polygon(ring)
        first = len(self.scene.buildings)
        {
            "suburb": self.suburb,
            "dense": self.dense,
            "courtyard": self.courtyard,
            "industrial": self.industrial,
            "village": self.village,
        }[block.district](ring)
        self.plant(block, ring, self.scene.buildings[first:])

    def suburb(self, ring: np.ndarray) -> None:
        self.scene.grounds.append(Ground(ring, "garden"))
        coverings = self.rng.choice(ROOFS["suburb"], 3)
        for lot in self.lots(ring, 15.5, 21.5, rows_from_m=34.0):
            width = min(lot.length_m - 4.0, self.rng.uniform(9.5, 14.0))
            depth = min(lot.depth_m * 0.55, self.rng.uniform(8.0, 12.5))
            left = self.rng.uniform(-lot.length_m / 2 + 1.5, lot.length_m / 2 - 1.5 - width)
            front = -lot.depth_m / 2 + self.rng.uniform(3.5, 7.0)
            if not self.fits(lot.rectangle(left, front, left + width, front + depth)):
                continue
            if self.rng.random() < 0.35:
                yard = lot.rectangle(-lot.length_m / 2 + 0.4, -lot.depth_m / 2, lot.length_m / 2 - 0.4, lot.depth_m / 2)
                self.lay(yard, self.pick("lawn", "dry", "soil", "lawn"))
            drive = left + (0.3 if self.rng.random() < 0.5 else width - 3.5)
            surface = self.pick("concrete", "asphalt", "concrete", "paving")
            self.scene.grounds.append(Ground(lot.rectangle(drive, -lot.depth_m / 2 - 1.8, drive + 3.2, front), surface))
            if self.rng.random() < 0.6:
                terrace = self.rng.uniform(2.0, 4.5)
                patio = lot.rectangle(left, front + depth, left + width * 0.7, front + depth + terrace)
                self.lay(patio, self.pick("concrete", "paving"))
            if self.rng.random() < 0.45:
                self.park_car(lot.point(drive + 1.6, front - 3.0), lot.across)
            wings = self.house(lot, left, front, width, depth)
            self.build(wings, self.pick(*coverings))
            self.back_garden(lot, front + depth + 4.5)

    def dense(self, ring: np.ndarray) -> None:
        self.scene.grounds.append(Ground(ring, self.pick("soil", "yard", "yard")))
        for lot in self.lots(ring, 10.0, 14.5):
            plot = lot.rectangle(-lot.length_m / 2, -lot.depth_m / 2, lot.length_m / 2, lot.depth_m / 2)
            self.lay(plot, self.pick("yard", "soil", "concrete", "garden", "paving"))
            gap = self.rng.uniform(0.5, 1.1)
            width = lot.length_m - gap - self.rng.uniform(0.5, 1.3)
            depth = (lot.depth_m - 1.6) * self.rng.uniform(0.6, 0.96)
            front = -lot.depth_m / 2 + self.rng.choice([0.4, 1.0, 2.0, 3.5])
            depth = min(depth, lot.depth_m / 2 - 0.9 - front)
            left = -lot.length_m / 2 + gap
            if not self.fits(lot.rectangle(left, front, left + width, front + depth)):
                continue
            covering = self.pick(*ROOFS["dense"])
            height = float(self.rng.choice([3.0, 3.2, 3.5, 6.0]))
            if covering.startswith("concrete"):
                share = self.rng.uniform(0.45, 0.7)
                low = lot.rectangle(left, front, left + width, front + depth)
                wings = [Wing(low, (), height, 0.0)]
                if self.rng.random() < 0.45:
                    high = lot.rectangle(left, front + depth * (1 - share), left + width * share, front + depth)
                    wings.append(Wing(high, (), height + 2.8, 0.0))
                self.build(tuple(wings), covering)
                if self.rng.random() < 0.45:
                    tank = lot.point(left + width * self.rng.uniform(0.2, 0.8), front + depth * 0.4)
                    self.scene.props.append(Prop(disc(tank, 0.8), height + 1.5, "tank"))
            else:
                self.build(self.house(lot, left, front, width, depth, height=height, shed=0.4), covering)
            back = lot.depth_m / 2 - (front + depth)
            if back > 4.0 and self.rng.random() < 0.6:
                hut = lot.rectangle(left, front + depth + 1.0, left + width * 0.55, lot.depth_m / 2 - 0.6)
                if self.fits(hut):
                    self.build((Wing(hut, (0,), 2.4, 0.1),), self.pick(*ROOFS["dense"]))

    def courtyard(self, ring: np.ndarray) -> None:
        ground = self.pick("lawn", "paving", "concrete", "garden")
        self.scene.grounds.append(Ground(ring, ground))
        box, outer = bounding_box(ring), inset(ring, self.rng.uniform(0.5, 2.5))
        covering, height = self.pick(*ROOFS["courtyard"]), self.rng.uniform(9.0, 13.0)
        depth = self.rng.uniform(10.5, 13.5)
        hole = inset(outer, depth) if len(outer) else outer
        eaves = tuple(range(len(outer))) if covering.startswith("tiles") else ()
        chance = self.rng.random()
        if len(hole) and bounding_box(hole).depth_m > 9.0 and chance < 0.72:
            self.build((Wing(outer, eaves, height, 0.5),), covering, hole=hole)
            annex = bounding_box(hole).rectangle(-6.0, -4.0, 6.0, 4.0)
            roomy = shapely.Polygon(inset(hole, 4.0)).contains(shapely.Polygon(annex))
            if roomy and self.rng.random() < 0.7:
                self.build((Wing(annex, (0, 2), 4.0, 0.4),), self.pick(*ROOFS["dense"]))
            return
        count = max(1, int(box.depth_m // 24.0))
        for v in (np.arange(count) + 0.5) * box.depth_m / count - box.depth_m / 2:
            for start, end in self.pieces(box.length_m, 26.0, 42.0):
                slab = box.rectangle(start + 3.0, v - 6.0, end - 3.0, v + 6.0)
                if self.fits(slab):
                    flat = self.rng.random() < 0.6
                    roof = self.pick("gravel", "concrete", "membrane") if flat else covering
                    self.build((Wing(slab, () if flat else (0, 2), height, 0.45),), roof)
                    self.rooftop(slab, height + (0.0 if flat else 2.0))

    def industrial(self, ring: np.ndarray) -> None:
        self.scene.grounds.append(Ground(ring, self.pick("concrete", "asphalt", "yard")))
        for lot in self.lots(ring, 42.0, 75.0, rows_from_m=95.0):
            width = lot.length_m * self.rng.uniform(0.62, 0.86)
            depth = lot.depth_m * self.rng.uniform(0.45, 0.7)
            for shrink in (1.0, 0.85, 0.7, 0.5):
                w, d = width * shrink, depth * shrink
                left, front = -w / 2, lot.depth_m * 0.46 - d
                if min(w, d) > 10 and self.fits(lot.rectangle(left, front - 9.0, left + w, front + d)):
                    self.hall(lot, left, front, w, d)
                    self.loading_yard(lot, front)
                    break

    def village(self, ring: np.ndarray) -> None:
        self.scene.grounds.append(Ground(ring, self.pick("meadow", "dry", "meadow")))
        taken = shapely.Polygon()
        box = bounding_box(ring)
        for _ in range(int(self.site.area / 420)):
            centre = box.point(*(self.rng.uniform(-0.5, 0.5, 2) * (box.length_m, box.depth_m)))
            angle = self.rng.normal(0, 0.35)
            along = np.cos(angle) * box.along + np.sin(angle) * box.across
            width, depth = self.rng.uniform(6.5, 12.0), self.rng.uniform(5.5, 9.0)
            lot = Box(centre, along, np.array([-along[1], along[0]]), width, depth)
            plot = lot.rectangle(-width / 2 - 1.5, -depth / 2 - 1.5, width / 2 + 1.5, depth / 2 + 1.5)
            space = shapely.Polygon(plot)
            if not self.fits(plot) or taken.intersects(space):
                continue
            taken = taken.union(space)
            if self.rng.random() < 0.7:
                self.lay(blob(centre, self.rng.uniform(7, 11), self.rng), self.pick("soil", "dirt"))
            wings = self.house(lot, -width / 2, -depth / 2, width, depth, height=3.0, shed=0.25)
            self.build(wings, self.pick(*ROOFS["village"]))

    def open_land(self, block: Block) -> None:
        self.site = shapely.Polygon(block.ring)
        (self.park, self.fields, self.lake)[self.greens % 3](block.ring, bounding_box(block.ring))
        self.greens += 1

    def fields(self, ring: np.ndarray, box: Box) -> None:
        self.scene.grounds.append(Ground(ring, "meadow"))
        self.site = shapely.Polygon(inset(ring, 3.0))
        for start, end in self.pieces(box.length_m, 35.0, 90.0):
            strip = box.rectangle(start, -box.depth_m / 2, end - 2.5, box.depth_m / 2)
            direction = box.across if self.rng.random() < 0.7 else box.along
            furrows = (float(direction[0]), float(direction[1]))
            self.lay(strip, self.pick("soil", "crop", "dry", "crop"), self.rng.uniform(1.6, 3.2), furrows)
        self.grow(ring, int(box.length_m * box.depth_m / 900), shapely.Polygon(), radius=(1.5, 4.0))

    def lake(self, ring: np.ndarray, box: Box) -> None:
        self.scene.grounds.append(Ground(ring, "meadow"))
        centre = box.point(self.rng.uniform(-0.1, 0.1) * box.length_m, 0.0)
        water = blob(centre, min(box.depth_m, box.length_m) * 0.36, self.rng)
        shore = shapely.Polygon(water).buffer(2.5)
        self.lay(np.asarray(shore.exterior.coords)[:-1], "dirt")
        self.lay(water, "water")
        keep_clear = [shore, self.footpath(box, [shore])]
        woods = int(box.length_m * box.depth_m / 110)
        self.grow(ring, woods, shapely.union_all(keep_clear), radius=(2.0, 5.5), clumps=True)

    def park(self, ring: np.ndarray, box: Box) -> None:
        self.scene.grounds.append(Ground(ring, "lawn"))
        keep_clear: list[shapely.Geometry] = []
        for length, depth, surface in ((40.0, 26.0, "lawn"), (24.0, 11.0, "court_red"), (24.0, 11.0, "court_green")):
            centre = box.point(*(self.rng.uniform(-0.33, 0.33, 2) * (box.length_m, box.depth_m)))
            court = Box(centre, box.along, box.across, length, depth)
            outline = court.rectangle(-length / 2, -depth / 2, length / 2, depth / 2)
            shape = shapely.Polygon(outline).buffer(2.0)
            if self.fits(outline) and not any(map(shape.intersects, keep_clear)):
                keep_clear.append(shape)
                self.lay(outline, surface)
                self.outline(inset(outline, 1.5))
                self.outline(court.rectangle(-0.1, -depth / 2 + 1.5, 0.1, depth / 2 - 1.5))
        keep_clear.append(self.footpath(box, keep_clear))
        keep_clear.append(self.footpath(Box(box.centre, box.across, -box.along, box.depth_m, box.length_m), keep_clear))
        woods = int(box.length_m * box.depth_m / 170)
        self.grow(ring, woods, shapely.union_all(keep_clear), radius=(2.0, 5.5), clumps=True)

    def plant(self, block: Block, ring: np.ndarray, buildings: list[Building]) -> None:
        per_tree_m2 = {"suburb": 85, "dense": 420, "courtyard": 190, "industrial": 1500, "village": 42}[block.district]
        houses = shapely.union_all([building.footprint for building in buildings])
        largest = 4.2 if block.district in ("suburb", "village") else 3.2
        clumps = block.district == "village"
        self.grow(ring, int(self.site.area / per_tree_m2), houses, radius=(1.0, largest), clumps=clumps)
        if block.district in ("suburb", "courtyard"):
            border = shapely.Polygon(block.ring).buffer(-1.0).exterior
            for distance in np.arange(0.0, border.length, self.rng.uniform(9, 14)):
                if self.rng.random() < 0.5:
                    place = border.interpolate(distance + self.rng.uniform(-2, 2))
                    radius = self.rng.uniform(1.3, 2.8)
                    self.scene.trees.append(Tree(np.array([place.x, place.y]), radius, radius + 3.0, 0))
