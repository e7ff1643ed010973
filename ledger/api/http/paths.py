"""Identifiers in paths, which may contain a slash, written as %2F."""

from urllib.parse import unquote

_SLASH = "\x00"
"""Replaces a slash inside a segment. No identifier contains NUL, so there is no confusion."""

_NOWHERE = "/%00"


def with_slashes_kept(raw_path: bytes) -> str:
    """Decode a path without splitting segments at a slash that is written as %2F."""
    try:
        segments = [
            unquote(segment, errors="strict")
            for segment in raw_path.decode("ascii", "replace").split("/")
        ]
    except UnicodeDecodeError:  # no identifier is encoded like that
        return _NOWHERE
    if any(_SLASH in segment for segment in segments):
        return _NOWHERE
    return "/".join(segment.replace("/", _SLASH) for segment in segments)


def identifier(segment: str) -> str:
    """Return the identifier in a segment of such a path."""
    return segment.replace(_SLASH, "/")
