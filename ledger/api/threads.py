"""Threads for the API's blocking work, apart from the threads that deliveries need."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ledger.errors import BusyError

T = TypeVar("T")


class Threads:
    """A fixed number of threads, and a bounded number of calls that may wait for one.

    The event loop's default threads are left to the intake: a report that waits for a lock, or is
    busy for seconds, must not hold up a delivery.
    """

    def __init__(self, name: str, *, size: int, waiting: int) -> None:
        self._executor = ThreadPoolExecutor(size, thread_name_prefix=name)
        self._name = name
        self._most = size + waiting
        self._calls = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns in a thread. Raises `BusyError` if too many calls wait."""
        if self._calls >= self._most:
            raise BusyError(
                f"{self._calls} calls of this kind ({self._name}) are being answered or wait; "
                "try again"
            )
        self._calls += 1
        future = self._executor.submit(contextvars.copy_context().run, work)
        # Counted until the thread is done, which a caller that gave up does not change.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._count_down))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Start no more work, and wait for none."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _count_down(self) -> None:
        self._calls -= 1
