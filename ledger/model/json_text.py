"""Checks on JSON text and strings that the parsers do not make."""

import re
from itertools import accumulate

MAX_DEPTH = 200
"""How deep arrays and objects may nest. The parser's own limit depends on how deep the caller's
stack is, and a body must not be readable today and unreadable tomorrow."""

NUL_ESCAPE = b"\\u0000"
"""The only spelling of NUL in a JSON string. A body without these bytes holds no NUL."""


def is_utf8(body: bytes) -> bool:
    """Return whether a body is UTF-8. msgspec does not check the strings that it skips."""
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_storable_text(text: str) -> bool:
    """Return whether PostgreSQL can store a string: without NUL and lone surrogates."""
    return "\0" not in text and is_encodable(text)


def is_encodable(text: str) -> bool:
    """Return whether a string can be encoded in UTF-8. Lone surrogates cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_constant(text: str) -> None:
    """Refuse NaN and the infinities, which Python's parser accepts. Raises `ValueError`."""
    raise ValueError(f"{text} is not JSON")


# A string is matched to its end or to the body's end, so that no part is searched twice.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+\\?(?:"|\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def too_deep(body: bytes) -> bool:
    """Return whether arrays and objects nest deeper than `MAX_DEPTH`."""
    if len(body) < MAX_DEPTH or body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH
