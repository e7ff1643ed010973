"""The OpenAPI document and the JSON Schema of the webhook, generated from the code."""

import functools
from typing import Any

import msgspec
from litestar import Litestar
from litestar.openapi import OpenAPIConfig

from ledger import __version__
from ledger.api.openapi_intake import EXAMPLE, INTAKE_PATHS, PROBLEM_RESPONSE
from ledger.api.routes import make_routes
from ledger.model.event import RANK, BillEvent
from ledger.problems import Problem

_POSITION = {
    "description": "The log position that the answer is true for.",
    "schema": {"type": "integer", "minimum": 0},
}


@functools.cache
def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of all calls."""
    made = _of_litestar()
    for path, operations in made["paths"].items():
        for operation in operations.values():
            operation["summary"] = operation["description"].partition(".")[0]
            if path.startswith("/v1/"):
                _complete(operation)
    made["paths"] = {**INTAKE_PATHS, **made["paths"]}
    components = made.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = _schema_of_problem()
    components["securitySchemes"] = {
        "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key."},
        "webhookToken": {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "A webhook token, as `Bearer TOKEN` or `TOKEN`.",
        },
    }
    return made


@functools.cache
def query_parameters() -> dict[str, dict[str, str]]:
    """Return, by path, the query parameters that it takes, each with words for what it takes."""
    return {
        path: {
            parameter["name"]: _takes(parameter["schema"])
            for operation in operations.values()
            for parameter in operation.get("parameters", ())
            if parameter["in"] == "query"
        }
        for path, operations in _of_litestar()["paths"].items()
    }


def webhook_schema() -> dict[str, Any]:
    """Return the JSON Schema of the bodies that are folded, with an example."""
    schema = msgspec.json.schema(BillEvent)
    event = schema["$defs"]["BillEvent"]
    event["properties"]["eventType"] = {"enum": sorted(RANK, key=RANK.__getitem__)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A webhook of Flabs that Ledger folds",
        "description": "Unknown further fields are ignored everywhere. Beyond this schema, "
        "identifiers hold neither NUL nor half a surrogate pair, and eventTime is written without "
        "fraction and exponent.",
        "examples": [EXAMPLE],
        **schema,
    }


def _takes(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return f"one of {', '.join(value for value in schema['enum'] if value is not None)}"
    types = {kind.get("type") for kind in schema.get("oneOf", [schema])}
    if "integer" in types:
        least, most = int(schema.get("minimum", 0)), int(schema["maximum"])
        return f"a whole number from {least} to {most}"
    return "true or false" if "boolean" in types else "text"


def _of_litestar() -> dict[str, Any]:
    config = OpenAPIConfig(
        title="Ledger",
        version=__version__,
        summary="Every webhook of Flabs, and what became of it.",
        use_handler_docstrings=True,
    )
    return Litestar(make_routes(), openapi_config=config).openapi_schema.to_schema()


def _complete(operation: dict[str, Any]) -> None:
    """Add what holds for every call under /v1."""
    operation["security"] = [{"apiKey": []}]
    responses = operation["responses"]
    for status, description in (
        ("400", "A query parameter is wrong; the problem names it and what it takes."),
        ("401", "The API key is missing or wrong."),
        ("503", "The database does not answer, or `min_position` was not reached in time."),
    ):
        responses[status] = {"description": description, "content": PROBLEM_RESPONSE}
    if any(parameter["in"] == "path" for parameter in operation.get("parameters", ())):
        responses["404"] = {
            "description": "Nothing was received of this bill.",
            "content": PROBLEM_RESPONSE,
        }
    responses["200"].setdefault("headers", {})["Ledger-Position"] = _POSITION


def _schema_of_problem() -> dict[str, Any]:
    schema: dict[str, Any] = msgspec.json.schema(Problem)["$defs"]["Problem"]
    return schema
