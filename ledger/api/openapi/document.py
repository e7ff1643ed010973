"""Generates the OpenAPI document and the JSON Schema of the webhook from the code."""

import functools
import inspect
import re
from typing import Any, get_args

import msgspec
from litestar import Litestar
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig

from ledger import __version__
from ledger.api.http.bodies import BODIES
from ledger.api.http.known_parameters import Place, handlers_of, parameters_of, schema_of
from ledger.api.openapi.descriptions import PARAMETERS, PROPERTIES
from ledger.api.openapi.intake import EXAMPLE, INTAKE_PATHS, PROBLEM_RESPONSE
from ledger.api.routes import make_routes
from ledger.event_types import EVENT_TYPES
from ledger.model.event import BillEvent
from ledger.operations.api_keys import Scope
from ledger.operations.render import MEDIA_TYPES
from ledger.problems import Problem

_POSITION = {
    "description": "The log position that the response reflects.",
    "schema": {"type": "integer", "minimum": 0},
}
_RETRY_AFTER = {"description": "Seconds to wait.", "schema": {"type": "string"}}
_AUTHENTICATE = {"description": "How to authenticate.", "schema": {"type": "string"}}

FILES = {
    "ImportEvents": "JSON Lines, a JSON array or JSON values one after the other, in UTF-8, UTF-16 "
    "or UTF-32; plain, gzip or zip.",
    "ExpectBills": "JSON Lines, or CSV with a header.",
}
"""What the request bodies that are files may hold, by operation. The content decides, not its
declared type; the one that is declared is the one that generators of clients know."""

_FILE = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

_TEXT = {"schema": {"type": "string"}}
_DOCUMENTS = {
    "text/csv": _TEXT,
    "text/markdown": _TEXT,
    "text/plain": _TEXT,
    MEDIA_TYPES["xlsx"]: {},
}

_STREAM = {
    "text/event-stream": {
        "schema": {
            "type": "string",
            "description": "Server-sent events named `bill`: the id is the position, the data an "
            "item as in JSON. A comment is sent every 15 seconds.",
        },
        "example": ": changes after 41\n\n"
        'id: 42\nevent: bill\ndata: {"lab_id": "lab_67890", ...}\n\n',
    }
}

ASKS_FLABS = {"ListAccountLabs", "CheckAccount", "SubscribeLabs", "RotateToken"}
"""Operations that call Flabs."""

_OF_FLABS = {
    "409": "A setting that this needs is missing; the problem says which.",
    "502": "Flabs refuses, fails or cannot be reached; in its words and ours.",
}

HAS_SUBJECT = {
    "GetBill", "ListFindings", "ListBillEvents", "WaiveMissingEvent", "UnwaiveMissingEvent",
    "MakeSupportRequest", "GetEventProof",
    "GetSupportRequest", "CloseSupportRequest", "CloseLossWindow", "StopExpectingBill",
    "RevokeWebhookToken", "GetRefusedDelivery", "AcceptRefusedDeliveries", "DropRefusedDeliveries",
    "RotateKey", "RevokeKey", "EraseBody", "GetTokenRotation", "RotateToken",
}  # fmt: skip
"""Operations on one subject, which may not exist."""

_DESCRIPTION = """\
Ledger keeps every webhook of Flabs and answers what became of each bill and report.

Times are RFC 3339 in UTC. Errors are `application/problem+json` (RFC 9457). Lists return `items`
and `next`; pass `next` as `cursor` to get the next page. Authenticated responses carry
`Ledger-Position`, the log position they reflect; with `min_position` a read waits until the
projection has reached a position. An API key may be for some labs only: it sees and changes nothing
of others, and what is not its own answers as if it did not exist."""


@functools.cache
def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of all operations."""
    config = OpenAPIConfig(
        title="Ledger",
        version=__version__,
        summary="Every webhook of Flabs, and what became of it.",
        description=_DESCRIPTION,
        use_handler_docstrings=True,
    )
    app = Litestar(make_routes(), openapi_config=config, logging_config=None)
    made = app.openapi_schema.to_schema()
    schemas, components = _schemas(app)
    for path, handler in handlers_of(app):
        (method,) = {method.lower() for method in handler.http_methods}
        _complete(made["paths"][path][method], handler, path, schemas)
    made["paths"] = {**INTAKE_PATHS, **made["paths"]}
    made["components"] = {
        "schemas": components,
        "securitySchemes": {
            "apiKey": {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key. Each operation names the scope that the key needs: "
                "`read`, `operate` or `admin`; each includes those before it.",
            },
            "webhookToken": {
                "type": "apiKey",
                "in": "header",
                "name": "Authorization",
                "description": "A webhook token, as `Bearer TOKEN` or `TOKEN`.",
            },
        },
    }
    return made


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


Schemas = dict[Any, dict[str, Any]]
"""By type."""


def _shape(handler: HTTPRouteHandler) -> tuple[str, Any] | None:
    """Return the status and the type of a handler's JSON response."""
    for status, response in (handler.responses or {}).items():
        if response.data_container is not None and status < 300:  # noqa: PLR2004 -- success
            return str(status), response.data_container
    returned = handler.parsed_return_field.annotation
    if isinstance(returned, type) and issubclass(returned, msgspec.Struct):
        return str(handler.status_code), returned
    return None


def _schemas(app: Litestar) -> tuple[Schemas, dict[str, Any]]:
    """Return the schema of every body and response, and the components they refer to."""
    shapes = [shape[1] for _, handler in handlers_of(app) if (shape := _shape(handler))]
    types = list(dict.fromkeys([*shapes, *BODIES.values(), Problem]))
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    for name, component in components.items():
        component.pop("title", None)
        component["description"] = inspect.cleandoc(component["description"])
        for property_name, schema in component.get("properties", {}).items():
            # Generators of TypeScript take a property with a default for one that is always there.
            schema.pop("default", None)
            words = PROPERTIES.get(f"{_plain(name)}.{property_name}", PROPERTIES.get(property_name))
            if words:
                schema.setdefault("description", words)
    renamed = {_plain(name): component for name, component in components.items()}
    return dict(zip(types, map(_tidied, schemas), strict=True)), _tidied(renamed)


_REFERENCE = "#/components/schemas/{name}"
_PAGE = re.compile(r"Page_(\w+?)(?:Item)?_")


def _plain(name: str) -> str:
    """Return `BillPage` for `Page_BillItem_`, and any other name as it is."""
    return _PAGE.sub(r"\1Page", name)


def _tidied(value: Any) -> Any:  # noqa: ANN401 -- any JSON
    """Use the plain names in references, and say that a choice of strings is a string."""
    if isinstance(value, list):
        return [_tidied(part) for part in value]
    if not isinstance(value, dict):
        return value
    made = {name: _plain(part) if name == "$ref" else _tidied(part) for name, part in value.items()}
    choices = made.get("enum", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        made["type"] = "string"
    return made


def _complete(
    operation: dict[str, Any], handler: HTTPRouteHandler, path: str, schemas: Schemas
) -> None:
    """Add to an operation what Litestar does not know or describes less well."""
    operation["summary"] = re.split(r"[.:;]\s", operation["description"] + " ")[0]
    operation.pop("deprecated", None)
    if parameters := _parameters(handler, path):
        operation["parameters"] = parameters
    responses = operation["responses"]
    if shape := _shape(handler):
        responses[shape[0]]["content"] = {"application/json": {"schema": schemas[shape[1]]}}
    _add_body(operation, schemas)
    if path.startswith("/v1/"):
        _add_common_responses(operation, handler)
    for status, response in responses.items():
        if status >= "400":
            response["content"] = PROBLEM_RESPONSE
        if status in {"429", "503"}:
            response["headers"] = {"Retry-After": _RETRY_AFTER}


def _parameters(handler: HTTPRouteHandler, path: str) -> list[dict[str, Any]]:
    found = []
    for name, (place, field) in parameters_of(handler, path).items():
        described = getattr(field.kwarg_definition, "description", None)
        words = PARAMETERS.get(f"{handler.operation_id}.{name}", PARAMETERS.get(name))
        made = {
            "name": name,
            "in": place,
            "required": place == "path",
            "schema": schema_of(field),
        }
        if described or words:
            made["description"] = described or words
        found.append(made)
    return sorted(found, key=lambda made: get_args(Place).index(made["in"]))


def _add_body(operation: dict[str, Any], schemas: Schemas) -> None:
    """Describe the body that an operation takes; the handlers read it themselves."""
    name = operation["operationId"]
    if words := FILES.get(name):
        operation["requestBody"] = {"description": words, "content": _FILE, "required": True}
    elif body := BODIES.get(name):
        content = {"application/json": {"schema": schemas[body]}}
        required = name != "MakeSupportRequest"
        operation["requestBody"] = {"content": content, "required": required}


def _add_common_responses(operation: dict[str, Any], handler: HTTPRouteHandler) -> None:
    """Describe what every operation under /v1 may respond with."""
    scope: Scope = handler.opt["scope"]
    operation["security"] = [{"apiKey": [scope]}]
    responses = operation["responses"]
    problems = {
        "400": "A parameter or the body is wrong; the problem says what is accepted.",
        "401": "The API key is missing or wrong.",
        "503": "The database does not answer, the server is busy, or the projection has not "
        "reached `min_position` in time.",
    }
    names = {parameter["name"] for parameter in operation.get("parameters", ())}
    if scope != "read" or operation["operationId"] == "GetSubscription" or "body" in names:
        problems["403"] = "The API key has not the scope, or is not for the lab."
    if HttpMethod.GET in handler.http_methods:
        problems["429"] = "The API key reads more often than LEDGER_READ_RATE allows."
    if operation["operationId"] in HAS_SUBJECT:
        problems["404"] = "The subject does not exist; the problem says what does."
    problems |= _OF_FLABS if operation["operationId"] in ASKS_FLABS else {}
    if "format" in names:
        problems["406"] = "None of the available formats is accepted."
        responses["200"]["content"] |= _DOCUMENTS
    if operation["operationId"] == "ListChanges":
        responses["200"]["content"] |= _STREAM
    if "requestBody" in operation:
        problems["408"] = "The body came too slowly."
        problems["413"] = "The body is too long."
    for status, description in problems.items():
        responses[status] = {"description": description}
    responses["401"]["headers"] = {"WWW-Authenticate": _AUTHENTICATE}
    responses.get("204", {}).pop("content", None)
    for status in ("200", "201", "204"):
        if status in responses:
            responses[status].setdefault("headers", {})["Ledger-Position"] = _POSITION
