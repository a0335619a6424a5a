"""Whether a confidence means what it says: reliability, and a curve from what is said to what comes true.

A network's probability ranks well and is seldom a share. The curve (isotonic regression, fitted on validation) keeps
the ranking and makes of a footprint's confidence the share of such footprints that are buildings.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.isotonic import IsotonicRegression

BINS = 20
LEAST = 30
"""Fewer examples say too little for a curve."""

Curve = tuple[tuple[float, float], ...]
"""Knots (said, true), ascending in both; straight in between, level beyond."""


@dataclass(frozen=True)
class Reliability:
    """How often what was said came true, in bins of equal width.

    Attributes:
        count: how much was said in each bin, int64, shape (bins,).
        said: sum of the confidences in it, float64, shape (bins,).
        true: how much of it came true, int64, shape (bins,).
    """

    count: np.ndarray
    said: np.ndarray
    true: np.ndarray

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(self.count + other.count, self.said + other.said, self.true + other.true)

    @property
    def expected_error(self) -> float:
        """Expected calibration error: how far saying and truth lie apart, mean over all that was said."""
        return float(np.abs(self.said - self.true).sum() / max(self.count.sum(), 1))

    def table(self) -> pd.DataFrame:
        """One row a bin in which something was said: `from`, `to`, `count`, `said` and `true`, both as shares."""
        edges = np.linspace(0, 1, len(self.count) + 1)
        table = pd.DataFrame(
            {
                "from": edges[:-1],
                "to": edges[1:],
                "count": self.count,
                "said": self.said / np.maximum(self.count, 1),
                "true": self.true / np.maximum(self.count, 1),
            }
        )
        return table[table["count"] > 0].reset_index(drop=True)


def reliability(confidence: np.ndarray, true: np.ndarray, *, bins: int = BINS) -> Reliability:
    """How often what was said came true.

    Args:
        confidence: in [0, 1], any shape.
        true: bool or 0/1, the same shape.
        bins: of equal width; 1 falls into the last.
    """
    said, came_true = confidence.ravel(), true.ravel() > 0
    place = np.minimum((said * np.float32(bins)).astype(np.intp), bins - 1)
    return Reliability(
        count=np.bincount(place, minlength=bins).astype(np.int64),
        said=np.bincount(place, said, minlength=bins),
        true=np.bincount(place[came_true], minlength=bins).astype(np.int64),
    )


def fit_curve(confidence: np.ndarray, true: np.ndarray) -> Curve:
    """The rising curve nearest to the examples, by least squares.

    Args:
        confidence: in [0, 1], shape (N,).
        true: bool, shape (N,).

    Returns:
        Knots; none where nothing is learnt, of too few examples or where all came true or none, and what is said is
        then left as it is.
    """
    if len(confidence) < LEAST or true.all() or not true.any():
        return ()
    unseen = 1 / (len(confidence) + 2)  # the rule of succession: what never failed yet is not certain
    fitted = IsotonicRegression(y_min=unseen, y_max=1 - unseen).fit(confidence.astype(float), true.astype(float))
    return tuple((float(x), float(y)) for x, y in zip(fitted.X_thresholds_, fitted.y_thresholds_, strict=True))
