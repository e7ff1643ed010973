"""Splits a stream of JSON text into its values, as the bytes that were written.

The scanner follows strings and brackets only, looks at each byte a fixed number of times and holds
one value at a time. Whether a value is JSON is for the caller to find out.
"""

import re
from collections.abc import Iterator
from typing import IO, NamedTuple

import msgspec

from ledger.errors import ImportFileError

CHUNK = 256 * 1024
"""Bytes read at a time."""


class Value(NamedTuple):
    """A value's text without surrounding white space, and its place.

    `number` is the line on which the value begins; of an array's element, its place in the array,
    counted from 1.
    """

    number: int
    text: bytes


class CutOffError(Exception):
    """The text ends inside a value or an array; everything up to there was yielded."""


class ValueTooLongError(ImportFileError):
    """A value is longer than the caller accepts."""


def values(source: IO[bytes], *, longest: int, most: int | None = None) -> Iterator[Value]:
    """Yield the values of a concatenation: JSON Lines, values over many lines, arrays.

    Yields the elements of an array in place of the array. Commas between values are skipped. Text
    that begins no value is yielded a line at a time. Raises `ValueTooLongError`, `ImportFileError`
    for more than `most` values, and `CutOffError` after the last value.
    """
    for count, value in enumerate(_values(_Window(source, longest)), start=1):
        if most is not None and count > most:
            raise _too_many(most)
        yield value


def lines(source: IO[bytes], *, longest: int, most: int | None = None) -> Iterator[Value]:
    """Yield the lines that are not blank, without a trailing comma.

    Raises `ValueTooLongError`, and `ImportFileError` for more than `most` lines, blank or not.
    """
    number = 0
    while line := source.readline(longest + 1):
        number += 1
        if most is not None and number > most:
            raise _too_many(most)
        if len(line) > longest:
            raise _too_long(number, longest)
        if text := line.strip().removesuffix(b","):
            yield Value(number, text)


def _values(window: "_Window") -> Iterator[Value]:
    while (first := window.next(_BETWEEN)) is not None:
        if first == _OPEN_ARRAY:
            yield from _elements(window)
            continue
        number = window.line
        if first == _OPEN_OBJECT and window.skip_line_of_json():
            complete = True
        elif first in _BEGINS_VALUE:
            complete = _skip_value(window)
        else:
            window.skip(_REST_OF_LINE)
            complete = True
        yield Value(number, window.take())
        if not complete:
            raise CutOffError


def _elements(window: "_Window") -> Iterator[Value]:
    window.step()
    number = 0
    while (first := window.next(_BETWEEN)) != _CLOSE_ARRAY:
        number += 1
        complete = first is not None and _skip_element(window)
        if text := window.take():
            yield Value(number, text)
        if not complete:
            raise CutOffError
    window.step()


def _skip_element(window: "_Window") -> bool:
    """Go to the comma or bracket that ends an element; return false if the text ends first."""
    while (found := window.skip(_TO_END_OF_ELEMENT)) is not None:
        if found in _ENDS_ELEMENT:
            return True
        if found not in _BEGINS_VALUE:
            window.step()
        elif not _skip_value(window):
            return False
    return False


def _skip_value(window: "_Window") -> bool:
    """Go past an object, array or string; return false if the text ends first."""
    if window.skip(_NOTHING) == _QUOTE:
        return _skip_string(window)
    depth = 0
    while (found := window.skip(_INSIDE if depth else _NOTHING)) is not None:
        if found == _QUOTE:  # a string that is not whole in the window
            if not _skip_string(window):
                return False
            continue
        window.step()
        depth += _STEP[found]
        if depth <= 0:
            return True
    return False


def _skip_string(window: "_Window") -> bool:
    window.step()
    while (found := window.skip(_IN_STRING)) is not None:
        if found == _QUOTE:
            window.step()
            return True
        if not window.read_on():  # a backslash at the window's end
            window.step()
            return False
    return False


class _Window:
    """The part of a stream from the beginning of a value to as far as was read."""

    def __init__(self, source: IO[bytes], longest: int) -> None:
        self.line = 1
        self._source = source
        self._longest = longest
        self._text = bytearray()
        self._begin = 0
        self._at = 0

    def skip(self, pattern: re.Pattern[bytes]) -> int | None:
        """Go past what matches, which may go on in the next chunk; return the byte after it."""
        while True:
            found = pattern.match(self._text, self._at)
            if found:
                self._at = found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self.read_on():
                return None

    def next(self, pattern: re.Pattern[bytes]) -> int | None:
        """Go past what matches and begin a value there."""
        while True:
            found = pattern.match(self._text, self._at)
            if found:
                self._at = found.end()
            self._begin_here()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self.read_on():
                return None

    def skip_line_of_json(self) -> bool:
        """Go to the end of the line if it is one JSON value, as nearly all are; return whether."""
        end = self._text.find(b"\n", self._at)
        if end < 0:
            return False
        try:
            _ANY_JSON.decode(memoryview(self._text)[self._at : end])
        except (msgspec.DecodeError, RecursionError):
            return False
        self._at = end
        return True

    def step(self) -> None:
        """Go past one byte."""
        self._at += 1

    def take(self) -> bytes:
        """Return the value from its beginning to here."""
        if self._at - self._begin > self._longest:
            raise _too_long(self.line, self._longest)
        text = bytes(self._text[self._begin : self._at]).strip()
        self._begin_here()
        return text

    def read_on(self) -> bool:
        """Read a chunk; return false at the end of the stream."""
        del self._text[: self._begin]
        self._at -= self._begin
        self._begin = 0
        if len(self._text) > self._longest:
            raise _too_long(self.line, self._longest)
        chunk = self._source.read(CHUNK)
        self._text += chunk
        return bool(chunk)

    def _begin_here(self) -> None:
        self.line += self._text.count(b"\n", self._begin, self._at)
        self._begin = self._at


def _too_long(line: int, longest: int) -> ValueTooLongError:
    return ValueTooLongError(
        f"the value that begins on line {line} is longer than {longest:,} bytes. Write the events "
        "as JSON Lines or as one array; where single events are that long, raise LEDGER_MAX_BODY"
    )


def _too_many(most: int) -> ImportFileError:
    return ImportFileError(
        f"the file holds more than {most:,} values: send it in parts, or use `ledger import`"
    )


_QUOTE = ord('"')
_OPEN_OBJECT = ord("{")
_OPEN_ARRAY = ord("[")
_CLOSE_ARRAY = ord("]")
_BEGINS_VALUE = b'"[{'
_ENDS_ELEMENT = b",]"
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

_NOTHING = re.compile(rb"")
_ANY_JSON = msgspec.json.Decoder(msgspec.Raw)

# All repetitions are possessive: none is tried again in a shorter form.
_BETWEEN = re.compile(rb"[ \t\r\n,]*+")

_REST_OF_LINE = re.compile(rb"[^\n]*+")
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_TEXT = rb'[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+"'


def _containers(levels: int) -> bytes:
    """Return a pattern of what is inside a container, whole containers in it included.

    Each level more spares Python some brackets and has the regex engine read some bytes once more:
    those of a container that turns out to be deeper, or not whole in the window.
    """
    inside = _TEXT
    for _ in range(levels):
        inside = rb"%b|[\[{](?:%b)*+[\]}]" % (_TEXT, inside)
    return inside


_INSIDE = re.compile(rb"(?:%b)*+" % _containers(4), re.DOTALL)
_TO_END_OF_ELEMENT = re.compile(rb'[^"\[\]{},]*+')
