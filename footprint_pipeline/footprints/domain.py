"""What imagery looks like, as counts, and how far that is from what a network was trained on.

What belongs here: the counting, the population stability index, the reference that goes with a model, and the records
in which the service keeps what it was asked. Neither imagery nor places are kept. Who counts is `extract`'s and the
service's business, what follows from it that of `stages.drift`.

The population stability index of two populations that are sorted into the same bins is Σ (a − e) · ln(a / e) over
their shares e (expected) and a (actual). By common usage, below 0.1 they are alike, above 0.25 they are not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

CHANNELS = ("red", "green", "blue")
LEVELS = 16
"""Levels of brightness that the 256 values of a channel are counted in."""
ALIKE, UNLIKE = 0.1, 0.25
"""Population stability index: below the first nothing has changed, from the second on what was learned may not hold."""
BEYOND = 0.95
"""Of the training tiles so many in a hundred are closer to the training set: images beyond are called out of domain."""
FAR = 10 * UNLIKE
"""Such imagery that is at least so far from the training set is unlike it because of more than its size: parts of
tiles are out of domain too, but stay below; twice or half the values that were learned lie above."""

_FLOOR = 1e-4
_QUANTILES = 21
_DECIMALS = 6
_DOMAIN_BINS = 20
_STEPS_PER_OCTAVE = 4

_Levels = Annotated[tuple[float, ...], Field(min_length=LEVELS, max_length=LEVELS)]
_Counts = Annotated[tuple[int, ...], Field(min_length=LEVELS, max_length=LEVELS)]
_ZEROS = (0,) * LEVELS


def brightness_counts(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """How many pixels of each channel have each level of brightness.

    Args:
        image: uint8, shape (H, W, 3).
        valid: where there is imagery, bool, shape (H, W); other pixels do not count.

    Returns:
        int64, shape (3, LEVELS).
    """
    mask = valid.view(np.uint8)
    counts = [cv2.calcHist([image], [band], mask, [LEVELS], [0, 256]).ravel() for band in range(len(CHANNELS))]
    return np.rint(counts).astype(np.int64)


def population_stability_index(expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """How unlike two populations are that are counted in the same bins; 0 for equal shares.

    Shares below one in ten thousand count as that, so that an empty bin does not decide alone.

    Args:
        expected: counts or shares, shape (…, bins).
        actual: the same.

    Returns:
        float64, shape (…).
    """
    expected, actual = (_floored_shares(np.asarray(each, np.float64)) for each in (expected, actual))
    return ((actual - expected) * np.log(actual / expected)).sum(axis=-1)


def _floored_shares(counts: np.ndarray) -> np.ndarray:
    total = counts.sum(axis=-1, keepdims=True)
    return np.maximum(counts / np.where(total > 0, total, 1.0), _FLOOR)


def gsd_step(gsd_m: float) -> float:
    """The ground sample distance on a scale of four steps an octave, metres a pixel, so that few values occur."""
    return float(round(2.0 ** (round(_STEPS_PER_OCTAVE * np.log2(gsd_m)) / _STEPS_PER_OCTAVE), 3))


class DomainReference(BaseModel):
    """What a network was trained on looks like; part of the exported model's spec."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shares: tuple[_Levels, _Levels, _Levels] = Field(
        description="of red, green and blue: share of the training pixels at each level of brightness"
    )
    quantiles: tuple[float, ...] = Field(
        min_length=2, description="of the training tiles' distances to all of them, evenly from least to largest"
    )
    tiles: int = Field(gt=0, description="training tiles that were looked at")
    gsd_m: dict[float, int] = Field(
        default_factory=dict, description="training tiles by the ground sample distance that they came in (`gsd_step`)"
    )

    @classmethod
    def of(cls, tiles: Iterable[np.ndarray], *, gsds_m: Iterable[float] = ()) -> "DomainReference | None":
        """The reference made of tiles; None when there is no pixel.

        Args:
            tiles: `brightness_counts` of each, as the network sees it.
            gsds_m: ground sample distances that tiles came in, metres a pixel.
        """
        counted = [counts for counts in tiles if counts.any()]
        if not counted:
            return None
        total = np.sum(counted, axis=0)
        shares = (total / total.sum(axis=1, keepdims=True)).round(_DECIMALS)
        distances = population_stability_index(shares, np.stack(counted)).max(axis=1)
        steps = [gsd_step(gsd_m) for gsd_m in gsds_m]
        return cls(
            shares=_rows(shares),
            quantiles=tuple(np.quantile(distances, np.linspace(0, 1, _QUANTILES)).round(_DECIMALS).tolist()),
            tiles=len(counted),
            gsd_m={step: steps.count(step) for step in sorted(set(steps))},
        )

    def psi(self, counts: np.ndarray) -> np.ndarray:
        """The population stability index of imagery against the training set, by channel, float64, shape (3,).

        Args:
            counts: `brightness_counts` of it.
        """
        return population_stability_index(np.array(self.shares), counts)

    def out_of_domain(self, counts: np.ndarray) -> float | None:
        """Share of the training tiles that are closer to the training set than an image, in [0, 1].

        One image is always narrower than the whole training set, so its distance (the largest index of its channels)
        says little by itself; those of the training tiles give it a scale.

        Args:
            counts: `brightness_counts` of the image; None is the answer when it has no pixel.
        """
        if not counts.any():
            return None
        distance = float(self.psi(counts).max().round(_DECIMALS))
        if distance <= self.quantiles[0]:
            return 0.0
        return float(np.interp(distance, self.quantiles, np.linspace(0, 1, len(self.quantiles))))

    def is_far(self, counts: np.ndarray) -> bool:
        """Whether an image is so far out of domain that what was learned says little of it.

        Args:
            counts: `brightness_counts` of the image.
        """
        share = self.out_of_domain(counts)
        return share is not None and share >= BEYOND and float(self.psi(counts).max()) >= FAR


@dataclass(frozen=True, eq=False)
class InputProfile:
    """What is kept of the imagery behind one answer.

    Attributes:
        brightness: `brightness_counts` of what the network saw, int64, shape (3, LEVELS).
        gsd_m: ground sample distance of the imagery before it was resampled, metres a pixel; None where not known.
        out_of_domain: see `DomainReference.out_of_domain`; None where the model does not say what it was trained on.
    """

    brightness: np.ndarray
    gsd_m: float | None = None
    out_of_domain: float | None = None


class AskedCounts(BaseModel):
    """What was asked, added up."""

    model_config = ConfigDict(frozen=True)

    answers: int = 0
    brightness: tuple[_Counts, _Counts, _Counts] = (_ZEROS, _ZEROS, _ZEROS)
    gsd_m: dict[float, int] = Field(default_factory=dict, description="answers by `gsd_step` of the imagery")
    out_of_domain: tuple[int, ...] = Field(
        (0,) * _DOMAIN_BINS, min_length=_DOMAIN_BINS, max_length=_DOMAIN_BINS, description="answers by twentieths"
    )

    @classmethod
    def of(cls, profile: InputProfile) -> "AskedCounts":
        """Those of one answer."""
        bins = np.zeros(_DOMAIN_BINS, int)
        if profile.out_of_domain is not None:
            bins[min(int(profile.out_of_domain * _DOMAIN_BINS), _DOMAIN_BINS - 1)] = 1
        return cls(
            answers=1,
            brightness=_rows(profile.brightness),
            gsd_m={} if profile.gsd_m is None else {gsd_step(profile.gsd_m): 1},
            out_of_domain=tuple(bins.tolist()),
        )

    def __add__(self, other: "AskedCounts") -> "AskedCounts":
        steps = sorted(self.gsd_m.keys() | other.gsd_m.keys())
        return AskedCounts(
            answers=self.answers + other.answers,
            brightness=_rows(np.array(self.brightness) + np.array(other.brightness)),
            gsd_m={step: self.gsd_m.get(step, 0) + other.gsd_m.get(step, 0) for step in steps},
            out_of_domain=tuple(np.add(self.out_of_domain, other.out_of_domain).tolist()),
        )

    @property
    def beyond(self) -> float | None:
        """Share of the answers whose imagery is out of domain (`BEYOND` or more); None where no answer says."""
        told = sum(self.out_of_domain)
        return sum(self.out_of_domain[round(BEYOND * _DOMAIN_BINS) :]) / told if told else None


class AskedOfDay(BaseModel):
    """What a version was asked on one day."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: str
    day: date = Field(description="in UTC")
    counts: AskedCounts


class CounterFile(BaseModel):
    """What one process of the service writes down."""

    model_config = ConfigDict(frozen=True)

    asked: tuple[AskedOfDay, ...]


def _rows(values: np.ndarray) -> tuple[Sequence, Sequence, Sequence]:
    red, green, blue = values.tolist()
    return tuple(red), tuple(green), tuple(blue)
