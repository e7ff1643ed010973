"""Measures every second what a worker is busy with, for `/metrics`."""

import asyncio
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ledger.eventlog.group_commit import GroupCommit
from ledger.metrics import CPU, MEMORY, WAITING

SECONDS = 1.0

_STATM = Path("/proc/self/statm")  # Linux; elsewhere the memory stays 0


class LoadMeter:
    """Runs in the event loop of a worker. `more` measures what only some workers have."""

    def __init__(self, lane: GroupCommit | None, more: Callable[[], object] = lambda: None) -> None:
        self._lane = lane
        self._more = more
        self._counted = 0.0

    def start(self) -> None:
        """Start in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Stop."""
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            self._measure()
            await asyncio.sleep(SECONDS)

    def _measure(self) -> None:
        WAITING.set(self._lane.waiting if self._lane else 0)
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = used.ru_utime + used.ru_stime
        CPU.inc(max(0.0, spent - self._counted))
        self._counted = spent
        with suppress(OSError):
            MEMORY.set(int(_STATM.read_text().split()[1]) * resource.getpagesize())
        self._more()
