"""The OpenAPI document and the JSON Schema of the webhook, generated from the code."""

import functools
from typing import Any

import msgspec
from litestar import Litestar
from litestar.openapi import OpenAPIConfig

from ledger import __version__
from ledger.api.http.bodies import BODIES
from ledger.api.openapi.intake import EXAMPLE, INTAKE_PATHS, PROBLEM_RESPONSE
from ledger.api.routes import make_routes
from ledger.event_types import EVENT_TYPES
from ledger.model.event import BillEvent
from ledger.operations.render import MEDIA_TYPES
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
            _add_body(made, operation)
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
    event["properties"]["eventType"] = {"enum": list(EVENT_TYPES)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A webhook of Flabs that Ledger folds",
        "description": "Unknown further fields are ignored everywhere. Beyond this schema, "
        "the strings that it names hold neither NUL nor lone surrogates, and eventTime is written "
        "without a fraction or an exponent.",
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
    return Litestar(
        make_routes(), openapi_config=config, logging_config=None
    ).openapi_schema.to_schema()


def _add_body(made: dict[str, Any], operation: dict[str, Any]) -> None:
    """Say what an operation takes as its body; the handlers read it themselves."""
    name = operation["operationId"]
    if files := FILES.get(name):
        content: dict[str, Any] = {media_type: {"schema": {}} for media_type in files}
    elif body := BODIES.get(name):
        (schema,), definitions = msgspec.json.schema_components(
            [body], ref_template="#/components/schemas/{name}"
        )
        made["components"]["schemas"].update(definitions)
        content = {"application/json": {"schema": schema}}
    else:
        return
    operation["requestBody"] = {"content": content, "required": name != "MakeSupportRequest"}


FILES = {
    "ImportEvents": ("application/x-ndjson", "application/json", "application/gzip"),
    "ExpectBills": ("application/x-ndjson", "text/csv"),
}
"""Operations whose body is a file, with its media types."""

_FORMS = ("text/csv", "text/markdown", "text/plain", MEDIA_TYPES["xlsx"])


def _complete(operation: dict[str, Any]) -> None:
    """Add what holds for every call under /v1."""
    operation["security"] = [{"apiKey": []}]
    responses = operation["responses"]
    parameters = operation.get("parameters", ())
    problems = {
        "400": "A parameter or the body is wrong; the problem says what is taken.",
        "401": "The API key is missing or wrong.",
        "503": "The database does not answer, or the state has not caught up in time.",
    }
    if operation["operationId"] in HAS_SUBJECT:
        problems["404"] = "There is no such thing; the problem says what there is."
    if any(parameter["name"] == "format" for parameter in parameters):
        problems["406"] = "None of the forms that there are is accepted."
        responses["200"]["content"] |= {form: {"schema": {"type": "string"}} for form in _FORMS}
    if operation["operationId"] in FILES:
        problems["413"] = "The file is too long."
    for status, description in problems.items():
        responses[status] = {"description": description, "content": PROBLEM_RESPONSE}
    responses.get("204", {}).pop("content", None)
    for status in ("200", "201", "204"):
        if status in responses:
            responses[status].setdefault("headers", {})["Ledger-Position"] = _POSITION


HAS_SUBJECT = {
    "GetBill", "ListFindings", "ListBillEvents", "WaiveMissingEvent", "UnwaiveMissingEvent",
    "MakeSupportRequest", "GetSupportRequest", "CloseSupportRequest", "CloseLossWindow",
    "StopExpectingBill",
}  # fmt: skip
"""Operations about one thing that may not exist."""


def _schema_of_problem() -> dict[str, Any]:
    schema: dict[str, Any] = msgspec.json.schema(Problem)["$defs"]["Problem"]
    return schema
