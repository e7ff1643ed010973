"""Reads single bills: those that wait at the same time are read by one query.

One query costs the driver and the server nearly the same for one bill as for fifty. While one is
under way the next bills gather, so that a lone reader waits for nobody.
"""

import asyncio
import math
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import LiteralString, NamedTuple

import psycopg
import structlog
from psycopg import Connection

from ledger.binary import int8, packed_text_array
from ledger.database import connect
from ledger.desk.missing import COLUMNS, LAST_POSITION, SUBSCRIBED
from ledger.desk.terms import Terms
from ledger.errors import StateError
from ledger.prepared import Prepared

MOST = 64
"""Bills in one query."""

PATIENCE = 1.0
"""Seconds that a query may take."""

PAUSE = 1.0
"""Seconds after a failure in which no other query is tried."""

BILLS: LiteralString = f"""
SELECT
    c.position,
    b.integrator_id,
    b.summary,
    b.reports,
    (
        SELECT json_agg(json_build_array({COLUMNS}) ORDER BY m.test_id, m.event_type)
        FROM state.missing_event m
        WHERE m.lab_id = k.lab_id AND m.bill_id = k.bill_id AND {SUBSCRIBED}
    ) AS missing,
    p.error
FROM state.checkpoint c
CROSS JOIN unnest(%(labs)s::text[], %(bills)s::text[]) WITH ORDINALITY AS k (lab_id, bill_id, nth)
LEFT JOIN state.bill b ON b.lab_id = k.lab_id AND b.bill_id = k.bill_id
LEFT JOIN state.parked_bill p ON p.lab_id = k.lab_id AND p.bill_id = k.bill_id
ORDER BY k.nth
"""  # noqa: S608 -- our own columns and condition
"""Reads bills, each as a `StoredBill`, in the order in which they are named."""

_BY_NUMBER = BILLS % {"labs": "$1", "bills": "$2", "events": "$3", "position": "$4"}

Key = tuple[bytes, bytes]
"""`(lab_id, bill_id)`, as UTF-8."""

_log = structlog.get_logger(__name__)


class StoredBill(NamedTuple):
    """What the state has of a bill: JSON as the fold encoded it; None where there is none.

    `position` is the state's, `missing` an array of `StoredMissing`.
    """

    position: int
    integrator_id: str | None
    summary: bytes | None
    reports: bytes | None
    missing: bytes | None
    error: str | None


_Waiting = tuple[Key, asyncio.Future[StoredBill | None]]


class BillReader:
    """Reads bills for one event loop, on a connection of its own."""

    def __init__(self, url: str, terms: Terms) -> None:
        self._url = url
        self._events = packed_text_array(name.encode() for name in terms.events)
        self._waiting: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None
        self._connected_by: tuple[Connection, Prepared] | None = None
        self._paused_until = 0.0

    async def stop(self) -> None:
        """Close the connection; who waits is told that nothing can be said."""
        self._paused_until = math.inf
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        _answer(self._waiting, [None] * len(self._waiting))
        self._disconnect()

    async def read(self, key: Key) -> StoredBill | None:
        """Return a bill as it is now, or None if that cannot be said here."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._paused_until:
            return None
        answer: asyncio.Future[StoredBill | None] = loop.create_future()
        self._waiting.append((key, answer))
        if self._task is None:
            self._task = loop.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        batch: list[_Waiting] = []
        try:
            while self._waiting:
                count = min(MOST, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(count)]
                _answer(batch, await self._bills([key for key, _ in batch]))
        finally:
            self._task = None
            _answer(batch, [None] * len(batch))  # to those that a stop found waiting

    async def _bills(self, keys: Sequence[Key]) -> Sequence[StoredBill | None]:
        try:
            return await self._fetch(keys)
        except Exception as error:  # noqa: BLE001 -- whatever it was, they can be read otherwise
            _log.warning("bills are read one by one", error=" ".join(str(error).split()))
            self._paused_until = asyncio.get_running_loop().time() + PAUSE
            self._disconnect()
            return [None] * len(keys)

    async def _fetch(self, keys: Sequence[Key]) -> list[StoredBill]:
        if self._connected_by is None:
            self._connected_by = await asyncio.to_thread(_connect, self._url)
        async with asyncio.timeout(PATIENCE):
            rows = await self._connected_by[1].run(
                (
                    packed_text_array(lab for lab, _ in keys),
                    packed_text_array(bill for _, bill in keys),
                    self._events,
                    int8(LAST_POSITION),
                )
            )
        if not rows.ntuples:
            raise StateError("state.checkpoint is empty: run `ledger rebuild`")
        value = rows.get_value
        return [
            StoredBill(
                int.from_bytes(value(row, 0) or b"", "big"),
                _text(value(row, 1)),
                value(row, 2),
                value(row, 3),
                value(row, 4),
                _text(value(row, 5)),
            )
            for row in range(rows.ntuples)
        ]

    def _disconnect(self) -> None:
        if self._connected_by:
            with suppress(Exception):
                self._connected_by[0].close()
        self._connected_by = None


def _answer(waiting: Iterable[_Waiting], bills: Sequence[StoredBill | None]) -> None:
    for (_, answer), bill in zip(waiting, bills, strict=True):
        if not answer.done():
            answer.set_result(bill)


def _connect(url: str) -> tuple[Connection, Prepared]:
    """Open the reader's connection, which blocks."""
    connection = connect(url, "bills")
    try:
        # One plan for good: look-ups along the primary keys, however small the tables were once.
        connection.execute(
            "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;"
            "SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan;"
            f"SET statement_timeout = {PATIENCE * 1000:.0f}"
        )
        return connection, Prepared(connection, _BY_NUMBER)
    except psycopg.Error:
        connection.close()
        raise


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
