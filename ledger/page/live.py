"""What a page is told while it is open: how far the state is. It asks for the rest itself."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import psycopg_pool
from litestar import Controller, Request, get
from litestar.response import Stream

from ledger.api.http.guards import READ
from ledger.api.http.problems import ProblemError
from ledger.api.services import Services
from ledger.errors import DatabaseUnavailableError, UnauthenticatedError
from ledger.page.guards import who
from ledger.page.headers import SECURITY

MOST_STREAMS = 200
"""Open pages that one process tells; others ask from time to time."""

CHECK_SECONDS = 10.0
"""How often a stream checks whether the session is still valid, and shows that it is alive."""

PAUSE_SECONDS = 1.0
"""The shortest time between two messages."""

_AWAY = (DatabaseUnavailableError, psycopg.Error, psycopg_pool.PoolTimeout)

AnyRequest = Request[Any, Any, Any]

_open: set[object] = set()


class LiveController(Controller):
    """The stream of an open page."""

    path = "/"
    include_in_schema = False

    @get("/live", opt=READ)
    async def follow(self, request: AnyRequest, services: Services) -> Stream:
        """Tell the position of the state, now and whenever it moves."""
        if len(_open) >= MOST_STREAMS:
            raise ProblemError(503, "too many pages are live", {"Retry-After": "30"})
        return Stream(
            _positions(request, services),
            media_type="text/event-stream",
            headers={**SECURITY, "Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )


async def _positions(request: AnyRequest, services: Services) -> AsyncIterator[bytes]:
    stream = object()
    _open.add(stream)
    clock = asyncio.get_running_loop().time
    try:
        told, checked = -1, clock()
        while not services.watch.closed:
            if services.watch.position != told:
                told = services.watch.position
                yield b"data: %d\n\n" % told
                await asyncio.sleep(PAUSE_SECONDS)
            await services.watch.moved(told, CHECK_SECONDS)
            if clock() - checked >= CHECK_SECONDS:
                checked = clock()
                yield b": still here\n\n"
                try:
                    await who(request, services)
                except UnauthenticatedError:
                    return
                except _AWAY:
                    continue
    finally:
        _open.discard(stream)
