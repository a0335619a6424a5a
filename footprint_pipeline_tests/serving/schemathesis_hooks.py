"""What OpenAPI cannot say of the service's requests, said to Schemathesis."""

from urllib.parse import urlencode

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response

LONGEST_URL = 8000
"""What HTTP servers take; longer ones are none of the service's business."""

AREAS = ({"latitude", "longitude"}, {"bbox"}, {"polygon"})
"""Parameters of which a question names exactly one set."""


@schemathesis.hook
def filter_case(context: HookContext, case: Case) -> bool:
    return len(urlencode(case.query or {}, doseq=True)) < LONGEST_URL


@schemathesis.hook
def map_case(context: HookContext, case: Case) -> Case:
    """Of several areas in a query string that is meant to be right one stays, and it whole."""
    query = case.query
    if case.meta and case.meta.generation.mode.is_positive and query:
        kept = next((area for area in AREAS if area <= set(query)), set())
        for name in set().union(*AREAS) - kept:
            query.pop(name, None)
        if "bbox" in kept or "polygon" in kept:
            query.pop("zoom", None)
    return case


@schemathesis.check
def what_fits_is_understood(ctx: CheckContext, response: Response, case: Case) -> None:
    """What fits the description is refused only for a rule between fields, which no schema says."""
    if case.meta and case.meta.generation.mode.is_positive and response.status_code == 422:
        errors = response.json().get("errors", [])
        assert not any(error["field"] for error in errors), errors
