"""One call for all who ask the same at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedCall(Generic[T]):
    """Gives those who ask while a call is under way what that call returns, or raises.

    So anybody may ask however often, and no more than one call of each kind runs.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Future[T]] = {}

    async def run(self, kind: Hashable, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` returns, or the one of this kind that is under way."""
        running = self._running.get(kind)
        if running is None:
            running = asyncio.ensure_future(call())
            self._running[kind] = running
            running.add_done_callback(lambda _: self._running.pop(kind))
        # One who gives up must not end it for the others.
        return await asyncio.shield(running)
