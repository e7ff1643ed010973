"""Identifiers in paths. They may hold a slash, which arrives as %2F."""

from urllib.parse import unquote

_SLASH = "\x00"
"""Stands for a slash inside a segment. No identifier holds NUL, so it can be told from all else."""

_NOWHERE = "/%00"


def with_slashes_kept(raw_path: bytes) -> str:
    """Decode a path so that a slash that was written %2F does not part segments."""
    try:
        segments = [
            unquote(segment, errors="strict")
            for segment in raw_path.decode("ascii", "replace").split("/")
        ]
    except UnicodeDecodeError:  # no identifier is written like that
        return _NOWHERE
    if any(_SLASH in segment for segment in segments):
        return _NOWHERE
    return "/".join(segment.replace("/", _SLASH) for segment in segments)


def identifier(segment: str) -> str:
    """Return the identifier that a segment of such a path names."""
    return segment.replace(_SLASH, "/")
