"""Records when a process could make deliveries durable; what nobody recorded is an outage.

Source: design, "Loss windows". Elapsed time is measured by a clock that is never set, so that a
step of the other one invents no outage.
"""

import time
import uuid
from datetime import UTC, datetime

from psycopg import Connection

BEAT_SECONDS = 2.0
"""Between two records."""

LONGEST_GAP = 5.0
"""Seconds between two records that are no outage yet: an attempt waits longer than that."""


_TAKE_BACK = "DELETE FROM liveness WHERE instance = %s AND alive_from = %s"


def steady_clock() -> float:
    """Return seconds of a clock that is never set, and that goes on while the machine is asleep."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Liveness:
    """One run of one process. Its rows are the times through which it was alive."""

    def __init__(self) -> None:
        self._instance = uuid.uuid4()
        self._begun: list[datetime] = []
        """When the rows of a time without interruption began; one, but for steps of the clock."""
        self._last_beat = 0.0
        self._last_now = datetime.min.replace(tzinfo=UTC)

    def is_due(self, monotonic: float) -> bool:
        """Tell whether it is time for the next record."""
        return monotonic - self._last_beat >= BEAT_SECONDS

    def beat(self, connection: Connection, now: datetime, monotonic: float) -> None:
        """Record that a delivery could be made durable now; `psycopg.Error` if none could."""
        gap = monotonic - self._last_beat
        self._last_beat = monotonic  # also of a beat that fails: the next try has time, too
        begun = self._begun if gap <= LONGEST_GAP else []
        # A clock that was set back to before the row begins a new one. When it is set forward
        # again, the old one goes on, and what the wrong clock said is taken back.
        set_forward = (now - self._last_now).total_seconds() > gap + LONGEST_GAP
        possible = [each for each in begun if each <= now]
        since = max(possible) if possible and set_forward else (possible or [now])[-1]
        wrong = begun[begun.index(since) + 1 :] if since in begun else []
        self._begun, self._last_now = [], now
        connection.execute("SELECT record_liveness(%s, %s, %s)", (self._instance, since, now))
        for each in wrong:
            connection.execute(_TAKE_BACK, (self._instance, each))
        self._begun = [each for each in begun if each not in wrong]
        if since not in self._begun:
            self._begun.append(since)

    def interrupt(self) -> None:
        """Take note that a delivery could not be made durable."""
        self._begun = []
