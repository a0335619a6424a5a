"""What can go wrong, said so that a user can act on it.

Every error that this project raises on purpose derives from `FootprintError` and has two parts: the
problem (the thing and the reason) and the fix (the way out). Nothing here knows about HTTP or exit codes.
"""

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class FootprintError(Exception):
    """A problem that the user can act on.

    Args:
        problem: what is wrong, naming the thing (file, row, key, version) and the reason.
        fix: what to do about it, as one sentence.
    """

    def __init__(self, problem: str, *, fix: str = "") -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __reduce__(self) -> tuple:
        return partial(type(self), fix=self.fix), (self.problem,)

    def __str__(self) -> str:
        return f"{self.problem}\n  {self.fix}" if self.fix else self.problem


def first_line(error: BaseException) -> str:
    """What an error of others says, short enough for a message of ours; its kind where it says nothing.

    A line that ends in a colon is followed by the next one, headings (`#`) left out. Where addresses may hold a
    password, `registry.safe_line` is the one to take.
    """
    first, *others = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if not first.endswith(":"):
        return first
    return " ".join([first, *[line for line in others if not line.startswith("#")][:1]])


def field_problems(error: "ValidationError") -> list[tuple[str, str]]:
    """The field, with dots, and what is wrong with it, of each thing that Pydantic refuses.

    The field is empty where a rule between fields is broken.
    """
    told = error.errors(include_url=False, include_input=False, include_context=False)
    return [(".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")) for item in told]


class SettingsError(FootprintError):
    """A setting or an option is missing or makes no sense."""


class SourceError(FootprintError):
    """Imagery or labels cannot be had: missing folder, bucket or key, not SpaceNet, nothing inside."""


class MissingKeyError(SourceError):
    """There is no such S3 bucket or key."""


class TileError(FootprintError):
    """An image tile cannot be read, or is not what the pipeline can use."""


class LabelError(FootprintError):
    """A label is not a polygon, or belongs to no tile."""


class DatasetError(FootprintError):
    """A prepared dataset is missing, empty or does not fit what is asked of it."""


class ShapeMismatchError(FootprintError):
    """Two arrays that must agree in shape do not."""


class TrainingError(FootprintError):
    """Training cannot start or cannot go on."""


class RegistryError(FootprintError):
    """The model registry cannot be reached or does not hold what is asked for."""


class NoSuchVersionError(RegistryError):
    """The registry answers, but has no such alias or version."""


class ModelError(FootprintError):
    """An exported model cannot be loaded or answers nonsense."""


class ImageryError(FootprintError):
    """An imagery provider failed to answer."""


class NoImageryError(ImageryError):
    """There is no imagery at the place asked for."""


class RequestError(FootprintError):
    """A request asks for something that cannot be answered."""
