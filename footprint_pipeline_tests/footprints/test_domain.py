import json

import numpy as np
import pytest
from pydantic import ValidationError

from footprint_pipeline.footprints.domain import (
    LEVELS,
    AskedCounts,
    DomainReference,
    InputProfile,
    brightness_counts,
    gsd_step,
    population_stability_index,
)


def plain(*levels: int) -> np.ndarray:
    """Counts of an image whose pixels have these levels in every channel, as many of each."""
    counts = np.zeros((3, LEVELS), int)
    for level in levels:
        counts[:, level] += 100
    return counts


def test_pixels_are_counted_by_channel_where_there_is_imagery() -> None:
    rng = np.random.default_rng(0)
    image, valid = rng.integers(0, 256, (40, 50, 3), np.uint8), rng.random((40, 50)) > 0.3
    inside = slice(7, -5), slice(3, -9)
    for pixels, mask in ((image, valid), (image[inside], valid[inside])):
        expected = [np.bincount(pixels[mask][:, band] >> 4, minlength=LEVELS) for band in range(3)]
        assert np.array_equal(brightness_counts(pixels, mask), expected)
    assert not brightness_counts(image, np.zeros_like(valid)).any()


def test_the_index_is_the_textbooks() -> None:
    # (0.25 - 0.5) ln(0.25 / 0.5) + (0.75 - 0.5) ln(0.75 / 0.5)
    assert population_stability_index(np.array([50, 50]), np.array([1, 3])) == pytest.approx(0.274653, abs=1e-6)
    assert population_stability_index(np.array([0.2, 0.8]), np.array([2000, 8000])) == 0
    both = population_stability_index(np.array([[1, 3], [5, 5]]), np.array([[2, 6], [1, 3]]))
    assert both == pytest.approx([0, 0.274653], abs=1e-6)


def test_an_empty_bin_weighs_no_more_than_one_in_ten_thousand() -> None:
    apart = population_stability_index(np.array([1, 0]), np.array([0, 1]))
    assert apart == pytest.approx(2 * 0.9999 * np.log(10_000))


def test_an_image_is_placed_among_the_training_tiles() -> None:
    # Tiles of level 5 with more and more of level 9: the more, the further from all of them.
    tiles = [20 * plain(5) + share * plain(9) for share in range(21)]
    reference = DomainReference.of(tiles)
    assert reference.tiles == len(tiles)
    assert len(reference.quantiles) == 21
    assert list(reference.quantiles) == sorted(reference.quantiles)

    distances = [float(reference.psi(tile).max()) for tile in tiles]
    for tile, distance in zip(tiles, distances, strict=True):
        closer = np.mean([other < distance for other in distances])
        assert reference.out_of_domain(tile) == pytest.approx(closer, abs=0.06)
    assert reference.out_of_domain(sum(tiles)) == 0
    assert reference.out_of_domain(plain(0)) == 1


def test_the_worst_channel_counts() -> None:
    reference = DomainReference.of([plain(4, 5), plain(5, 6), plain(5)])
    blue = plain(4, 5, 5, 5, 5, 6)
    assert reference.out_of_domain(blue) < 0.5
    blue[2] = plain(15)[2]
    assert reference.psi(blue)[:2].max() < 0.1 < reference.psi(blue)[2]
    assert reference.out_of_domain(blue) == 1


def test_far_is_more_than_out_of_domain() -> None:
    reference = DomainReference.of([sum(plain(level) for level in range(n, n + 9)) for n in (2, 3, 4)])
    part = plain(*range(4, 11))  # of what was learned, as of a small area
    assert reference.out_of_domain(part) == 1
    assert not reference.is_far(part)
    assert reference.is_far(plain(0))
    assert reference.is_far(plain(15))
    assert not reference.is_far(np.zeros((3, LEVELS), int))
    wide = reference.model_copy(update={"quantiles": (0.0, 20.0)})  # tiles as far were learned
    assert not wide.is_far(plain(0))


def test_no_pixel_no_number() -> None:
    nothing = np.zeros((3, LEVELS), int)
    assert DomainReference.of([nothing]) is None
    assert DomainReference.of([plain(3), nothing]).tiles == 1
    assert DomainReference.of([plain(3)]).out_of_domain(nothing) is None
    thirds = plain(3, 4, 5)
    assert DomainReference.of([thirds]).out_of_domain(thirds) == 0


def test_resolutions_are_told_in_a_few_steps() -> None:
    assert gsd_step(0.3) == gsd_step(0.31) == 0.297
    assert gsd_step(0.5) == 0.5
    assert gsd_step(1.0) / gsd_step(0.5) == 2
    reference = DomainReference.of([plain(3)], gsds_m=[0.3, 0.5, 0.31])
    assert reference.gsd_m == {0.297: 2, 0.5: 1}


def test_what_was_asked_adds_up_and_survives_the_disk() -> None:
    profiles = [
        InputProfile(plain(3), gsd_m=0.3, out_of_domain=0.0),
        InputProfile(plain(3, 7), gsd_m=0.6, out_of_domain=0.96),
        InputProfile(plain(7), out_of_domain=1.0),
        InputProfile(plain(8)),
    ]
    asked = sum(map(AskedCounts.of, profiles), AskedCounts())
    assert asked.answers == 4
    assert np.array_equal(asked.brightness, sum(profile.brightness for profile in profiles))
    assert asked.gsd_m == {0.297: 1, 0.595: 1}
    assert (asked.out_of_domain[0], asked.out_of_domain[-1], sum(asked.out_of_domain)) == (1, 2, 3)
    assert asked.beyond == pytest.approx(2 / 3)
    assert AskedCounts().beyond is None
    assert AskedCounts.model_validate_json(asked.model_dump_json()) == asked


def test_a_reference_of_another_shape_is_refused() -> None:
    told = json.loads(DomainReference.of([plain(3)]).model_dump_json())
    told["shares"][1] = told["shares"][1][:8]
    with pytest.raises(ValidationError):
        DomainReference.model_validate(told)
