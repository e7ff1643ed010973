"""PostgreSQL's binary formats, as far as much data goes through them: arrays and COPY.

Packed here by hand because the driver's own adaptation costs several times the rest of an append.
Source: PostgreSQL manual, "COPY, binary format", and the receive functions of the types.
"""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_BOOL, _BYTEA, _CHAR, _INT8, _TEXT, _TIMESTAMPTZ = 16, 17, 18, 20, 25, 1184
_TEXT_ARRAY = 1009

_MANY = 1024
_SIZES = [size.to_bytes(4, "big") for size in range(_MANY)]  # nearly all that are needed


class PackedArray(bytes):
    """A parameter that is an array in PostgreSQL's binary form already; the statement types it."""

    __slots__ = ()


class TextArray(PackedArray):
    """A `text[]` also where the statement does not say so."""

    __slots__ = ()


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: PackedArray) -> bytes:
        return obj


class _TextArrayDumper(_PackedDumper):
    oid = _TEXT_ARRAY


psycopg.adapters.register_dumper(PackedArray, _PackedDumper)
psycopg.adapters.register_dumper(TextArray, _TextArrayDumper)


def text_array(items: Iterable[str]) -> TextArray:
    """Pack strings, which must hold neither NUL nor half a surrogate pair."""
    return TextArray(_array(_TEXT, [field(item.encode()) for item in items]))


def bytea_array(items: Iterable[bytes]) -> PackedArray:
    """Pack byte strings."""
    return PackedArray(_array(_BYTEA, [field(item) for item in items]))


def char_array(items: Sequence[bytes]) -> PackedArray:
    """Pack letters, of the type `"char"`."""
    return _array_of_equals(_CHAR, 1, items)


def int8_array(items: Sequence[int | None]) -> PackedArray:
    """Pack bigints."""
    if None in items:
        fields = [NULL if item is None else int8_field(item) for item in items]
        return PackedArray(_array(_INT8, fields))
    return _array_of_equals(_INT8, 8, [int8(item) for item in items if item is not None])


def timestamptz_array(items: Iterable[datetime]) -> PackedArray:
    """Pack times; they must be aware."""
    return _array_of_equals(_TIMESTAMPTZ, 8, [timestamptz(item) for item in items])


def packed_text_array(items: Iterable[bytes]) -> bytes:
    """Pack strings, given as UTF-8."""
    return _array(_TEXT, [field(item) for item in items])


def timestamptz(moment: datetime) -> bytes:
    """Pack one time: microseconds since 2000 in eight bytes."""
    return ((moment - _EPOCH) // _MICROSECOND).to_bytes(8, "big", signed=True)


def int8(number: int) -> bytes:
    """Pack one bigint."""
    return number.to_bytes(8, "big", signed=True)


NULL = b"\xff\xff\xff\xff"
"""A field of a row that is null."""

_FALSE, _TRUE = b"\0\0\0\1\0", b"\0\0\0\1\1"


def field(value: bytes) -> bytes:
    """Make a field of a row: the value's size, then the value."""
    size = len(value)
    return (_SIZES[size] if size < _MANY else size.to_bytes(4, "big")) + value


def text_field(text: str) -> bytes:
    """Make a field of a string, which must hold neither NUL nor half a surrogate pair."""
    return field(text.encode())


def int8_field(number: int) -> bytes:
    """Make a field of a bigint."""
    return b"\0\0\0\x08" + int8(number)


def int4_field(number: int) -> bytes:
    """Make a field of an integer."""
    return b"\0\0\0\x04" + number.to_bytes(4, "big", signed=True)


def timestamptz_field(moment: datetime) -> bytes:
    """Make a field of a time, which must be aware."""
    return b"\0\0\0\x08" + timestamptz(moment)


def text_array_field(items: Iterable[str]) -> bytes:
    """Make a field of an array of strings."""
    return field(_array(_TEXT, [field(item.encode()) for item in items]))


def bool_array_field(items: Iterable[bool]) -> bytes:
    """Make a field of an array of booleans."""
    return field(_array(_BOOL, [_TRUE if item else _FALSE for item in items]))


COPY_BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
"""What a binary COPY begins with."""

COPY_END = b"\xff\xff"
"""What it ends with."""


def copy_rows(rows: Sequence[Sequence[bytes]]) -> bytes:
    """Make of rows of fields, all of one table, a part of the data of a binary COPY."""
    count = len(rows[0]).to_bytes(2, "big") if rows else b""
    return b"".join(chain.from_iterable([(count, *row) for row in rows]))


def _array_of_equals(element: int, size: int, values: Sequence[bytes]) -> PackedArray:
    """Pack an array of values of one size: a join is faster than to make a field of each."""
    if not values:
        return PackedArray(_header(element, 0))
    before = size.to_bytes(4, "big")
    return PackedArray(b"".join([_header(element, len(values)), before, before.join(values)]))


def _array(element: int, fields: Sequence[bytes]) -> bytes:
    """Pack an array of the fields of its elements."""
    return b"".join([_header(element, len(fields), nulls=NULL in fields), *fields])


def _header(element: int, count: int, *, nulls: bool = False) -> bytes:
    """Return what comes before the fields of an array; an empty one has no dimension."""
    if not count:
        return struct.pack("!iiI", 0, 0, element)
    return struct.pack("!iiIii", 1, nulls, element, count, 1)
