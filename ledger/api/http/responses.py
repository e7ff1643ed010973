"""Answers made of parts that are JSON already."""

from collections.abc import Iterable
from typing import Any

import msgspec
from litestar import Response
from litestar.openapi.datastructures import ResponseSpec

POSITION_HEADER = "Ledger-Position"

encode = msgspec.json.encode


def answer(content: bytes, position: int) -> Response[bytes]:
    """Answer with JSON that is true for a log position."""
    return Response(
        content,
        media_type="application/json",
        headers={POSITION_HEADER: str(position)},
    )


def ok(shape: Any, description: str) -> ResponseSpec:  # noqa: ANN401 -- a type, generic or not
    """Say in the OpenAPI document what an answer holds; without the examples made up at random."""
    return ResponseSpec(shape, description=description, generate_examples=False)


def with_members(members: bytes, **more: bytes) -> bytes:
    """Add members, given as JSON, to a JSON object that is not empty."""
    added = b"".join(b',"%s":%s' % (name.encode(), value) for name, value in more.items())
    return members[:-1] + added + b"}"


def page(items: Iterable[bytes], following: str | None) -> bytes:
    """Write a part of a list."""
    return b'{"items":[%s],"next":%s}' % (b",".join(items), msgspec.json.encode(following))
