"""What libraries log of the addresses they fetch, without what can hold an access token."""

import logging
import re

_OF_RASTERIO = "rasterio"
_LOGGERS = (
    "urllib3.connectionpool", "urllib3.util.retry",
    *(f"{_OF_RASTERIO}.{name}" for name in ("_base", "_env", "_err", "_io", "_vsiopener", "_warp")),
)  # fmt: skip


class _Discretion(logging.Filter):
    """Cuts out query strings, and whatever fits a pattern; of what GDAL fetches it leaves the host alone."""

    def __init__(self) -> None:
        super().__init__()
        self.patterns: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        for pattern in tuple(self.patterns):
            text = re.sub(pattern, "/…", text)
        if record.name.startswith(_OF_RASTERIO):
            text = re.sub(r"(\w+://)(?:[^/\s@]*@)?([^/\s?\"']*)[^\s\"']*", r"\1\2/…", text)
        record.msg, record.args = re.sub(r"\?[^\s\"']*", "?…", text), ()
        return True


_filter = _Discretion()


def be_discreet(pattern: str | None = None) -> None:
    """Keep query strings out of the log from now on.

    Args:
        pattern: regular expression of paths that hold a secret as well.
    """
    if pattern is not None:
        _filter.patterns.add(pattern)
    for logger in _LOGGERS:
        logging.getLogger(logger).addFilter(_filter)  # the same filter is added once
