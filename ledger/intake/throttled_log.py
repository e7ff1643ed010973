"""Log lines about what strangers can cause at any rate: the first at once, then counts."""

import asyncio
from collections.abc import Callable

SECONDS = 5.0
"""Between two lines of one kind."""


class ThrottledLog:
    """Logs an event at once, and while it recurs, every `SECONDS` how often it has.

    The line has the values of the last occurrence, and `times`: how many it stands for.
    """

    def __init__(self, write: Callable[..., object], event: str) -> None:
        self._write = write
        self._event = event
        self._times = 0
        self._values: dict[str, object] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, **values: object) -> None:
        """Note one occurrence. Must be called in an event loop."""
        self._times += 1
        self._values = values
        if self._timer is None:
            self._say()

    def _say(self) -> None:
        self._timer = None
        if self._times:
            self._write(self._event, times=self._times, **self._values)
            self._times = 0
            self._timer = asyncio.get_running_loop().call_later(SECONDS, self._say)
