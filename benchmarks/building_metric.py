"""SpaceNet's building metric on as many tiles and buildings as Rio's test split has, beside matching all pairs.

All tiles are matched at once, as `footprint score` does. The peer is the rule as SpaceNet's utilities have it, written
plainly: every proposal against every building that is still free. It is timed on some of the tiles, and a tile is
compared with a tile.
"""

import time
from itertools import islice

import numpy as np
import shapely

from benchmarks.form import Figure, main
from footprint_pipeline.evaluation.buildings import IOU_THRESHOLD, MIN_AREA_PX, BuildingScore, Scene, match_buildings

TILES, BUILDINGS = 1388, 76_000
SIDE_PX = 420
GOAL = 20


def measure(quick: bool) -> list[Figure]:
    """Time both ways in turn; see the module."""
    tiles, for_peer = (12, 3) if quick else (TILES, 64)
    scenes = make_scenes(tiles, BUILDINGS * tiles // TILES)
    started = time.perf_counter()
    ours = [matches.score for matches in match_buildings(scenes)]
    seconds = time.perf_counter() - started
    taken, plain = [], []
    for scene in islice(scenes, for_peer):
        started = time.perf_counter()
        plain.append(all_pairs(scene))
        taken.append(time.perf_counter() - started)
    if plain != ours[:for_peer]:
        raise SystemExit("The two ways count differently.")
    whole = sum(ours, BuildingScore())
    a_tile, peer = 1e3 * seconds / tiles, 1e3 * float(np.mean(taken))
    found = whole.true_positives + whole.false_negatives
    ratio = peer / a_tile
    return [
        Figure(f"building metric, {tiles:,} tiles, {found:,} buildings", seconds, "s"),
        Figure("a tile; peer: all pairs", a_tile, "ms", peer, ratio, f"≥ {GOAL}", ratio >= GOAL),
        Figure("building F1, the same both ways", whole.f1, ""),
    ]


def all_pairs(scene: Scene) -> BuildingScore:
    """SpaceNet's rule, pair by pair."""
    large = [shapely.area(each) >= MIN_AREA_PX for each in (scene.proposals, scene.truth)]
    proposals = scene.proposals[large[0]][np.argsort(-scene.confidence[large[0]], kind="stable")]
    free = list(scene.truth[large[1]])
    there, hits = len(free), 0
    for proposal in proposals:
        ious = []
        for building in free:
            overlap = proposal.intersection(building).area
            ious.append(overlap / proposal.union(building).area if overlap else 0.0)
        if ious and max(ious) >= IOU_THRESHOLD:
            free.pop(int(np.argmax(ious)))
            hits += 1
    return BuildingScore(hits, len(proposals) - hits, there - hits)


def make_scenes(tiles: int, buildings: int) -> list[Scene]:
    """Turned houses with wings at random places; proposals are the same, moved, missed and made up."""
    rng = np.random.default_rng(0)
    scenes = []
    for share in np.array_split(np.arange(buildings), tiles):
        truth = _houses(rng, len(share))
        moved = shapely.transform(truth, lambda xy: xy * rng.normal(1, 0.004, 2) + rng.normal(0, 0.7, 2))
        proposals = np.concatenate([moved[rng.random(len(moved)) < 0.85], _houses(rng, len(share) // 6)])
        scenes.append(Scene(proposals, rng.random(len(proposals)), truth))
    return scenes


def _houses(rng: np.random.Generator, count: int) -> np.ndarray:
    outline = np.array([[0, 0], [1, 0], [1, 0.6], [0.6, 0.6], [0.6, 1], [0, 1]]) - 0.5
    angle, centre = rng.uniform(0, np.pi, count), rng.uniform(0, SIDE_PX, (count, 1, 2))
    size = rng.uniform(8, 30, (count, 1, 2))
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], axis=-1).reshape(count, 2, 2)
    return np.asarray(shapely.polygons((outline * size) @ turn + centre))


if __name__ == "__main__":
    main(measure, description=__doc__ or "")
