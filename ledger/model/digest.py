"""What makes two bodies one event: the JSON value, whatever its spelling.

Source: design, "Identity". Pinned by the vectors in the tests.
"""

import json
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Any

import msgspec

from ledger.model.json_text import refuse_constant, too_deep

NOTHING = object()
"""What stands for the value of a body that is not JSON."""


def digest(body: bytes) -> bytes:
    """Return the 32 bytes that tell one event from another.

    SHA-256 of the JSON value written again with sorted keys and no white space, so that two
    spellings of one value are one event; of a body that is not JSON, of its bytes.
    """
    return identify(body, deep=too_deep(body))[1]


def is_json(body: bytes) -> bool:
    """Tell whether a body is JSON, so that it can be shown as such."""
    return identify(body, deep=too_deep(body))[0] is not NOTHING


class _Written(str):
    """A number too long for any type: it stands for itself, as written."""

    __slots__ = ()


def identify(body: bytes, *, deep: bool) -> tuple[Any, bytes]:
    """Return the JSON value, or `NOTHING`, and the digest; `deep` tells what `too_deep` said."""
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
                parse_int=_int_or_written,
                parse_float=_written_float,
            )
            return value, sha256(_write(value).encode()).digest()
        except ValueError:
            pass
    return NOTHING, sha256(body).digest()


def _exact_number(text: str) -> msgspec.Raw:
    return msgspec.Raw(_written_float(text).encode())


def _written_float(text: str) -> _Written:
    """Write a number with a fraction or an exponent in one way: 1.50 and 15e-1 become 15E-1.

    Exactly, for a binary float would make one of two different numbers, and so lose an event.
    """
    if len(text) <= _SHORT_NUMBER:
        try:
            sign, digits, exponent = Decimal(text).as_tuple()
        except InvalidOperation:
            return _Written(text.lower())
        whole = "".join(map(str, digits)).lstrip("0")
        if not whole:
            return _Written("0E0")
        short = whole.rstrip("0")
        shifted = int(exponent) + len(whole) - len(short)
        return _Written(f"{'-' if sign else ''}{short}E{shifted}")
    return _Written(text.lower())


_SHORT_NUMBER = 64
_VALUE = msgspec.json.Decoder(float_hook=_exact_number)
_SORTED = msgspec.json.Encoder(order="sorted")


def _write(value: Any) -> str:  # noqa: ANN401 -- any JSON value
    """Write a value as `_SORTED` does, for the values that it refuses."""
    if isinstance(value, dict):
        members = (f"{json.dumps(key)}:{_write(value[key])}" for key in sorted(value))
        return f"{{{','.join(members)}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_write, value))}]"
    return value if isinstance(value, _Written) else json.dumps(value)


def _int_or_written(text: str) -> "int | _Written":
    return int(text) if len(text) < _LONG_NUMBER else _Written(text)


_LONG_NUMBER = 4000
