"""Identifies an event by the digest of its JSON value, so that its spelling does not matter.

Source: docs/rules.md, "Identity". The tests pin digests of many values.
"""

import json
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Any

import msgspec

from ledger.model.json_text import refuse_constant, too_deep

NOT_JSON = object()
"""Returned instead of a value for a body that is not JSON."""


def digest(body: bytes) -> bytes:
    """Return the 32 bytes that identify an event.

    The SHA-256 of the JSON value in canonical form: sorted keys, no white space. For a body that
    is not JSON, the SHA-256 of its bytes.
    """
    return value_and_digest(body, deep=too_deep(body))[1]


def is_json(body: bytes) -> bool:
    """Return whether a body is JSON that nests no deeper than we read."""
    return value_and_digest(body, deep=too_deep(body))[0] is not NOT_JSON


class _NumberText(str):
    """A number as text, because a numeric type would be too short or inexact."""

    __slots__ = ()


def value_and_digest(body: bytes, *, deep: bool) -> tuple[Any, bytes]:
    """Return the JSON value, or `NOT_JSON`, and the digest; `deep` is the result of `too_deep`."""
    if not deep:
        try:
            value = _VALUE.decode(body)
            return value, sha256(_SORTED.encode(value)).digest()
        except ValueError:  # not JSON, or JSON that msgspec cannot hold
            pass
        try:
            value = json.loads(
                body.decode(),
                parse_constant=refuse_constant,
                parse_int=_int_or_text,
                parse_float=_float_text,
            )
            return value, sha256(_write(value).encode()).digest()
        except ValueError:
            pass
    return NOT_JSON, sha256(body).digest()


def _exact_number(text: str) -> msgspec.Raw:
    return msgspec.Raw(_float_text(text).encode())


def _float_text(text: str) -> _NumberText:
    """Return the canonical form of a number with a fraction or an exponent: 1.50 becomes 15E-1.

    Exact: as binary floats two different numbers could be equal, and an event would be lost.
    """
    if len(text) <= _SHORT_NUMBER:
        try:
            sign, digits, exponent = Decimal(text).as_tuple()
        except InvalidOperation:
            return _NumberText(text.lower())
        whole = "".join(map(str, digits)).lstrip("0")
        if not whole:
            return _NumberText("0E0")
        short = whole.rstrip("0")
        shifted = int(exponent) + len(whole) - len(short)
        return _NumberText(f"{'-' if sign else ''}{short}E{shifted}")
    return _NumberText(text.lower())


_SHORT_NUMBER = 64
_VALUE = msgspec.json.Decoder(float_hook=_exact_number)
_SORTED = msgspec.json.Encoder(order="sorted")


def _write(value: Any) -> str:  # noqa: ANN401 -- any JSON value
    """Return the canonical form that `_SORTED` would return, for values that it refuses."""
    if isinstance(value, dict):
        members = (f"{json.dumps(key)}:{_write(value[key])}" for key in sorted(value))
        return f"{{{','.join(members)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_write, value))}]"
    return value if isinstance(value, _NumberText) else json.dumps(value)


def _int_or_text(text: str) -> "int | _NumberText":
    return int(text) if len(text) < _LONG_NUMBER else _NumberText(text)


_LONG_NUMBER = 4000
