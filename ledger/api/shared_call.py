"""One call for all who ask the same at the same time."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from contextvars import Context
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SharedCall(Generic[T]):
    """Gives those who ask while a call is under way what that call returns, or raises.

    So anybody may ask however often, and no more than one call of each kind runs.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Task[T]] = {}

    async def run(self, kind: Hashable, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what `call` returns, or the one of this kind that is under way."""
        running = self._running.get(kind)
        if running is None:
            # It may outlive the request that starts it, and must not log in its name.
            running = asyncio.create_task(call(), context=Context())
            self._running[kind] = running
            running.add_done_callback(lambda _: self._running.pop(kind))
        # One who gives up must not end it for the others.
        return await asyncio.shield(running)
