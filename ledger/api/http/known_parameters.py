"""The parameters of each path, read from the handlers' signatures."""

from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.params import ParameterKwarg
from litestar.typing import FieldDefinition
from msgspec import Meta, Struct

Place = Literal["path", "query", "header"]


class KnownParameter(Struct, frozen=True):
    """One parameter: the name of the handler's argument, and what it takes, in words."""

    field: str
    place: Place
    takes: str


def known_parameters(app: Litestar) -> dict[str, dict[str, KnownParameter]]:
    """Return the parameters of all methods of a path, by path and name."""
    found: dict[str, dict[str, KnownParameter]] = {}
    for path, handler in handlers_of(app):
        found.setdefault(path, {}).update(
            (name, KnownParameter(field.name, place, _takes(field)))
            for name, (place, field) in parameters_of(handler, path).items()
        )
    return found


def handlers_of(app: Litestar) -> list[tuple[str, HTTPRouteHandler]]:
    """Return each handler that has an operation id, with its path, always in the same order."""
    found = [
        (route.path_format, handler)
        for route in app.routes
        for handler in getattr(route, "route_handlers", ())
        if handler.operation_id
    ]
    return sorted(found, key=lambda one: (one[0], str(one[1].operation_id)))


def parameters_of(handler: HTTPRouteHandler, path: str) -> dict[str, tuple[Place, FieldDefinition]]:
    """Return what a handler and its dependencies take from a request, by name."""
    dependencies = handler.resolve_dependencies()
    own = handler.parsed_fn_signature
    needed = [dependencies[name] for name in own.parameters if name in dependencies]
    fields = {
        name: field
        for signature in (own, *(dependency.parsed_fn_signature for dependency in needed))
        for name, field in signature.parameters.items()
        if name not in dependencies and name != "request"
    }
    found: dict[str, tuple[Place, FieldDefinition]] = {}
    for name, field in fields.items():
        options = field.kwarg_definition
        if f"{{{name}}}" in path:
            found[name] = ("path", field)
        elif isinstance(options, ParameterKwarg) and options.header:
            found[options.header] = ("header", field)
        else:
            found[getattr(options, "name", None) or name] = ("query", field)
    return found


def schema_of(field: FieldDefinition) -> dict[str, Any]:
    """Return the JSON Schema of a parameter's value; an absent parameter is not null."""
    options = field.kwarg_definition
    bounds = {
        name: getattr(options, name)
        for name in ("ge", "le", "max_length")
        if getattr(options, name, None) is not None
    }
    shape = _without_null(field.annotation)
    schema = msgspec.json.schema(Annotated[shape, Meta(**bounds)] if bounds else shape)
    if "enum" in schema:
        schema["type"] = "string"
    if field.has_default and field.default is not None:
        schema["default"] = field.default
    return schema


def _takes(field: FieldDefinition) -> str:
    shape = _without_null(field.annotation)
    if get_origin(shape) is Literal:
        return f"one of {', '.join(sorted(get_args(shape)))}"
    if shape is bool:
        return "true or false"
    if shape is int:
        schema = schema_of(field)
        return f"a whole number from {schema['minimum']} to {schema['maximum']}"
    return "text"


def _without_null(shape: Any) -> Any:  # noqa: ANN401 -- a type
    if get_origin(shape) not in {Union, UnionType}:
        return shape
    return _union(kind for kind in get_args(shape) if kind is not NoneType)


def _union(kinds: Iterable[Any]) -> Any:  # noqa: ANN401 -- types
    return Union[tuple(kinds)]  # noqa: UP007 -- the types are known at run time only
