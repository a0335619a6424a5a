"""The models that the service pulled: which of them it may start with while the registry does not answer."""

import json
import logging
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from footprint_pipeline.errors import FootprintError
from footprint_pipeline.files import atomic_path

log = logging.getLogger(__name__)

_RECORD = "current-{model}@{alias}.json"
_ABANDONED_S = 3600.0
"""Age at which what no record names is nobody's any more: a download, or a version that another service is loading."""


class CacheError(FootprintError):
    """The folder takes no model, whichever version it is: it is read-only, or full."""


@dataclass(frozen=True)
class Cached:
    """A version that served.

    Attributes:
        version: its number.
        folder: its name in the cache.
        before: the name of the one that served before; None when there is none.
    """

    version: str
    folder: str
    before: str | None


class ModelCache:
    """A folder of pulled models, one folder each, and a record by model and alias, which says which served last.

    Args:
        folder: the services of one registry may share it.
        model_name: of the registry,
        alias: and what is followed there.
    """

    def __init__(self, folder: Path, *, model_name: str, alias: str) -> None:
        self.folder = folder
        self._record = folder / _RECORD.format(model=quote(model_name, safe=""), alias=quote(alias, safe=""))

    def last(self) -> Cached | None:
        """The version that served last; None when none is known."""
        return _read(self._record)

    def remember(self, version: str, folder: Path) -> None:
        """Write down what serves now, and remove what no record has as serving now or before.

        Args:
            version: its number.
            folder: where it lies, in the cache.
        """
        before, last = None, self.last()
        if last is not None:
            before = last.before if last.folder == folder.name else last.folder
        try:
            with atomic_path(self._record) as temporary:
                temporary.write_text(json.dumps(asdict(Cached(version, folder.name, before))) + "\n", "utf-8")
            records = filter(None, map(_read, self.folder.glob(_RECORD.format(model="*", alias="*"))))
            keep = {name for record in records for name in (record.folder, record.before)}
            for path in self.folder.iterdir():
                young = time.time() - path.stat().st_mtime < _ABANDONED_S
                if path.is_dir() and path.name not in keep and not young:
                    shutil.rmtree(path, ignore_errors=True)
        except OSError as error:
            log.warning("The cache %s cannot be kept (%s)", self.folder, error)


def _read(record: Path) -> Cached | None:
    try:
        return Cached(**json.loads(record.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
