"""JSON responses, each with the log position that it reflects."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ParamSpec, TypeVar

import msgspec
from litestar import Response
from litestar.openapi.datastructures import ResponseSpec

from ledger.api.services import Services

POSITION_HEADER = "Ledger-Position"

REPLICA_SECONDS = 2.0
"""How long the answer to a decision waits at the most until a replica has it."""

P = ParamSpec("P")
T = TypeVar("T")

encode = msgspec.json.encode


def answer(content: bytes, position: int) -> Response[bytes]:
    """Return a response of JSON that reflects a log position."""
    return Response(
        content,
        media_type="application/json",
        headers={POSITION_HEADER: str(position)},
    )


async def decide(
    services: Services,
    decision: Callable[P, tuple[T, int]],
    *arguments: P.args,
    **named: P.kwargs,
) -> Response[bytes]:
    """Run an operator's decision in a thread; respond with its result and its log position."""
    result, position = await services.decide(partial(decision, *arguments, **named))
    if services.primary:  # who decided should find it in the next read, which a replica answers
        await services.watch.reached(position, REPLICA_SECONDS)
    return answer(encode(result), position)


def ok(shape: Any, description: str) -> ResponseSpec:  # noqa: ANN401 -- a type, generic or not
    """Describe a response for the OpenAPI document."""
    return ResponseSpec(shape, description=description, generate_examples=False)


def with_members(members: bytes, **more: bytes) -> bytes:
    """Add members, given as JSON, to a JSON object that is not empty."""
    added = b"".join(b',"%s":%s' % (name.encode(), value) for name, value in more.items())
    return members[:-1] + added + b"}"


def page(items: Iterable[bytes], following: str | None) -> bytes:
    """Write a page from items in JSON and the cursor of the next page."""
    return b'{"items":[%s],"next":%s}' % (b",".join(items), encode(following))
