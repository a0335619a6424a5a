"""What to build and how to train it: frozen specs that hold the defaults once. No Keras here."""

from dataclasses import asdict, dataclass, field

from footprint_pipeline.dataset.augmentation import AugmentationSpec
from footprint_pipeline.errors import SettingsError

LOSSES = ("bce", "bce_dice")
OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class UNetSpec:
    """What to build. The defaults are the article's network: 31,032,837 parameters.

    Attributes:
        width: filters of the first block; each deeper block has twice as many.
        depth: down-sampling blocks.
        dropout: share dropped after every down block but the first, and after the bottleneck.
        batch_norm: normalise after every 3x3 convolution of the blocks.
    """

    width: int = 64
    depth: int = 4
    dropout: float = 0.25
    batch_norm: bool = False

    @property
    def stride(self) -> int:
        """Inputs must be multiples of this, pixels."""
        return 2**self.depth


ARTICLE = UNetSpec()
"""R. C. Di Lorenzo's network."""

NARROW = UNetSpec(width=16, dropout=0.1, batch_norm=True)
"""A sixteenth of the article's cost: trains on a CPU in minutes."""


@dataclass(frozen=True)
class TrainingSpec:
    """Everything that makes a training what it is.

    Attributes:
        network: what to build.
        augmentation: how chips are changed.
        loss: `bce` or `bce_dice`.
        optimizer: `adamw`, whose rate warms up and then falls along a cosine, or `sgd` at a constant rate.
        learning_rate: the largest rate.
        batch_size: chips a step.
        chip_size: side of the chips, pixels.
        epochs: passes at most.
        chips_per_epoch: chips a pass; as many as cover the training ground once when None.
        patience: stop after this many epochs without a better validation loss.
        max_minutes: stop after this long, having lowered the rate on the way; no limit when None.
        gsd_m: resolution to work at, metres a pixel; the training tiles' median when None.
        precision: arithmetic; `auto` takes bfloat16 where the processor multiplies it fast.
        seed: weights, order and augmentation.
    """

    network: UNetSpec = NARROW
    augmentation: AugmentationSpec = field(default_factory=AugmentationSpec)
    loss: str = "bce_dice"
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    batch_size: int = 8
    chip_size: int = 256
    epochs: int = 30
    chips_per_epoch: int | None = None
    patience: int = 30
    max_minutes: float | None = None
    gsd_m: float | None = None
    precision: str = "auto"
    seed: int = 1337

    def __post_init__(self) -> None:
        for name, value, known in (
            ("loss", self.loss, LOSSES),
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise SettingsError(f"No {name} is called {value!r}.", fix=f"Choose one of {', '.join(known)}.")
        for name in (
            "batch_size", "chip_size", "epochs", "learning_rate", "patience", "chips_per_epoch", "max_minutes", "gsd_m",
        ):  # fmt: skip
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise SettingsError(f"{name} is {getattr(self, name)}.", fix="It must be greater than zero.")

    def flat(self) -> dict[str, object]:
        """The spec as one level of names and values, for MLflow: `network.width` and so on."""
        flat: dict[str, object] = {}
        for name, value in asdict(self).items():
            if isinstance(value, dict):
                flat.update({f"{name}.{inner}": leaf for inner, leaf in value.items()})
            else:
                flat[name] = value
        return flat
