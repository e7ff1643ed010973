"""What the text of a JSON value can be, beyond what the parser says of it."""

import re
from itertools import accumulate

MAX_DEPTH = 200
"""How deep arrays and objects may nest. Fixed here, for the parser's own limit depends on how deep
the caller's stack is, and a body must not be readable today and unreadable tomorrow."""


def is_utf8(body: bytes) -> bool:
    """Tell whether a body is UTF-8: the decoder does not look into the strings that it skips."""
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_whole(text: str) -> bool:
    """Tell whether a string can be encoded: half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_constant(text: str) -> None:
    """Refuse NaN and the infinities, which Python's parser takes. Raises `ValueError`."""
    raise ValueError(f"{text} is not JSON")


# Strings are matched to their end, or to the body's, so that no part is looked at twice.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+\\?(?:"|\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def too_deep(body: bytes) -> bool:
    """Tell whether arrays and objects nest deeper than `MAX_DEPTH`."""
    if len(body) < MAX_DEPTH or body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH
