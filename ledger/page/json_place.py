"""Finds the place in a JSON text that a path names, such as `$.data.testData[0]._id`."""

import json
import re

_STEPS = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_SPACE = re.compile(r"[ \t\n\r]*")
_decode = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode

Span = tuple[int, int]


def place_of(text: str, path: str) -> Span | None:
    """Return where the value at a path begins and ends in a text.

    Where it is missing, the opening bracket of what should hold it. None if the text is no JSON, or
    the path is the whole.
    """
    steps = [name or int(index) for name, index in _STEPS.findall(path)]
    if not steps:
        return None
    try:
        begin = _skip(text, 0)
        _decode(text, begin)
        return _find(text, begin, steps)
    except (ValueError, IndexError, RecursionError):
        return None


def _find(text: str, at: int, steps: list[str | int]) -> Span:
    for step in steps:
        found = _member(text, at, step)
        if found is None:
            return at, at + 1
        at = found
    return at, _decode(text, at)[1]


def _member(text: str, at: int, step: str | int) -> int | None:
    """Return where a member of an object, or an entry of an array, begins; the last one counts."""
    is_object = text[at] == "{"
    if not is_object and text[at] != "[":
        return None
    found, number = None, 0
    at = _skip(text, at + 1)
    while text[at] not in "]}":
        key: str | int = number
        if is_object:
            key, at = _decode(text, at)
            at = _skip(text, _skip(text, at) + 1)  # the colon
        if key == step:
            found = at
        at = _skip(text, _decode(text, at)[1])
        if text[at] == ",":
            at = _skip(text, at + 1)
        number += 1
    return found


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
