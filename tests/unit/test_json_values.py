"""Splitting a stream into JSON values: each in the bytes that were written, in linear time."""

import io
import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import ImportFileError
from ledger.eventlog import json_values
from ledger.eventlog.json_values import CutOffError, Value, ValueTooLongError
from tests.support.examples import examples

split = partial(json_values.values, longest=1 << 22)

any_json: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\{}[],\n')),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('"\\{}[], a'), inner),
    max_leaves=12,
)
objects = st.dictionaries(st.text('"\\{}[], a', max_size=4), any_json, max_size=4)
written = st.builds(
    lambda value, indent, ascii_: json.dumps(value, indent=indent, ensure_ascii=ascii_).encode(),
    objects,
    st.none() | st.just(1) | st.just("\t"),
    st.booleans(),
)


class Parts(io.RawIOBase):
    """A stream that comes in parts of given sizes, and byte by byte after them."""

    def __init__(self, text: bytes, sizes: list[int]) -> None:
        super().__init__()
        self._text = io.BytesIO(text)
        self._sizes = iter(sizes)

    def read(self, _: int = -1, /) -> bytes:
        return self._text.read(next(self._sizes, 1))


def outcome(source: Any) -> tuple[list[Value], bool]:  # noqa: ANN401 -- a stream
    """Return the values of a stream, and whether it is cut off."""
    found: list[Value] = []
    try:
        found.extend(split(source))
    except CutOffError:
        return found, True
    return found, False


def texts(values: Iterable[Value]) -> list[bytes]:
    return [value.text for value in values]


@settings(max_examples=examples(40))
@given(st.lists(written, max_size=5), st.lists(st.integers(1, 9)), st.data())
def test_a_concatenation_in_any_parts_gives_its_values_as_written(
    values: list[bytes], sizes: list[int], data: st.DataObject
) -> None:
    between = st.sampled_from([b"", b"\n", b" ", b"\r\n", b",\n", b"\n\n ,"])
    text = b"".join(value + data.draw(between) for value in values)
    assert texts(split(Parts(text, sizes))) == values  # type: ignore[arg-type]  # reads as one


@given(
    st.lists(any_json, max_size=8), st.lists(st.integers(1, 9)), st.sampled_from([None, 1, "\t"])
)
def test_an_array_in_any_parts_gives_its_elements_as_written(
    values: list[Any], sizes: list[int], indent: int | str | None
) -> None:
    text = json.dumps(values, indent=indent).encode()
    found = list(split(Parts(text, sizes)))  # type: ignore[arg-type]  # reads as one
    raw = [bytes(element).strip() for element in msgspec.json.decode(text, type=list[msgspec.Raw])]
    assert texts(found) == raw
    assert [value.number for value in found] == list(range(1, len(values) + 1))


@settings(max_examples=examples(40))
@given(st.lists(written.map(lambda text: text.replace(b"\n", b" ")), max_size=5))
def test_json_lines_are_one_by_lines_and_by_values(values: list[bytes]) -> None:
    text = b"".join(value + b"\n\n" for value in values)
    expected = [Value(1 + 2 * place, value) for place, value in enumerate(values)]
    assert list(split(io.BytesIO(text))) == expected
    assert list(json_values.lines(io.BytesIO(text), longest=1 << 22)) == expected


@given(st.binary(), st.lists(st.integers(1, 9)))
def test_any_bytes_are_split_alike_however_they_come(text: bytes, sizes: list[int]) -> None:
    assert outcome(Parts(text, sizes)) == outcome(io.BytesIO(text))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (b'[{"a":1}, {"b"', [b'{"a":1}', b'{"b"']),
        (b'[{"a":1},', [b'{"a":1}']),
        (b'[{"a":1}', [b'{"a":1}']),
        (b'["a\\', [b'"a\\']),
        (b"[", []),
        (b'{"a":1}{"b"', [b'{"a":1}', b'{"b"']),
        (b'{"a":"}', [b'{"a":"}']),
    ],
)
def test_text_that_is_cut_off_gives_what_is_there(text: bytes, values: list[bytes]) -> None:
    found, is_cut_off = outcome(io.BytesIO(text))
    assert (texts(found), is_cut_off) == (values, True)


def test_text_that_begins_no_value_is_given_by_lines() -> None:
    text = b'{"a":1}\nRegards\n}\n{"b":2} Flabs\n"c" 5\n'
    assert list(split(io.BytesIO(text))) == [
        (1, b'{"a":1}'),
        (2, b"Regards"),
        (3, b"}"),
        (4, b'{"b":2}'),
        (4, b"Flabs"),
        (5, b'"c"'),
        (5, b"5"),
    ]


@pytest.mark.parametrize("by", [json_values.values, json_values.lines])
def test_a_value_that_is_too_long_is_refused_with_its_line(by: Callable[..., Any]) -> None:
    text = b'{}\n{"a":"%b"}\n'
    whole = list(by(io.BytesIO(text % (b"x" * 992)), longest=1001))
    assert [len(value.text) for value in whole] == [2, 1000]
    for length in (994, 5000, 3 * json_values.CHUNK):
        with pytest.raises(ValueTooLongError, match="line 2 is longer than 1,000 bytes"):
            list(by(io.BytesIO(text % (b"x" * length)), longest=1000))


@pytest.mark.parametrize("by", [json_values.values, json_values.lines])
def test_too_many_values_are_refused(by: Callable[..., Any]) -> None:
    assert len(list(by(io.BytesIO(b"{}\n" * 9), longest=9, most=9))) == 9
    with pytest.raises(ImportFileError, match="more than 9 values"):
        list(by(io.BytesIO(b"{}\n" * 10), longest=9, most=9))


def test_blank_lines_count_as_lines() -> None:
    with pytest.raises(ImportFileError, match="more than 9 values"):
        list(json_values.lines(io.BytesIO(b"\n" * 10), longest=9, most=9))


HOSTILE: dict[str, Callable[[int], bytes]] = {
    "brackets": lambda size: b"[" * size,
    "braces": lambda size: b'{"a":' * (size // 5),
    "open elements": lambda size: b"[1," * (size // 3),
    "nested and closed": lambda size: b"[" * (size // 2) + b"]" * (size // 2),
    "nested deeper than the pattern": lambda size: b"[" + b"[[[[[[[]]]]]]]," * (size // 15),
    "gaps between brackets": lambda size: (b"[" + b"a" * 5000) * (size // 5000),
    "strings between brackets": lambda size: (b'{"' + b"a" * 5000 + b'":') * (size // 5000),
    "escaped quotes": lambda size: b'["' + rb"\"" * (size // 2),
    "backslashes": lambda size: b'["' + b"\\" * size,
    "one string": lambda size: b'["' + b"a" * size,
    "strings": lambda size: b"[[" + b'"a",' * (size // 4),
    "odd quotes": lambda size: b"{" + b'{"a' * (size // 3),
    "siblings of an open bracket": lambda size: b"[" * 6 + b"[]," * (size // 3),
    "white space": lambda size: b"[" + b" \n" * (size // 2),
    "commas": lambda size: b"," * size,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_of_megabytes_is_split_in_seconds(name: str) -> None:
    """Quadratic time would be hours, so that the test would be ended from outside."""
    outcome(io.BytesIO(HOSTILE[name](1_000_000)))
