"""When a process could make deliveries durable, and when it refused some.

Source: docs/rules.md, "Loss windows". Elapsed time is measured by a clock that is never set, so
that a step of the wall clock invents no outage.
"""

import threading
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from msgspec import Struct
from psycopg import Connection

BEAT_SECONDS = 2.0
"""Between two proofs that a delivery could be made durable, and between two records of them."""

LONGEST_GAP = 5.0
"""Seconds between two proofs that are no outage yet: an attempt waits longer than that."""


_ALIVE = """
INSERT INTO ledger.liveness AS l (instance, alive_from, alive_until)
VALUES (%s, %s, %s)
ON CONFLICT (instance, alive_from) DO UPDATE SET alive_until = excluded.alive_until
"""

_ALIVE_ELSEWHERE = """
INSERT INTO ledger.liveness AS l (instance, alive_from, alive_until)
VALUES (%s, %s, %s)
ON CONFLICT (instance, alive_from)
    DO UPDATE SET alive_until = greatest(l.alive_until, excluded.alive_until)
"""

_TAKE_BACK = "DELETE FROM ledger.liveness WHERE instance = %s AND alive_from = %s"

_REFUSED = """
INSERT INTO ledger.refusal AS r (instance, number, refused_from, refused_until, deliveries)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (instance, number) DO UPDATE SET
    refused_from = excluded.refused_from,
    refused_until = excluded.refused_until,
    deliveries = excluded.deliveries
"""


def steady_clock() -> float:
    """Return seconds of a clock that is never set, and that goes on while the machine is asleep."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Refusal(Struct):
    """A time in which deliveries were refused, and how many. Numbered within the instance.

    It begins with the last proof before the first of them and ends with the first one after the
    last.
    """

    number: int
    begin: datetime
    end: datetime
    deliveries: int


class Alive(Struct, frozen=True):
    """A time through which an instance was able to store deliveries."""

    instance: uuid.UUID
    begin: datetime
    end: datetime


class Changes(Struct):
    """What a run has not recorded yet: spans of being alive, those taken back, and refusals."""

    alive: dict[datetime, datetime]
    """Ends of the spans, by their beginnings."""
    taken_back: set[datetime]
    refusals: dict[int, Refusal]

    def __bool__(self) -> bool:
        """Return whether there is anything to record."""
        return bool(self.alive or self.taken_back or self.refusals)


class Liveness:
    """One run of one process. Safe to use from several threads.

    The time through which it was alive is one span, but for steps of the clock: set back to before
    the span, it begins another; set forward again by as much, the first goes on, and what the wrong
    clock said is taken back.
    """

    def __init__(self) -> None:
        self._instance = uuid.uuid4()
        self._lock = threading.Lock()
        self._spans: list[tuple[datetime, float]] = []
        """Where each span of this time begins, and by how many seconds the clock was set back."""
        self._last_proof = 0.0
        self._last_now = datetime.min.replace(tzinfo=UTC)
        self._refusal: Refusal | None = None
        self._refusals = 0
        self._unrecorded = Changes({}, set(), {})
        self._is_being_recorded = False

    def prove(self, now: datetime, steady: float) -> None:
        """Note that a delivery which arrived now was, or could have been, made durable."""
        with self._lock:
            if steady < self._last_proof:  # a newer one is known
                return
            self._end_refusal(now)
            gap = steady - self._last_proof
            step = (now - self._last_now).total_seconds() - gap
            self._last_proof, self._last_now = steady, now
            spans = self._spans if gap <= LONGEST_GAP else []
            if not spans:
                spans = [(now, 0.0)]
            elif now < spans[-1][0]:
                spans = [*spans, (now, -step)]
            elif len(spans) > 1 and abs(step - spans[-1][1]) <= LONGEST_GAP:
                self._take_back(spans[-1][0])
                spans = spans[:-1]
            self._spans = spans
            self._unrecorded.alive[spans[-1][0]] = now

    def interrupt(self) -> None:
        """Note that a delivery could not have been made durable now."""
        with self._lock:
            self._spans = []

    def refuse(self, received_at: datetime, now: datetime, steady: float, deliveries: int) -> None:
        """Note that deliveries, the first of them received at a time, were refused."""
        with self._lock:
            self._spans = []
            begin = min(received_at, now)
            if self._refusal is None:
                if self._last_proof:
                    begin = min(begin, now - timedelta(seconds=steady - self._last_proof))
                self._refusals += 1
                self._refusal = Refusal(self._refusals, begin, now, 0)
            refusal = self._refusal
            refusal.begin = min(refusal.begin, begin)
            refusal.end = max(refusal.end, now)
            refusal.deliveries += deliveries
            self._unrecorded.refusals[refusal.number] = refusal

    def span(self) -> Alive | None:
        """Return the time through which this run has been alive until now; None if it is not."""
        with self._lock:
            if not self._spans:
                return None
            return Alive(self._instance, self._spans[-1][0], self._last_now)

    @property
    def is_recorded(self) -> bool:
        """Whether all that was noted is in the database; not while it is being written."""
        with self._lock:
            return not (self._unrecorded or self._is_being_recorded)

    def take_changes(self) -> Changes:
        """Return what is to be recorded; whoever fails to record it gives it back."""
        with self._lock:
            taken, self._unrecorded = self._unrecorded, Changes({}, set(), {})
            self._is_being_recorded = bool(taken)
            refusals = {
                number: Refusal(number, each.begin, each.end, each.deliveries)
                for number, each in taken.refusals.items()
            }
            return Changes(taken.alive, taken.taken_back, refusals)

    def give_back(self, changes: Changes) -> None:
        """Take changes that could not be recorded; newer ones prevail."""
        with self._lock:
            self._is_being_recorded = False
            newer = self._unrecorded
            newer.alive = {
                begin: end
                for begin, end in {**changes.alive, **newer.alive}.items()
                if begin not in newer.taken_back
            }
            newer.taken_back |= changes.taken_back
            newer.refusals = {**changes.refusals, **newer.refusals}

    def record(self, connection: Connection, changes: Changes) -> None:
        """Write changes in one transaction. Raises `psycopg.Error`."""
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(_ALIVE, self._of_instance(changes.alive.items()))
            cursor.executemany(_TAKE_BACK, self._of_instance((at,) for at in changes.taken_back))
            cursor.executemany(
                _REFUSED,
                self._of_instance(
                    (each.number, each.begin, each.end, each.deliveries)
                    for each in changes.refusals.values()
                ),
            )
        with self._lock:
            self._is_being_recorded = False

    def _of_instance(self, rows: Iterable[tuple[object, ...]]) -> list[tuple[object, ...]]:
        return [(self._instance, *row) for row in rows]

    def _take_back(self, begin: datetime) -> None:
        self._unrecorded.alive.pop(begin, None)
        self._unrecorded.taken_back.add(begin)

    def _end_refusal(self, now: datetime) -> None:
        if self._refusal:
            self._refusal.end = max(self._refusal.end, now)
            self._unrecorded.refusals[self._refusal.number] = self._refusal
            self._refusal = None


def record_alive(connection: Connection, alive: Alive) -> None:
    """Write a time that another run noted and did not live to record. Raises `psycopg.Error`."""
    connection.execute(_ALIVE_ELSEWHERE, (alive.instance, alive.begin, alive.end))
