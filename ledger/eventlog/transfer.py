"""Events in files: JSON Lines out of the log, and JSON Lines or a JSON array into it.

A line of an export holds what the log holds, so that importing it gives an equal log:
`{"position", "received_at", "source", "body"}`, or `raw` (base64) in the place of `body` where the
bytes would not come through as JSON in a line. A line of any other shape is a payload of Flabs, as
support sends it; so is an element of an array, whose number is given in the place of a line's.
"""

import base64
import codecs
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from psycopg import Connection
from psycopg.sql import SQL, Composable, Literal

from ledger.errors import ImportFileError
from ledger.eventlog.append import Delivery, Outcome, Source, append
from ledger.model.event import Unreadable
from ledger.model.identity import is_json

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_LINE = 64 * 1024 * 1024
"""Bytes. A file without line ends must not fill the memory."""

BATCH = 500
BATCH_BYTES = 8 * 1024 * 1024

_GZIP = b"\x1f\x8b"


class _CutOffError(Exception):
    """A JSON array ends before it is closed; what is there of it was yielded."""


class ExportLine(Struct, frozen=True, forbid_unknown_fields=True):
    """One event of an export."""

    position: int
    received_at: Annotated[datetime, Meta(tz=True)]
    source: Source
    body: msgspec.Raw | UnsetType = UNSET
    raw: str | UnsetType = UNSET


class UnreadableLine(Struct, frozen=True):
    """A line that was kept as an event that cannot be read."""

    number: int
    unreadable: Unreadable


class Imported(Struct):
    """What became of a file's lines.

    `unreadable_lines` are the first hundred of them. `ranges` are the positions, first and last,
    of its events, old and new; `keys` their bills, unless they are too many to remember.
    """

    recorded: int = 0
    duplicate: int = 0
    unreadable: int = 0
    unreadable_lines: list[UnreadableLine] = []
    ranges: list[tuple[int, int]] = []
    keys: set[tuple[str, str]] | None = set()
    complete: bool = True
    """Whether the file ended where it should; a JSON array can be cut off."""

    def add(self, number: int, delivery: Delivery, outcome: Outcome) -> None:
        """Count a line."""
        word = outcome.word(delivery)
        setattr(self, word, getattr(self, word) + 1)
        unreadable = delivery.examined.unreadable
        if unreadable and len(self.unreadable_lines) < _UNREADABLE_SHOWN:
            self.unreadable_lines.append(UnreadableLine(number, unreadable))
        position = outcome.position
        if self.ranges and self.ranges[-1][1] == position - 1:
            self.ranges[-1] = (self.ranges[-1][0], position)
        else:
            self.ranges.append((position, position))
            if len(self.ranges) > _RANGES_APART:
                self.ranges = _merged(self.ranges)
        if self.keys is not None and delivery.examined.bill_id:
            self.keys.add((delivery.examined.lab_id, delivery.examined.bill_id))
            if len(self.keys) > _KEYS_REMEMBERED:
                self.keys = None


_FIRST_YEAR, _END_YEAR = 1971, 2999  # a day within what the log takes, whatever the offset
_LINE = msgspec.json.Decoder(ExportLine)
_UNREADABLE_SHOWN = 100
_KEYS_REMEMBERED = 10_000
_RANGES_APART = 100_000
_ONE_EVENT = 1024 * 1024
_BROKEN_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)
_BROKEN_FILE = (ImportFileError, _CutOffError, OSError, *_BROKEN_GZIP)


def import_lines(
    connection: Connection,
    lines: IO[bytes],
    *,
    exports: bool,
    on_progress: Callable[[int], None],
) -> Imported:
    """Append the events of a file, a batch at a time; what is in the log already is a duplicate.

    `exports`: lines of an export are taken as such, with the time and the source that they name;
    else they are payloads like any other, as befits a file of somebody else's. Interrupted, it is
    run again. Raises `ImportFileError` for a line that is too long; the lines before it are taken
    then. `on_progress` is told the lines done.
    """
    imported = Imported(unreadable_lines=[], ranges=[], keys=set())
    try:
        for batch in _batches(lines, _delivery if exports else _payload):
            outcomes = append(connection, [delivery for _, delivery in batch])
            for (number, delivery), outcome in zip(batch, outcomes, strict=True):
                imported.add(number, delivery, outcome)
            on_progress(batch[-1][0])
    except _CutOffError:
        imported.complete = False
    except _BROKEN_FILE as error:
        raise ImportFileError(
            f"{'no whole gzip file: ' if isinstance(error, _BROKEN_GZIP) else ''}{error}. What comes before that was taken: recorded "
            f"{imported.recorded}, duplicate {imported.duplicate}, unreadable "
            f"{imported.unreadable}. Take it in again when it is whole"
        ) from error
    return imported


@contextmanager
def open_lines(name: str, standard_input: IO[bytes]) -> Iterator[IO[bytes]]:
    """Open a file, or standard input for `-`; gzip is recognised by its first bytes."""
    try:
        source = standard_input if name == "-" else Path(name).open("rb")  # noqa: SIM115 -- below
    except OSError as error:
        raise ImportFileError(f"cannot read {name}: {error.strerror}") from error
    with unpacked(source, name) as lines:
        yield lines


@contextmanager
def unpacked(source: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    """Give what is in a file, plain or gzip, and close it in the end.

    Raises `ImportFileError`, which calls the file by `name`, for a broken one.
    """
    with source:
        begin = source.read(len(_GZIP))
        rejoined = io.BufferedReader(_Rejoined(begin, source))
        if begin != _GZIP:
            yield cast("IO[bytes]", rejoined)
            return
        try:
            with gzip.open(rejoined) as inside:
                yield cast("IO[bytes]", inside)
        except _BROKEN_GZIP as error:
            raise ImportFileError(f"{name} is no whole gzip file: {error}") from error


class _Rejoined(io.RawIOBase):
    """A stream whose first bytes were read already; standard input cannot be wound back."""

    def __init__(self, begin: bytes, rest: IO[bytes]) -> None:
        super().__init__()
        self._begin = begin
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        read = self._begin[: len(view)] if self._begin else self._rest.read(len(view))
        self._begin = self._begin[len(read) :]
        view[: len(read)] = read
        return len(read)


def export_lines(
    connection: Connection,
    *,
    after: int = 0,
    upto: int | None = None,
    lab_id: str | None = None,
    bill_id: str | None = None,
) -> Iterator[bytes]:
    """Yield the log, or the part of it that is asked for, as lines in order of position."""
    conditions: list[Composable] = [SQL("position > {}").format(Literal(after))]
    for condition, value in (
        (SQL("position <= {}"), upto),
        (SQL("lab_id = {}"), lab_id),
        (SQL("bill_id = {}"), bill_id),
    ):
        if value is not None:
            conditions.append(condition.format(Literal(value)))
    query = SQL(
        "COPY (SELECT position, received_at, source, body FROM event_log WHERE {}"
        " ORDER BY position) TO STDOUT (FORMAT binary)"
    ).format(SQL(" AND ").join(conditions))
    with connection.cursor().copy(query) as copy:
        copy.set_types(("int8", "timestamptz", "text", "bytea"))
        for position, received_at, source, body in copy.rows():
            yield _line(position, received_at.astimezone(UTC), source, body)


def _line(position: int, received_at: datetime, source: Source, body: bytes) -> bytes:
    fits_a_line = body == body.strip() and b"\n" not in body and b"\r" not in body
    if fits_a_line and is_json(body):
        line = msgspec.json.encode(
            ExportLine(position, received_at, source, body=msgspec.Raw(body))
        )
        try:
            _LINE.decode(line)
        except msgspec.MsgspecError:
            pass  # JSON that msgspec does not read, such as half a surrogate pair
        else:
            return line + b"\n"
    raw = base64.b64encode(body).decode()
    return msgspec.json.encode(ExportLine(position, received_at, source, raw=raw)) + b"\n"


def _batches(
    lines: IO[bytes], deliver: Callable[[bytes], Delivery]
) -> Iterator[list[tuple[int, Delivery]]]:
    batch: list[tuple[int, Delivery]] = []
    size = 0
    try:
        for number, line in _numbered(lines):
            batch.append((number, deliver(line)))
            size += len(line)
            if len(batch) == BATCH or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
    except _BROKEN_FILE:
        if batch:  # what came before the break is taken
            yield batch
        raise
    if batch:
        yield batch


def _numbered(lines: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    number, first = 0, True
    while line := lines.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise ImportFileError(
                f"line {number} is longer than {MAX_LINE >> 20} MiB: this is no file of JSON Lines"
            )
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)  # some programs begin their files with it
        if not (stripped := line.strip()):
            continue
        if first and stripped.startswith(b"["):  # no payload does; an array goes over many lines
            for element in elements(_whole(stripped, lines)):
                yield number, element
                number += 1
            return
        if first and stripped.startswith(b"{") and not is_json(stripped):
            # One event over many lines, or JSON Lines whose first is broken.
            more = lines.read(_ONE_EVENT)
            if len(more) < _ONE_EVENT and is_json(whole := stripped + b"\n" + more):
                yield number, whole.strip()
                return
            lines = cast("IO[bytes]", io.BufferedReader(_Rejoined(more, lines)))
        first = False
        yield number, stripped


def _whole(begin: bytes, rest: IO[bytes]) -> bytes:
    text = begin + b"\n" + rest.read(MAX_LINE + 1)
    if len(text) > MAX_LINE:
        raise ImportFileError(
            f"the file is longer than {MAX_LINE >> 20} MiB: send it as JSON Lines, or in parts"
        )
    return text


def elements(text: bytes) -> Iterator[bytes]:
    """Yield the elements of a JSON array as they were written, then lines that follow it.

    Of a broken one, too: what is whole, then what is left, as a mail program may have cut it; then
    raises `_CutOffError`.
    """
    depth = begin = 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token in b"]}":
            depth -= 1
        if (depth == 1 and token == b",") or depth == 0:
            if element := text[begin : found.start()].strip():
                yield element
            begin = found.end()
        if token in b"[{":
            depth += 1
        elif depth == 0:
            break
    rest = [text[begin:]] if depth else text[begin:].splitlines()
    yield from filter(None, map(bytes.strip, rest))
    if depth:
        raise _CutOffError


# Strings are taken whole, so that what they hold counts for nothing.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join ranges that touch, as those of a file taken in again in another order."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _payload(line: bytes) -> Delivery:
    return Delivery.of(line, received_at=datetime.now(UTC), source="import")


def _delivery(line: bytes) -> Delivery:
    try:
        return _restored(_LINE.decode(line))
    except (msgspec.MsgspecError, ValueError):
        return _payload(line)


def _restored(line: ExportLine) -> Delivery:
    """Make the delivery that a line of an export tells of. Raises `ValueError` if it cannot be."""
    if not _FIRST_YEAR <= line.received_at.year < _END_YEAR:
        raise ValueError("no time at which anything was received")
    if not isinstance(line.raw, UnsetType):
        body = base64.b64decode(line.raw, validate=True)
    else:
        body = b"" if isinstance(line.body, UnsetType) else bytes(line.body)
    return Delivery.of(body, received_at=line.received_at, source=line.source)


def as_text(line: UnreadableLine) -> str:
    """Say in a line of text what is wrong with a line of a file."""
    found: Any = line.unreadable
    return f"line {line.number}: {found.reason} at {found.path}: {found.detail}"
