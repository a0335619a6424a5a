"""The models that the service pulled: which of them it may start with while the registry does not answer."""

import json
import logging
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from footprint_pipeline.files import atomic_path

log = logging.getLogger(__name__)

_RECORD = "current.json"
_ABANDONED_S = 3600.0
"""Age at which a download that is not whole is nobody's any more."""


@dataclass(frozen=True)
class Cached:
    """A version that served.

    Attributes:
        model_name: of the registry.
        alias: that pointed to it.
        version: its number.
        folder: its name in the cache.
    """

    model_name: str
    alias: str
    version: str
    folder: str


class ModelCache:
    """A folder of pulled models, one folder each, and `current.json`, which says which of them served last.

    Args:
        folder: the services of one registry may share it.
        model_name: of the registry,
        alias: and what is followed there; a record of another model or alias is none.
    """

    def __init__(self, folder: Path, *, model_name: str, alias: str) -> None:
        self.folder = folder
        self._of = model_name, alias

    def last(self) -> Cached | None:
        """The version that served last; None when none is known."""
        try:
            cached = Cached(**json.loads((self.folder / _RECORD).read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return cached if (cached.model_name, cached.alias) == self._of else None

    def remember(self, version: str, folder: Path) -> None:
        """Write down what serves now, and remove all but it and what served before.

        Args:
            version: its number.
            folder: where it lies, in the cache.
        """
        before = self.last()
        keep = {folder.name, before.folder if before else folder.name}
        try:
            with atomic_path(self.folder / _RECORD) as temporary:
                temporary.write_text(json.dumps(asdict(Cached(*self._of, version, folder.name))) + "\n")
            for path in self.folder.iterdir():
                arriving = path.name.startswith(".") and time.time() - path.stat().st_mtime < _ABANDONED_S
                if path.is_dir() and path.name not in keep and not arriving:
                    shutil.rmtree(path, ignore_errors=True)
        except OSError as error:
            log.warning("The cache %s cannot be kept (%s)", self.folder, error)
