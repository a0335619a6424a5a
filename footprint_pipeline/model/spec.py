"""What to build and how to train it: frozen specs that hold the defaults once. No Keras here."""

from dataclasses import asdict, dataclass, field

from footprint_pipeline.dataset.augmentation import AugmentationSpec
from footprint_pipeline.errors import SettingsError

HEADS = ("building", "border", "contact")
LOSSES = ("bce", "bce_dice", "bce_chip_dice", "focal_dice")
NORMS = ("none", "batch", "group")
UPSAMPLINGS = ("nearest", "bilinear", "transpose")
ENCODER_WEIGHTS = ("imagenet", "random")
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "hold", "constant")
FEWEST_CHIPS, OF_PX = 1000, 256
"""Of a pass, unless a spec says otherwise, and their side; of larger chips as many as have these pixels.

A few dozen tiles would else be left long before they are learned.
"""
_LARGEST_STRIDE = 128
"""Beyond, a network sees less of a tile of usual size than it shrinks it by."""
_WITHOUT_ENCODER = ("network.depth", "network.stem", "network.dropout")
"""What a network with an encoder of `keras.applications` does not have."""
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")


def _check_known(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingsError(f"No {name} is called {value!r}.", fix=f"Choose one of {', '.join(known)}.")


@dataclass(frozen=True)
class UNetSpec:
    """What to build. The defaults are the article's network: 31,032,837 parameters.

    Attributes:
        width: filters of the first block; each deeper block has twice as many.
        depth: down-sampling blocks.
        dropout: share dropped after every down block but the first, and after the bottleneck.
        norm: what follows every 3x3 convolution of the blocks: `none`, `batch` or `group` normalisation.
        residual: blocks add their input to their output.
        upsampling: on the way up: `nearest` or `bilinear` magnification and a 2x2 convolution, or `transpose`d
            convolution.
        stem: 1 works at the image's resolution from the first block on; 2 halves it first and doubles it at the
            heads, so that a block costs a quarter.
        encoder: a class of `keras.applications` that takes the place of the down blocks and of the bottleneck, such
            as `EfficientNetV2B0`; width then tells of the way up alone, and depth, stem and dropout of nothing. None:
            blocks of our own.
        encoder_weights: that it starts from: `imagenet`, an error where they cannot be fetched, or `random`.
        heads: what is told of each pixel: `building`, and perhaps `border` and `contact`, in this order.

    Raises:
        SettingsError: no network can be built from this.
    """

    width: int = 64
    depth: int = 4
    dropout: float = 0.25
    norm: str = "none"
    residual: bool = False
    upsampling: str = "nearest"
    stem: int = 1
    encoder: str | None = None
    encoder_weights: str = "imagenet"
    heads: tuple[str, ...] = ("building",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", tuple(self.heads))  # YAML and JSON know lists only
        if self.width < 1 or self.depth < 1 or not 0 <= self.dropout < 1 or self.stem not in (1, 2):
            raise SettingsError(
                f"No network can be built from width {self.width}, depth {self.depth}, dropout {self.dropout}, "
                f"stem {self.stem}.",
                fix="Width and depth are at least 1, dropout is in [0, 1), stem is 1 or 2.",
            )
        if self.stride > _LARGEST_STRIDE:
            raise SettingsError(
                f"Depth {self.depth} with stem {self.stem} makes a stride of {self.stride} pixels.",
                fix=f"Choose fewer blocks: {_LARGEST_STRIDE} pixels is the most.",
            )
        _check_known("norm", self.norm, NORMS)
        _check_known("upsampling", self.upsampling, UPSAMPLINGS)
        _check_known("encoder_weights", self.encoder_weights, ENCODER_WEIGHTS)
        if self.heads != tuple(head for head in HEADS if head in self.heads) or HEADS[0] not in self.heads:
            raise SettingsError(
                f"A network cannot have the heads {', '.join(self.heads) or '(none)'}.",
                fix=f"Choose {HEADS[0]}, and any of the others, in this order: {', '.join(HEADS)}.",
            )

    @property
    def stride(self) -> int:
        """Inputs must be multiples of this, pixels."""
        return 32 if self.encoder else self.stem * 2**self.depth

    def check_chip_size(self, chip_size: int) -> None:
        """Make sure that chips fit the network.

        Raises:
            SettingsError: the chip size is no multiple of the stride.
        """
        if chip_size % self.stride:
            raise SettingsError(
                f"Chip size {chip_size} is no multiple of the network's stride {self.stride}.",
                fix=f"Choose {max(self.stride, chip_size // self.stride * self.stride)}, for example.",
            )


ARTICLE = UNetSpec()
"""R. C. Di Lorenzo's network."""

DEFAULT = UNetSpec(width=32, depth=3, dropout=0.1, norm="batch", residual=True, stem=2, heads=HEADS)
"""Half the resolution inside, residual, and three heads: less than a tenth of the article's operations."""


@dataclass(frozen=True)
class TrainingSpec:
    """Everything that makes a training what it is.

    Attributes:
        network: what to build.
        augmentation: how chips are changed.
        loss: `bce` (the article's), `bce_dice` (and soft Dice over the batch, on several GPUs over each one's share of
            it), `bce_chip_dice` (over each chip) or `focal_dice`.
        head_weights: how much the loss of each head counts, in the order of the network's heads; the last one counts
            for all heads that are left.
        optimizer: `adamw` or `sgd`.
        learning_rate: the largest rate.
        schedule: after the warm-up the rate falls along a `cosine`, or is on `hold` and falls in the last third, both
            times to a hundredth, or is `constant`.
        warm_up: share of the training over which the rate rises to it.
        weight_decay: share of each weight that a step takes away, times the rate; not of biases and normalisations.
        momentum: of `sgd`, as Nesterov has it.
        clip_norm: gradients that are longer, all taken together, are shortened to this; 0 leaves them.
        ema: the network that is validated and kept is a moving average of the weights and of the normalisation's
            statistics; this is its decay a step, lower at first. 0 keeps the weights as they are.
        batch_size: chips a step, of all GPUs together.
        chip_size: side of the chips, pixels.
        epochs: passes at most.
        chips_per_epoch: chips a pass; when None, as many as cover the training ground once, but at least 1,000, or of
            chips of more than 256 pixels as many as have the pixels of these.
        max_batches: steps a pass at most; no limit when None.
        balance: an AOI is drawn in proportion to its ground to this power: 1 by ground, 0 each AOI alike.
        patience: stop after this many epochs without a better validation loss.
        max_minutes: stop after this long, within an epoch if need be, having lowered the rate on the way, so that
            what is learnt depends on the machine's pace once time presses; no limit when None.
        gsd_m: resolution to work at, metres a pixel; the training tiles' median when None.
        precision: arithmetic; `auto` takes bfloat16 where the processor multiplies it fast.
        xla: compile the whole step with XLA. JAX always does; TensorFlow may gain on a GPU and loses on a CPU.
        gpus: how many to train on; 0 takes all that can share a batch evenly, or the CPU where there is none.
        seed: weights, order and augmentation: the same seed on the same CPU gives the same weights.
    """

    network: UNetSpec = DEFAULT
    augmentation: AugmentationSpec = field(default_factory=AugmentationSpec)
    loss: str = "bce_dice"
    head_weights: tuple[float, ...] = (1.0, 0.5)
    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    schedule: str = "hold"
    warm_up: float = 0.1
    weight_decay: float = 1e-4
    momentum: float = 0.0
    clip_norm: float = 1.0
    ema: float = 0.998
    batch_size: int = 16
    chip_size: int = 256
    epochs: int = 30
    chips_per_epoch: int | None = None
    max_batches: int | None = None
    balance: float = 1.0
    patience: int = 30
    max_minutes: float | None = None
    gsd_m: float | None = None
    precision: str = "auto"
    xla: bool = False
    gpus: int = 0
    seed: int = 1337

    def __post_init__(self) -> None:
        object.__setattr__(self, "head_weights", tuple(self.head_weights))
        _check_known("loss", self.loss, LOSSES)
        _check_known("optimizer", self.optimizer, OPTIMIZERS)
        _check_known("schedule", self.schedule, SCHEDULES)
        _check_known("precision", self.precision, PRECISIONS)
        for name in (
            "batch_size", "chip_size", "epochs", "learning_rate", "patience", "chips_per_epoch", "max_batches",
            "max_minutes", "gsd_m",
        ):  # fmt: skip
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise SettingsError(f"{name} is {getattr(self, name)}.", fix="It must be greater than zero.")
        for name in ("weight_decay", "clip_norm", "gpus", "seed"):
            if not getattr(self, name) >= 0:
                raise SettingsError(f"{name} is {getattr(self, name)}.", fix="It must not be below zero.")
        for name in ("warm_up", "momentum", "ema", "balance"):
            value = getattr(self, name)
            if not 0 <= value <= 1 or (value == 1 and name in ("momentum", "ema")):
                raise SettingsError(f"{name} is {value}.", fix="It must be from 0 to 1; momentum and ema below 1.")
        if self.seed >= 2**32:
            raise SettingsError(f"seed is {self.seed}.", fix="It must be below 4294967296.")
        if not self.head_weights or min(self.head_weights) < 0 or self.head_weights[0] == 0:
            raise SettingsError(
                f"head_weights are {list(self.head_weights)}.", fix="The first is above zero, none is below."
            )
        self.network.check_chip_size(self.chip_size)

    def flat(self) -> dict[str, object]:
        """The spec as one level of names and values, for MLflow: `network.width` and so on."""
        flat: dict[str, object] = {}
        for name, value in asdict(self).items():
            if isinstance(value, dict):
                flat.update({f"{name}.{inner}": leaf for inner, leaf in value.items()})
            else:
                flat[name] = value
        unused = _WITHOUT_ENCODER if self.network.encoder else ()
        return {name: value for name, value in flat.items() if name not in unused}
