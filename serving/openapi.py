"""The service described in OpenAPI 3.1, made from its routes and from the schemas that check requests.

What belongs here: the decorator that says of a view what its docstring and its route do not, and the document that is
made of all of them. A route that says nothing of itself is an error, so there is none that is not documented.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from werkzeug.routing import Rule

from footprint_pipeline import __version__
from serving.access import is_open
from serving.answers import Problem
from serving.queries import Coordinate

GEOJSON, PROBLEM = "application/geo+json", "application/problem+json"
ASKED = (400, 404, 413, 422, 500, 502, 503)
"""What can go wrong with a prediction."""

_TILE = {"z": 17, "x": 51139, "y": 50495}
"""A tile of the generated city, as an example."""
_REFERENCE = "#/components/schemas/{model}"
_HEADERS = {
    "X-Model-Version": "version that answered",
    "X-Out-Of-Domain": "how unlike the training tiles the imagery is, 0 to 1, where that is known",
    "X-Imagery-Attribution": "whom to credit, where the source says it",
    "Server-Timing": "milliseconds by stage",
}
View = TypeVar("View", bound=Callable[..., Any])
Schema = type[BaseModel] | tuple[type[BaseModel], ...] | Mapping[str, Any]
"""One, any of several, or JSON Schema as it is."""
BINARY: Schema = {"type": "string", "format": "binary"}
TEXT: Schema = {"type": "string"}


@dataclass(frozen=True)
class Operation:
    """What can be asked at one route with one method.

    Attributes:
        answers: media type → schema, of 200.
        problems: statuses of the problems that it may answer with, beside those of the key.
        arguments: schema of the query string.
        body: media type → schema, of the request.
        also: other statuses that are no problems, each with media types and schemas.
        variables: schemas of those names in the path that are no whole numbers.
        prediction: whether the answer carries the headers of one.
    """

    answers: Mapping[str, Schema]
    problems: tuple[int, ...] = (500,)
    arguments: tuple[type[BaseModel], ...] = ()
    body: Mapping[str, Schema] = field(default_factory=dict)
    also: Mapping[int, Mapping[str, Schema]] = field(default_factory=dict)
    variables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prediction: bool = False

    def models(self) -> Iterable[tuple[type[BaseModel], str]]:
        """Every schema with the side that it describes."""
        for schema in (*self.arguments, *self.body.values()):
            yield from ((model, "validation") for model in _models(schema))
        for answers in (self.answers, *self.also.values()):
            for schema in answers.values():
                yield from ((model, "serialization") for model in _models(schema))


def documented(operation: Operation) -> Callable[[View], View]:
    """Say of a view what it takes and what it answers; its docstring says the rest."""

    def mark(view: View) -> View:
        view.operation = operation  # type: ignore[attr-defined]
        return view

    return mark


def operations(app: Flask) -> dict[tuple[str, str], tuple[Operation, str, str]]:
    """(path, method) → operation, name and docstring of every route.

    Raises:
        LookupError: a route says nothing of itself.
    """
    found = {}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if not hasattr(view, "operation"):
            raise LookupError(f"{rule.rule} is not documented")
        for method in _methods(rule):
            name = rule.endpoint.rpartition(".")[2]
            found[path_of(rule), method] = view.operation, name, inspect.getdoc(view) or ""
    return found


def document(app: Flask, *, keys: bool) -> dict[str, Any]:
    """The OpenAPI document of an app.

    Args:
        app: with all its routes.
        keys: whether requests must bring one.
    """
    known = operations(app)
    sides: dict[Any, None] = {(Problem, "serialization"): None, (Coordinate, "validation"): None}
    for operation, _, _ in known.values():
        sides.update(dict.fromkeys(operation.models()))
    names, schemas = models_json_schema(list(sides), ref_template=_REFERENCE)
    components = {"schemas": schemas["$defs"]}
    schema_of = {model: schema for (model, _), schema in names.items()}
    if keys:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
    paths: dict[str, dict[str, Any]] = {}
    for (path, method), (operation, name, told) in sorted(known.items()):
        asked = keys and not is_open(path)
        summary, _, description = told.partition("\n")
        problems = sorted({*operation.problems, *((401,) if asked else ()), *(() if is_open(path) else (429,))})
        paths.setdefault(path, {})[method.lower()] = {
            "operationId": name,
            "summary": summary,
            **({"description": description.strip()} if description.strip() else {}),
            **_asked(path, operation, schema_of, components["schemas"]),
            "responses": {
                "200": _answer(200, operation.answers, schema_of, prediction=operation.prediction),
                **{str(status): _answer(status, media, schema_of) for status, media in operation.also.items()},
                **{str(status): _answer(status, {PROBLEM: Problem}, schema_of) for status in problems},
            },
            **({"security": [{"bearer": []}, {"header": []}]} if asked else {}),
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Building footprints",
            "version": __version__,
            "description": "Building footprints from satellite imagery. Every error is a problem as in RFC 9457, "
            "with `fix`, what to do about it, where there is something. Whatever is asked may also be answered with "
            "414 or 431, where address or headers are too long, and without keys with 421 or 403, where it is asked "
            "by a name that may lead elsewhere or by a page of another site.",
        },
        "paths": paths,
        "components": components,
    }


def path_of(rule: Rule) -> str:
    """A route's path as OpenAPI writes it, {z} for <int:z>."""
    return re.sub(r"<(?:int:)?(\w+)>", r"{\1}", rule.rule)


def _methods(rule: Rule) -> list[str]:
    return sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})


def _asked(
    path: str, operation: Operation, schema_of: Mapping[type, Any], schemas: Mapping[str, Any]
) -> dict[str, Any]:
    whole = {"type": "integer", "minimum": 0}
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": operation.variables.get(name, whole),
            **({"example": _TILE[name]} if name in _TILE else {}),
        }
        for name in re.findall(r"{(\w+)}", path)
    ]
    parameters += [
        parameter
        for model in operation.arguments
        for parameter in _parameters(schemas[schema_of[model]["$ref"].rpartition("/")[2]], schemas)
    ]
    body = {media: _media(schema, schema_of) for media, schema in operation.body.items()}
    return {
        **({"parameters": parameters} if parameters else {}),
        **({"requestBody": {"required": True, "content": body}} if body else {}),
    }


def _parameters(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """The query parameters that `from_arguments` makes the schema from."""
    required = schema.get("required", [])
    for name, what in schema["properties"].items():
        if name == "coordinate":
            for part, its in schemas["Coordinate"]["properties"].items():
                yield _parameter(part, its, required=name in required)
        else:
            yield _parameter(name, what, required=name in required)


def _parameter(name: str, schema: Mapping[str, Any], *, required: bool) -> dict[str, Any]:
    told = {key: value for key, value in schema.items() if key not in ("title", "description", "default")}
    if "anyOf" in told:  # what may be left out has null beside it, which a query string cannot say
        told = {**told, **next(each for each in told["anyOf"] if each.get("type") != "null")}
        del told["anyOf"]
    if schema.get("default") is not None:
        told["default"] = schema["default"]
    description = told.pop("description", schema.get("description"))
    is_geojson = "oneOf" in told
    return {
        "name": name,
        "in": "query",
        "required": required,
        **({"description": description} if description else {}),
        **({"content": {"application/json": {"schema": told}}} if is_geojson else {"schema": told}),
        **({"style": "form", "explode": False} if told.get("type") == "array" else {}),
    }


def _answer(
    status: int, media: Mapping[str, Schema], schema_of: Mapping[type, Any], *, prediction: bool = False
) -> dict[str, Any]:
    headers = dict(_HEADERS) if prediction else {}
    if status in (429, 503) and PROBLEM in media:
        headers = {"Retry-After": "when to ask again, seconds"}
    return {
        "description": HTTPStatus(status).phrase,
        "content": {name: _media(schema, schema_of) for name, schema in media.items()},
        **(
            {"headers": {name: {"description": told, "schema": TEXT} for name, told in headers.items()}}
            if headers
            else {}
        ),
    }


def _media(schema: Schema, schema_of: Mapping[type, Any]) -> dict[str, Any]:
    models = [schema_of[model] for model in _models(schema)]
    if isinstance(schema, Mapping):
        return {"schema": dict(schema)}
    return {"schema": models[0] if len(models) == 1 else {"anyOf": models}}


def _models(schema: Schema) -> tuple[type[BaseModel], ...]:
    return schema if isinstance(schema, tuple) else (schema,) if isinstance(schema, type) else ()
