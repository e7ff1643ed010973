"""Reads single bills: those that wait at the same time are read by one query.

One query costs the driver and the server nearly the same for one bill as for fifty. While one is
under way the next bills gather, so that a lone reader waits for nobody. Where a query takes so long
that many gather, as when the database has to fetch pages, another one starts next to it.
"""

import asyncio
import math
from collections import deque
from collections.abc import Iterable, Sequence
from contextvars import Context
from operator import attrgetter
from typing import Any, LiteralString, NamedTuple

import psycopg
import structlog

from ledger.errors import StateError
from ledger.eventlog.read import Key
from ledger.model.bill import BillSummary, Report
from ledger.operations.bill_lists import SUMMARY_COLUMNS, bill_summary
from ledger.operations.missing_events.queries import COLUMNS, LAST_POSITION, SUBSCRIBED
from ledger.operations.policy import Policy
from ledger.postgres.connect import connect
from ledger.postgres.prepared_statement import PreparedStatement

MOST = 64
"""Bills in one query."""

QUERIES = 4
"""Queries that may be under way at a time."""

MANY = 24
"""Bills that wait during a query before another one starts; fewer are read by the next query."""

PATIENCE = 1.0
"""Seconds that a query may take."""

PAUSE = 1.0
"""Seconds after a failure in which no other query is tried."""

BILLS: LiteralString = f"""
SELECT
    c.position,
    CASE WHEN b.state IS NULL THEN (
        SELECT p.error
        FROM state.parked_bill p
        WHERE p.lab_id = k.lab_id AND p.bill_id = k.bill_id
    ) END AS error,
    k.lab_id,
    k.bill_id,
    {SUMMARY_COLUMNS},
    r.test_ids,
    r.statuses,
    r.completion_times,
    r.evidence,
    CASE WHEN b.missing > 0 THEN (
        SELECT json_agg(json_build_array({COLUMNS}) ORDER BY m.test_id, m.event_type)::text
        FROM state.missing_event m
        WHERE m.lab_id = k.lab_id AND m.bill_id = k.bill_id AND {SUBSCRIBED}
    ) END AS missing
FROM state.checkpoint c
CROSS JOIN unnest(%(labs)s::text[], %(bills)s::text[]) WITH ORDINALITY AS k (lab_id, bill_id, nth)
LEFT JOIN LATERAL (
    SELECT *
    FROM state.bill
    WHERE lab_id = k.lab_id AND bill_id = k.bill_id
) b ON true
CROSS JOIN LATERAL (
    SELECT
        array_agg(test_id) AS test_ids,
        array_agg(status) AS statuses,
        array_agg(completed_at) AS completion_times,
        array_agg(evidence) AS evidence
    FROM state.report
    WHERE lab_id = k.lab_id AND bill_id = k.bill_id
) r
ORDER BY k.nth
"""  # noqa: S608 -- our own columns and condition
"""Reads bills in the order in which they are named: the fields that `stored_bill` takes."""

_BY_NUMBER = BILLS % {"labs": "$1", "bills": "$2", "events": "$3", "position": "$4"}

_log = structlog.get_logger(__name__)


class StoredBill(NamedTuple):
    """What the state, at its `position`, holds of a bill.

    Its summary and reports, with `missing` as JSON, an array of `StoredMissing`; or the error of a
    parked bill; or nothing.
    """

    position: int
    error: str | None
    summary: BillSummary | None
    reports: list[Report]
    missing: str | None


_Waiting = tuple[Key, asyncio.Future[StoredBill | None]]


class BillReader:
    """Reads bills for one event loop, on connections of its own."""

    def __init__(self, url: str, policy: Policy) -> None:
        self._url = url
        self._events = list(policy.events)
        self._waiting: deque[_Waiting] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[PreparedStatement] = []
        self._paused_until = 0.0

    async def stop(self) -> None:
        """Close the connections; pending reads return None."""
        self._paused_until = math.inf
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        _answer(self._waiting, [None] * len(self._waiting))
        self._disconnect()

    async def read(self, key: Key) -> StoredBill | None:
        """Return a bill as it is now, or None if that cannot be said here."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._paused_until:
            return None
        answer: asyncio.Future[StoredBill | None] = loop.create_future()
        self._waiting.append((key, answer))
        if not self._tasks or (len(self._waiting) >= MANY and len(self._tasks) < QUERIES):
            # It outlives the request that starts it, and must not log in its name.
            self._tasks.add(loop.create_task(self._work(), context=Context()))
        return await answer

    async def _work(self) -> None:
        task = asyncio.current_task()
        batch: list[_Waiting] = []
        try:
            while self._waiting and (len(self._tasks) == 1 or len(self._waiting) >= MANY):
                count = min(MOST, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(count)]
                _answer(batch, await self._bills([key for key, _ in batch]))
        finally:
            self._tasks.discard(task)
            _answer(batch, [None] * len(batch))  # to those that a stop found waiting

    async def _bills(self, keys: Sequence[Key]) -> Sequence[StoredBill | None]:
        try:
            return await self._fetch(keys)
        except Exception as error:  # noqa: BLE001 -- whatever it was, they can be read otherwise
            _log.warning("bills are read one by one", error=" ".join(str(error).split()))
            self._paused_until = asyncio.get_running_loop().time() + PAUSE
            self._disconnect()  # what ended one connection has mostly ended the others
            return [None] * len(keys)

    async def _fetch(self, keys: Sequence[Key]) -> list[StoredBill]:
        select = self._idle.pop() if self._idle else await asyncio.to_thread(_connect, self._url)
        try:
            bills = await self._select(select, keys)
        except BaseException:  # a stop as well
            select.connection.close()
            raise
        self._idle.append(select)
        return bills

    async def _select(self, select: PreparedStatement, keys: Sequence[Key]) -> list[StoredBill]:
        async with asyncio.timeout(PATIENCE):
            rows = await select.run(
                (
                    [lab for lab, _ in keys],
                    [bill for _, bill in keys],
                    self._events,
                    LAST_POSITION,
                )
            )
        if not rows:
            raise StateError("state.checkpoint is empty: run `ledger rebuild`")
        return [stored_bill(row) for row in rows]

    def _disconnect(self) -> None:
        while self._idle:
            self._idle.pop().connection.close()


def _answer(waiting: Iterable[_Waiting], bills: Sequence[StoredBill | None]) -> None:
    for (_, answer), bill in zip(waiting, bills, strict=True):
        if not answer.done():
            answer.set_result(bill)


def _connect(url: str) -> PreparedStatement:
    """Open a connection to read by, which blocks."""
    connection = connect(url, "bills")
    try:
        # One plan for good: look-ups along the primary keys, however small the tables were once.
        connection.execute(
            "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off;"
            "SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan;"
            f"SET statement_timeout = {PATIENCE * 1000:.0f}"
        )
        return PreparedStatement(connection, _BY_NUMBER)
    except psycopg.Error:
        connection.close()
        raise


def stored_bill(row: Sequence[Any]) -> StoredBill:
    """Return the bill of a row of `BILLS`; times are UTC, as of every connection of Ledger's."""
    position, error, lab_id, bill_id, *columns, tests, statuses, times, evidence, missing = row
    summary = None
    reports = []
    if columns[1] is not None:  # its state
        summary = bill_summary(lab_id, bill_id, columns)
        if tests:
            reports = list(map(Report, tests, statuses, times, evidence))
            reports.sort(key=_by_test)
    return StoredBill(position, error, summary, reports, missing)


_by_test = attrgetter("test_id")
