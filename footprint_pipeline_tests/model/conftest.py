"""A toy task: bright squares are buildings. Everything is small, so that it trains in seconds."""

import numpy as np
import pytest

from footprint_pipeline.dataset.augmentation import AugmentationSpec
from footprint_pipeline.dataset.cache import BUILDING, VALID, TileCache
from footprint_pipeline.model.spec import TrainingSpec, UNetSpec

TINY = UNetSpec(width=4, depth=1, dropout=0.1)
CALM = AugmentationSpec(
    translate_px=4, rotate_deg=5, scale=(1.0, 1.1), brightness=0.1, contrast=0.2, tint=0.08, hue=8, blur=1,
    blur_share=0.2, gamma=0, grey_share=0,
)  # fmt: skip


def toy_spec(**changes: object) -> TrainingSpec:
    """Seconds on one core."""
    defaults = {
        "network": TINY, "augmentation": CALM, "chip_size": 32, "batch_size": 4, "epochs": 2, "chips_per_epoch": 32,
        "learning_rate": 1e-2, "precision": "float32", "seed": 3, "schedule": "cosine", "warm_up": 0.04,
    }  # fmt: skip
    return TrainingSpec(**{**defaults, **changes})


def toy_cache(*, inverted_validation: bool = False) -> TileCache:
    """Four tiles to learn from and two to check on, 64 × 64."""
    rng = np.random.default_rng(11)
    images, labels = [], []
    for number in range(6):
        image = rng.integers(20, 80, (64, 64, 3), np.uint8)
        label = np.full((64, 64), VALID, np.uint8)
        for left in (4, 36):
            top = int(rng.integers(2, 40))
            image[top : top + 18, left : left + 20] = rng.integers(190, 250, (18, 20, 3), np.uint8)
            label[top : top + 18, left : left + 20] |= BUILDING
        images.append(image)
        labels.append(label ^ BUILDING if inverted_validation and number > 3 else label)
    return TileCache(
        np.concatenate(images).reshape(-1, 3),
        np.concatenate(labels).ravel(),
        0.5,
        tile_ids=np.array([f"t{number}" for number in range(6)]),
        aois=np.full(6, "Toy"),
        splits=np.array(["train"] * 4 + ["validation"] * 2),
        heights=np.full(6, 64),
        widths=np.full(6, 64),
        offsets=np.arange(6) * 64 * 64,
        valid_share=np.ones(6),
    )


@pytest.fixture(scope="session")
def cache() -> TileCache:
    return toy_cache()
