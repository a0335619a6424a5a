import numpy as np
import pytest
import shapely

from footprint_pipeline.evaluation import buildings
from footprint_pipeline.evaluation.buildings import BuildingScore, Pairs, Scene, assign, match_buildings, pair_up


def boxes(*corners: tuple[float, float, float, float]) -> np.ndarray:
    return np.array([shapely.box(*corner) for corner in corners], object)


def counts(proposals: np.ndarray, confidence: list[float], truth: np.ndarray, **options: float) -> tuple[int, int, int]:
    (matches,) = match_buildings([Scene(proposals, np.array(confidence, np.float32), truth)], **options)
    score = matches.score
    return score.true_positives, score.false_positives, score.false_negatives


HOUSE = (0, 0, 10, 10)


def test_the_same_buildings_all_match() -> None:
    town = boxes(HOUSE, (20, 0, 30, 10), (40, 0, 50, 10))
    assert counts(town[::-1], [0.1, 0.9, 0.5], town) == (3, 0, 0)


def test_one_half_is_enough_and_less_is_not() -> None:
    assert counts(boxes((0, 0, 10, 20)), [1], boxes(HOUSE)) == (1, 0, 0)  # 100 / 200 exactly
    assert counts(boxes((0, 0, 10, 20.01)), [1], boxes(HOUSE)) == (0, 1, 1)


def test_one_proposal_over_two_buildings_finds_at_most_one() -> None:
    assert counts(boxes((0, 0, 20, 10)), [1], boxes(HOUSE, (10, 0, 20, 10))) == (1, 0, 1)
    assert counts(boxes((0, 0, 20, 10)), [1], boxes((0, 0, 8, 10), (9, 0, 17, 10))) == (0, 1, 2)


def test_two_proposals_on_one_building_find_it_once() -> None:
    assert counts(boxes(HOUSE, (0, 0, 10, 9)), [0.9, 0.8], boxes(HOUSE)) == (1, 1, 0)


def test_the_surest_proposal_takes_the_building_even_if_another_fits_better() -> None:
    # The sure one (IoU .6) takes the only truth that the exact one could have had, and has no other itself.
    town = boxes(HOUSE, (0, 10, 10, 16))
    sure, exact = (0, 0, 10, 14), HOUSE
    # sure: IoU 100/140 with the house, 40/160 with the shed
    assert counts(boxes(sure, exact), [0.9, 0.8], town) == (1, 1, 1)
    assert counts(boxes(sure, exact), [0.8, 0.9], town) == (1, 1, 1)
    # A proposal takes its best match, not the first: else the second proposal would find nothing left.
    truth = boxes((0, 0, 10, 10), (0, 0, 10, 8))
    assert counts(boxes((0, 0, 10, 8), (0, 0, 10, 14)), [0.9, 0.8], truth) == (2, 0, 0)


def test_a_proposal_whose_best_match_is_gone_takes_the_next_best() -> None:
    truth = boxes((0, 0, 10, 10), (0, 0, 10, 8))
    assert counts(boxes(HOUSE, HOUSE), [0.9, 0.8], truth) == (2, 0, 0)


def test_of_equals_the_earlier_goes_first() -> None:
    truth = boxes(HOUSE, (0, 0, 10, 18))
    wide, exact = (0, 0, 10, 13), HOUSE  # wide: IoU .77 with the house, .72 with the long one; exact: 1 and .56
    assert counts(boxes(exact, wide), [0.5, 0.5], truth) == (2, 0, 0)
    narrow = (0, 0, 10, 9)  # .9 with the house, exactly .5 with the long one
    assert counts(boxes(wide, narrow), [0.5, 0.5], truth) == (2, 0, 0)
    less = (0, 0, 10, 8)  # .8 with the house only
    assert counts(boxes(wide, less), [0.5, 0.5], truth) == (1, 1, 1)
    assert counts(boxes(less, wide), [0.5, 0.5], truth) == (2, 0, 0)


def test_empty_sides() -> None:
    nothing = np.empty(0, object)
    assert counts(nothing, [], nothing) == (0, 0, 0)
    assert counts(boxes(HOUSE), [1], nothing) == (0, 1, 0)
    assert counts(nothing, [], boxes(HOUSE)) == (0, 0, 1)


def test_small_polygons_are_no_buildings_on_either_side() -> None:
    small, just = (0, 0, 4, 4.99), (20, 0, 24, 5)
    assert counts(boxes(small, just), [0.9, 0.8], boxes(small)) == (0, 1, 0)
    assert counts(boxes(small), [1], boxes(small, just)) == (0, 0, 1)
    assert counts(boxes(small), [1], boxes(small), min_area_px=0) == (1, 0, 0)


def test_courtyards_count_in_the_overlap() -> None:
    ring = shapely.box(0, 0, 20, 20).difference(shapely.box(2, 2, 18, 18))
    assert counts(np.array([shapely.box(0, 0, 20, 20)], object), [1], np.array([ring], object)) == (0, 1, 1)
    assert counts(np.array([ring], object), [1], np.array([ring], object)) == (1, 0, 0)


def test_a_building_of_two_parts_matches_as_one() -> None:
    both = shapely.MultiPolygon([shapely.box(0, 0, 10, 10), shapely.box(12, 0, 15, 10)])
    assert counts(boxes(HOUSE), [1], np.array([both], object)) == (1, 0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_matching_is_the_published_walk(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a literal transcript of SpaceNet's rule, pair by pair."""
    rng = np.random.default_rng(seed)

    def town(count: int) -> np.ndarray:
        corner, size = rng.integers(0, 60, (count, 2)), rng.integers(5, 25, (count, 2))
        return boxes(*np.hstack([corner, corner + size]).tolist())

    proposals, truth = town(60), town(50)
    confidence = rng.choice([0.5, 0.6, 0.7, 0.8], 60).astype(np.float32)
    free, hits = list(range(50)), 0
    for number in sorted(range(60), key=lambda i: -confidence[i]):
        ious = [proposals[number].intersection(truth[j]).area / proposals[number].union(truth[j]).area for j in free]
        if ious and max(ious) >= 0.3:
            free.pop(int(np.argmax(ious)))
            hits += 1
    assert hits > 5
    monkeypatch.setattr(buildings, "IOU_THRESHOLD", 0.3)  # or few would match
    assert counts(proposals, list(confidence), truth) == (hits, 60 - hits, 50 - hits)


def towns(seed: int, images: int) -> list[Scene]:
    """Images of turned houses; some proposals are theirs, some are half of one or twice as long, exactly."""
    rng = np.random.default_rng(seed)
    scenes = []
    for count in rng.integers(0, 30, images):
        corner, size = rng.integers(0, 80, (count, 2)), rng.integers(5, 25, (count, 2))
        angle = rng.choice([0.0, 0.3])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        longer = corner + size * np.where(rng.random((count, 2)) < [0.4, 0], [2, 1], [1, 1])
        truth, claimed = (
            shapely.transform(shapely.box(*np.hstack([corner, end]).T.astype(float)), lambda xy, turn=turn: xy @ turn)
            for end in (corner + size, longer)
        )
        proposals = np.concatenate([claimed, truth[: count // 3], claimed[::-1]])
        scenes.append(Scene(proposals, rng.choice([0.5, 0.6, 0.7], len(proposals)).astype(np.float32), truth))
    return scenes


@pytest.mark.parametrize("seed", range(3))
def test_pairs_near_the_threshold_or_alike_are_told_apart_as_their_intersections_do(seed: int) -> None:
    scenes = towns(seed, 40)
    near = 0
    for scene, pairs in zip(scenes, pair_up(scenes), strict=True):
        one, other = (
            each.ravel() for each in np.meshgrid(np.arange(len(scene.proposals)), np.arange(len(scene.truth)))
        )
        overlap = shapely.area(shapely.intersection(scene.proposals[one], scene.truth[other]))
        iou = overlap / (shapely.area(scene.proposals[one]) + shapely.area(scene.truth[other]) - overlap)
        near += np.count_nonzero(np.abs(iou - 0.5) < 1e-9)
        enough = dict(zip(zip(one[iou >= 0.5], other[iou >= 0.5], strict=True), iou[iou >= 0.5], strict=True))
        ours = dict(zip(zip(pairs.proposal, pairs.building, strict=True), pairs.iou, strict=True))
        assert ours.keys() == enough.keys()
        assert [ours[pair] for pair in enough] == pytest.approx(list(enough.values()), rel=1e-12)
        exact = Pairs(pairs.proposal, pairs.building, np.array([enough[p] for p in ours]), pairs.large, pairs.there)
        expected = assign(exact, scene.confidence)
        assert assign(pairs, scene.confidence).partner.tolist() == expected.partner.tolist()
    assert near > 50


def test_images_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [*towns(7, 30), Scene(*(np.empty(0, object),) * 3)]
    alone = [match_buildings([scene])[0] for scene in scenes]
    monkeypatch.setattr(buildings, "_AT_ONCE", 7)
    together = match_buildings(scenes)
    assert [each.partner.tolist() for each in together] == [each.partner.tolist() for each in alone]
    assert [each.score for each in together] == [each.score for each in alone]
    assert match_buildings([]) == []


def test_scores_add_up_and_their_ratios_never_divide_by_zero() -> None:
    score = BuildingScore(3, 1, 2) + BuildingScore(1, 0, 3)
    assert score == BuildingScore(4, 1, 5)
    assert (score.precision, score.recall, score.f1) == pytest.approx((4 / 5, 4 / 9, 8 / 14))
    nothing = BuildingScore()
    assert (nothing.precision, nothing.recall, nothing.f1) == (0, 0, 0)


def test_what_is_too_small_counts_for_nothing_whoever_is_left_out() -> None:
    proposals = np.array([shapely.box(0, 0, 10, 10), shapely.box(20, 0, 22, 2)], object)
    (pairs,) = pair_up([Scene(proposals, np.ones(2), proposals[:1])], min_area_px=20)
    for counts, score in (
        (None, BuildingScore(1, 0, 0)),
        (np.array([True, True]), BuildingScore(1, 0, 0)),
        (np.array([False, True]), BuildingScore(0, 0, 1)),
    ):
        assert assign(pairs, np.ones(2), counts=counts).score == score
