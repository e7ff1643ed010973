"""Files as people send them: JSON Lines, an array, one object over many lines; plain or gzip."""

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from ledger.errors import ImportFileError
from ledger.model.digest import is_json

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_LINE = 64 * 1024 * 1024
"""Bytes. A file without line ends must not fill the memory."""

BROKEN_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)

_GZIP = b"\x1f\x8b"
_ONE_EVENT = 1024 * 1024


class CutOffError(Exception):
    """A JSON array ends before it is closed; what is there of it was yielded."""


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
        except BROKEN_GZIP as error:
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


def numbered(lines: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield what a file holds, each with the number of its line or of its array's element.

    JSON Lines, a JSON array, or one JSON object over many lines. Raises `ImportFileError` for what
    is too long, `CutOffError` at the end of an array that is not closed, and what reading raises.
    """
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
    raises `CutOffError`.
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
        raise CutOffError


# Strings are taken whole, so that what they hold counts for nothing.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)
