"""Explains why a body is unreadable: reason, JSON path and sentence of the first fault in it.

Source: docs/rules.md, "Readable events". msgspec decides quickly that a body is readable; what is
here runs only for a body that msgspec refuses. It walks the JSON value by the same structs, so that
their shape is stated once. The explanations are stored in the state, so their words are our own: a
library may reword its errors in any release.
"""

import json
import re
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar, get_args

import msgspec
from msgspec import Struct, inspect

from ledger.model.json_text import MAX_DEPTH, is_storable_text, refuse_constant, too_deep

Reason = Literal[
    "not_json",
    "nested_too_deeply",
    "not_an_object",
    "missing_field",
    "wrong_type",
    "out_of_range",
    "forbidden_character",
]
REASONS: tuple[Reason, ...] = get_args(Reason)

T = TypeVar("T")


class Unreadable(Struct, frozen=True):
    """Why a body is unreadable: a code, the JSON path of the fault, and a sentence."""

    reason: Reason
    path: str
    detail: str


def parse_body(body: bytes) -> Any | Unreadable:  # noqa: ANN401 -- any JSON value
    """Return the JSON value of a body, or why it has none. Of a key given twice the last counts."""
    if too_deep(body):
        detail = f"arrays and objects are nested deeper than {MAX_DEPTH} levels"
        return Unreadable("nested_too_deeply", "$", detail)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return Unreadable("not_json", "$", "the body is not UTF-8")
    try:
        return json.loads(text, parse_constant=refuse_constant, parse_int=_bounded_int)
    except ValueError:
        if not text.strip(" \t\r\n"):
            return Unreadable("not_json", "$", "the body is empty")
        return Unreadable("not_json", "$", "the body is not exactly one JSON value")


class Validator(Generic[T]):
    """Turns a JSON value into a struct of a type, or explains why it is not one.

    It accepts what msgspec accepts for the type, except strings that PostgreSQL cannot store.
    """

    def __init__(self, kind: Any) -> None:  # noqa: ANN401 -- a union of structs is no `type`
        self._shape = inspect.type_info(kind)

    def read(self, value: Any) -> T | Unreadable:  # noqa: ANN401 -- any JSON value
        """Return the struct, or the first fault in the order of its fields; never raises."""
        try:
            struct: T = _read(value, self._shape, "$")
        except _FaultError as error:
            return error.fault
        return struct


class _FaultError(Exception):
    def __init__(self, reason: Reason, path: str, rest: str) -> None:
        name = "the body" if path == "$" else path.rpartition(".")[2]
        self.fault = Unreadable(reason, path, f"{name} {rest}")


_EXPECTED: dict[type[inspect.Type], tuple[type, str]] = {
    inspect.StructType: (dict, "an object"),
    inspect.ListType: (list, "an array"),
    inspect.StrType: (str, "a string"),
    inspect.LiteralType: (str, "a string"),
    inspect.DateTimeType: (str, "a string"),
    inspect.IntType: (int, "an integer"),
    inspect.BoolType: (bool, "a boolean"),
}
_FOUND = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "an integer",
    float: "a number with a fraction or an exponent",
    bool: "a boolean",
    type(None): "null",
}


def _read(value: Any, shape: inspect.Type, path: str) -> Any:  # noqa: ANN401 -- any JSON value
    options = list(shape.types) if isinstance(shape, inspect.UnionType) else [shape]
    shapes = [option for option in options if not isinstance(option, inspect.NoneType)]
    if value is None and len(shapes) < len(options):
        return None
    expected, words = _EXPECTED[type(shapes[0])]
    found = type(value)
    if found is not expected:  # not `isinstance`: a boolean is an int in Python
        either = f"{words} or null" if len(shapes) < len(options) else words
        reason: Reason = "not_an_object" if path == "$" else "wrong_type"
        raise _FaultError(reason, path, f"must be {either}, not {_FOUND[found]}")
    chosen = shapes[0] if len(shapes) == 1 else _tagged(value, shapes, path)
    match chosen:
        case inspect.StructType():
            return _read_struct(value, chosen, path)
        case inspect.ListType():
            entries = enumerate(value)
            return [_read(entry, chosen.item_type, f"{path}[{index}]") for index, entry in entries]
        case inspect.StrType():
            _check_string(value, chosen, path)
        case inspect.IntType():
            _check_integer(value, chosen, path)
        case inspect.LiteralType():
            if value not in chosen.values:
                raise _FaultError("out_of_range", path, f"must be {_one_of(chosen.values)}")
        case inspect.DateTimeType():
            return _read_time(value, chosen, path)
    return value


def _tagged(value: dict[str, Any], shapes: list[inspect.Type], path: str) -> inspect.StructType:
    """Return the struct of a union that the tag in a JSON object names."""
    by_tag = {shape.tag: shape for shape in shapes if isinstance(shape, inspect.StructType)}
    field = next(iter(by_tag.values())).tag_field or ""
    if field not in value:
        raise _FaultError("missing_field", f"{path}.{field}", "is missing")
    tag = value[field]
    if type(tag) is not str:
        detail = f"must be a string, not {_FOUND[type(tag)]}"
        raise _FaultError("wrong_type", f"{path}.{field}", detail)
    if tag not in by_tag:
        raise _FaultError("out_of_range", f"{path}.{field}", f"must be {_one_of(by_tag)}")
    return by_tag[tag]


def _read_struct(value: dict[str, Any], shape: inspect.StructType, path: str) -> Any:  # noqa: ANN401 -- any struct
    members = {}
    for field in shape.fields:
        where = f"{path}.{field.encode_name}"
        if field.encode_name in value:
            members[field.name] = _read(value[field.encode_name], field.type, where)
        elif field.required:
            raise _FaultError("missing_field", where, "is missing")
    return shape.cls(**members)


def _check_string(text: str, shape: inspect.StrType, path: str) -> None:
    least = shape.min_length or 0
    if len(text) < least or (shape.max_length is not None and len(text) > shape.max_length):
        allowed = f"{least} to {shape.max_length}" if least else f"at most {shape.max_length}"
        raise _FaultError("out_of_range", path, f"must have {allowed} characters, not {len(text)}")
    if shape.pattern == NOT_BLANK and not text.strip():
        raise _FaultError("out_of_range", path, "must not be blank")
    if shape.pattern == IS_HASH and not _HASH.search(text):
        raise _FaultError("out_of_range", path, "must be 64 hexadecimal digits")
    if not is_storable_text(text):
        detail = "holds NUL or a lone surrogate, which PostgreSQL cannot store"
        raise _FaultError("forbidden_character", path, detail)


NOT_BLANK = r"\S"
IS_HASH = r"^[0-9a-f]{64}\Z"
"""The only patterns that structs put on strings."""

_HASH = re.compile(IS_HASH)


def _check_integer(number: int, shape: inspect.IntType, path: str) -> None:
    if shape.ge is not None and number < shape.ge:
        raise _FaultError("out_of_range", path, f"must not be less than {shape.ge}")
    if shape.le is not None and number > shape.le:
        raise _FaultError("out_of_range", path, f"must not be greater than {shape.le}")


def _read_time(text: str, shape: inspect.DateTimeType, path: str) -> datetime:
    try:
        moment = msgspec.convert(text, datetime)
    except ValueError:
        moment = None
    if moment is None or (shape.tz and moment.tzinfo is None):
        raise _FaultError("wrong_type", path, "must be a time like 2024-01-20T10:00:00Z")
    return moment


def _one_of(values: Any) -> str:  # noqa: ANN401 -- any iterable of words
    return f"one of {', '.join(sorted(map(str, values)))}"


def _bounded_int(text: str) -> int:
    # Python refuses to convert very long numbers. All that matters of one is that no field of ours
    # can hold it.
    return int(text) if len(text) < _LONG_NUMBER else _HUGE * (-1 if text[0] == "-" else 1)


_LONG_NUMBER = 4000
_HUGE = 10**_LONG_NUMBER
