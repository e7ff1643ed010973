"""The files that pages load: style, script and htmx, under names that hold their content's hash.

Nothing is loaded from elsewhere. htmx is part of the repository as its authors published it; its
licence lies next to it, and its checksum is in `VENDORED`.
"""

from functools import cache
from hashlib import sha256
from importlib.resources import files

from litestar import Response, get
from litestar.exceptions import NotFoundException

from ledger.page.headers import SECURITY

VENDORED = {
    "htmx.min.js": (
        "htmx.org 2.0.11, dist/htmx.min.js, Zero-Clause BSD",
        "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
    ),
}
"""Files of others: where each comes from with its licence, and its SHA-256."""

MEDIA_TYPES = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

_FOR_EVER = "public, max-age=31536000, immutable"


@cache
def content_of(name: str) -> bytes:
    """Return the content of an asset."""
    return (files("ledger.page") / "assets" / name).read_bytes()


@cache
def hashed(name: str) -> str:
    """Return the name under which an asset is served: `page.1a2b3c4d5e6f.css`."""
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{sha256(content_of(name)).hexdigest()[:12]}.{ending}"


@get("/assets/{name:str}", include_in_schema=False, sync_to_thread=False)
def get_asset(name: str) -> Response[bytes]:
    """Serve an asset, which everybody may see."""
    for asset, media_type in MEDIA_TYPES.items():
        if name == hashed(asset):
            headers = {**SECURITY, "Cache-Control": _FOR_EVER}
            return Response(content_of(asset), media_type=media_type, headers=headers)
    raise NotFoundException
