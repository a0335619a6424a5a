"""For how long an answer over HTTP may be kept (RFC 9111): headers in, seconds out. No storage and no network.

The service is one client of a provider, however many ask the service. So this is a private cache: `private` is no
hindrance, and `s-maxage` counts only where there is no `max-age`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

LIFETIME_S = 24 * 3600.0
"""How long an answer is taken for fresh when the provider says nothing about it."""
GRACE_S = 30 * 24 * 3600.0
"""How much longer it may stand in for a provider that fails, unless that is ruled out."""

_DIRECTIVE = re.compile(r"([\w-]+)(?:\s*=\s*(?:\"([^\"]*)\"|([^\s,]*)))?")


@dataclass(frozen=True)
class Freshness:
    """How long an answer serves.

    Attributes:
        lifetime_s: without asking again.
        grace_s: after that, while the provider cannot be asked.
    """

    lifetime_s: float = LIFETIME_S
    grace_s: float = GRACE_S


def speaks_of_age(headers: Mapping[str, str]) -> bool:
    """Whether headers say anything about how long the answer lasts."""
    return "Cache-Control" in headers or "Expires" in headers


def freshness(headers: Mapping[str, str]) -> Freshness | None:
    """How long an answer with these headers serves; None when it must not be kept.

    Args:
        headers: of the answer, looked up without regard to case.
    """
    said = {
        name.lower(): quoted or plain for name, quoted, plain in _DIRECTIVE.findall(headers.get("Cache-Control", ""))
    }
    if "no-store" in said or headers.get("Vary") == "*":
        return None
    if said.keys() & {"no-cache", "must-revalidate", "proxy-revalidate"}:
        grace_s = 0.0
    else:
        grace_s = _seconds(said.get("stale-if-error"), GRACE_S)
    if "no-cache" in said:
        return Freshness(0.0, grace_s)
    if "max-age" in said or "s-maxage" in said:
        age_s = _seconds(said.get("max-age", said.get("s-maxage")), 0.0)
    elif "Expires" in headers:
        age_s = _until(headers["Expires"], headers.get("Date", ""))
    else:
        age_s = LIFETIME_S
    return Freshness(max(0.0, age_s - _seconds(headers.get("Age"), 0.0)), grace_s)


def _seconds(text: str | None, otherwise: float) -> float:
    return float(text) if text and re.fullmatch(r"\d{1,15}", text) else otherwise


def _until(expires: str, date: str) -> float:
    """Seconds between the provider's own two dates, so that no clocks are compared; 0 where either is none."""
    try:
        return max(0.0, (parsedate_to_datetime(expires) - parsedate_to_datetime(date)).total_seconds())
    except (ValueError, TypeError, OverflowError):  # as in `Expires: 0`, or in the year 99999999999
        return 0.0
