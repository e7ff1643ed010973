"""The format of a spooled delivery, and how it is found again in a damaged file.

A record is a head of 28 bytes, then the body. Big-endian:

    4 bytes  b"LSP1"
    4 bytes  length of the body
    8 bytes  when it was received, in microseconds since 1970-01-01 UTC
    4 bytes  CRC-32 of the body
    4 bytes  zero, reserved
    4 bytes  CRC-32 of the 24 bytes before

A segment is a file of records, followed by zeros.
"""

import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zlib import crc32

from msgspec import Struct

MAGIC = b"LSP1"

_FIELDS = struct.Struct(">4sIqII")
_CHECKSUM = struct.Struct(">I")

HEAD_BYTES = _FIELDS.size + _CHECKSUM.size

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Record(Struct, frozen=True):
    """A spooled delivery. `end` is the offset of the byte after it in the segment."""

    received_at: datetime
    body: bytes
    end: int


class Damage(Struct, frozen=True):
    """Bytes that are no record, from `begin` to before `end`.

    `is_last`: no record follows, so it may be one that was never finished, and never acknowledged.
    """

    begin: int
    end: int
    is_last: bool


def encode(received_at: datetime, body: bytes) -> bytes:
    """Return the record of a delivery."""
    microseconds = (received_at - _EPOCH) // _MICROSECOND
    fields = _FIELDS.pack(MAGIC, len(body), microseconds, crc32(body), 0)
    return fields + _CHECKSUM.pack(crc32(fields)) + body


def scan(content: bytes, begin: int = 0) -> Iterator[Record | Damage]:
    """Yield the records of a segment from an offset on, and the damage between and after them."""
    at = begin
    while head := _next_head(content, at):
        found, length, received_at, checksum = head
        if found > at:
            yield Damage(at, found, is_last=False)
        end = found + HEAD_BYTES + length
        body = content[found + HEAD_BYTES : end]
        if len(body) == length and crc32(body) == checksum:
            yield Record(received_at, body, end)
        else:
            end = min(end, len(content))
            yield Damage(found, end, is_last=_next_head(content, end) is None)
        at = end
    rest = len(content[at:].rstrip(b"\0"))
    if rest:
        yield Damage(at, at + rest, is_last=True)


def _next_head(content: bytes, at: int) -> tuple[int, int, datetime, int] | None:
    """Return where the next intact head begins, the body's length, its time and its checksum."""
    while True:
        at = content.find(MAGIC, at)
        if at < 0 or at + HEAD_BYTES > len(content):
            return None
        fields = content[at : at + _FIELDS.size]
        (checksum,) = _CHECKSUM.unpack_from(content, at + _FIELDS.size)
        if crc32(fields) == checksum:
            _, length, microseconds, of_body, _ = _FIELDS.unpack(fields)
            return at, length, _EPOCH + microseconds * _MICROSECOND, of_body
        at += 1
