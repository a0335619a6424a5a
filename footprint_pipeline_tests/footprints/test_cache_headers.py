import pytest
from requests.structures import CaseInsensitiveDict

from footprint_pipeline.footprints.cache_headers import GRACE_S, LIFETIME_S, Freshness, freshness

DATES = {"Date": "Thu, 01 Jan 2026 00:00:00 GMT", "Expires": "Thu, 01 Jan 2026 01:00:00 GMT"}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Freshness(LIFETIME_S, GRACE_S)),
        ({"cache-control": "public, Max-Age=60"}, Freshness(60, GRACE_S)),
        ({"Cache-Control": "max-age=43200,s-maxage=604800"}, Freshness(43200, GRACE_S)),  # as Mapbox says it
        ({"Cache-Control": "s-maxage=60"}, Freshness(60, GRACE_S)),
        ({"Cache-Control": 'private, max-age="60"'}, Freshness(60, GRACE_S)),
        ({"Cache-Control": "max-age=60", "Age": "50"}, Freshness(10, GRACE_S)),
        ({"Cache-Control": "max-age=60", "Age": "90"}, Freshness(0, GRACE_S)),
        ({"Cache-Control": "max-age=soon"}, Freshness(0, GRACE_S)),
        ({"Cache-Control": "max-age=60", **DATES}, Freshness(60, GRACE_S)),
        (DATES, Freshness(3600, GRACE_S)),
        ({**DATES, "Expires": "0"}, Freshness(0, GRACE_S)),
        ({"Expires": DATES["Expires"]}, Freshness(0, GRACE_S)),
        ({**DATES, "Expires": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, Freshness(0, GRACE_S)),
        ({"Cache-Control": "max-age=60, stale-if-error=5"}, Freshness(60, 5)),
        ({"Cache-Control": "max-age=60, must-revalidate"}, Freshness(60, 0)),
        ({"Cache-Control": "max-age=60, proxy-revalidate, stale-if-error=5"}, Freshness(60, 0)),
        ({"Cache-Control": "no-cache, max-age=60"}, Freshness(0, 0)),
        ({"Cache-Control": "max-age=60, no-store"}, None),
        ({"Vary": "*"}, None),
    ],
)
def test_answers_last_as_long_as_the_provider_says(headers: dict[str, str], expected: Freshness | None) -> None:
    assert freshness(CaseInsensitiveDict(headers)) == expected
