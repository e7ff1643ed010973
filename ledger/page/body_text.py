"""A body as text that can be shown: what cannot be seen is escaped."""

import json

from ledger.page.json_place import place_of

SHOWN_BYTES = 64 * 1024
"""Of a body on a page; its download has all of it."""


def body_text(body: bytes) -> tuple[str, bool]:
    """Return the beginning of a body as text, and whether it is text in UTF-8."""
    body, is_whole = body[:SHOWN_BYTES], len(body) <= SHOWN_BYTES
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        if is_whole or error.start < len(body) - 3:
            return body.decode("latin-1").encode("unicode_escape").decode(), False
        text = body.decode(errors="ignore")  # cut in the middle of a character
    return visible(text), True


def marked_text(body: bytes, path: str) -> tuple[str, str, str] | None:
    """Return what precedes the place of a fault in a body, the place, and what follows.

    None where it is not known, or the body is too long to be shown.
    """
    if len(body) > SHOWN_BYTES:
        return None
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    place = place_of(text, path)
    if place is None:
        return None
    begin, end = place
    return visible(text[:begin]), visible(text[begin:end]), visible(text[end:])


def visible(text: str) -> str:
    """Return a text in which what cannot be seen is escaped as in JSON."""
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1]
