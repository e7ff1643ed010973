"""Reads single bills: those that wait at the same time are read by one query.

One query costs the driver and the server nearly the same for one bill as for fifty. While one is
under way the next bills gather, so that a lone reader waits for nobody. Where a query takes so long
that many gather, as when the database has to fetch pages, another is begun beside it.
"""

import asyncio
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import LiteralString, NamedTuple, cast

import psycopg
import structlog

from ledger.errors import StateError
from ledger.model.bill import State
from ledger.operations.missing_events.queries import COLUMNS, LAST_POSITION, SUBSCRIBED
from ledger.operations.policy import Policy
from ledger.postgres.binary import int8, packed_text_array
from ledger.postgres.connect import connect
from ledger.postgres.prepared_statement import PreparedStatement
from ledger.projection.stored import BillColumns

MOST = 64
"""Bills in one query."""

QUERIES = 4
"""Queries that may be under way at a time."""

MANY = 24
"""Bills that wait beside a query before another is begun: fewer are better read by the next."""

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
    b.state,
    b.integrator_id,
    b.position,
    b.summary,
    b.reports,
    CASE WHEN b.missing > 0 THEN (
        SELECT json_agg(json_build_array({COLUMNS}) ORDER BY m.test_id, m.event_type)
        FROM state.missing_event m
        WHERE m.lab_id = k.lab_id AND m.bill_id = k.bill_id AND {SUBSCRIBED}
    ) END AS missing
FROM state.checkpoint c
CROSS JOIN unnest(%(labs)s::text[], %(bills)s::text[]) WITH ORDINALITY AS k (lab_id, bill_id, nth)
-- What `missing` below stands for where the table has no such column: in state of version 3.
CROSS JOIN (VALUES (1)) AS version_3 (missing)
LEFT JOIN LATERAL (
    SELECT state, integrator_id, position, summary, reports, missing
    FROM state.bill
    WHERE lab_id = k.lab_id AND bill_id = k.bill_id
) b ON true
ORDER BY k.nth
"""  # noqa: S608 -- our own columns and condition
"""Reads bills in the order in which they are named: the parts of `StoredBill`, without the key."""

_BY_NUMBER = BILLS % {"labs": "$1", "bills": "$2", "events": "$3", "position": "$4"}

Key = tuple[bytes, bytes]
"""`(lab_id, bill_id)`, as UTF-8."""

_log = structlog.get_logger(__name__)


class StoredBill(NamedTuple):
    """What the state, at its `position`, has of a bill.

    The columns of its row, `missing` as an array of `StoredMissing`; or the error of one parked; or
    nothing.
    """

    position: int
    error: str | None
    columns: BillColumns | None
    reports: bytes | None
    missing: bytes | None


_Waiting = tuple[Key, asyncio.Future[StoredBill | None]]


class BillReader:
    """Reads bills for one event loop, on connections of its own."""

    def __init__(self, url: str, policy: Policy) -> None:
        self._url = url
        self._events = packed_text_array(name.encode() for name in policy.events)
        self._waiting: deque[_Waiting] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[PreparedStatement] = []
        self._paused_until = 0.0

    async def stop(self) -> None:
        """Close the connections; who waits is told that nothing can be said."""
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
            self._tasks.add(loop.create_task(self._work()))
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
                    packed_text_array(lab for lab, _ in keys),
                    packed_text_array(bill for _, bill in keys),
                    self._events,
                    int8(LAST_POSITION),
                )
            )
        if not rows.ntuples:
            raise StateError("state.checkpoint is empty: run `ledger rebuild`")
        value, columns = rows.get_value, range(rows.nfields)
        return [
            _stored_bill(key, [value(nth, column) for column in columns])
            for nth, key in enumerate(keys)
        ]

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


def _stored_bill(key: Key, row: Sequence[bytes | None]) -> StoredBill:
    as_of, error, state, integrator_id, position, summary, reports, missing = row
    columns = None
    if state and position and summary:
        columns = BillColumns(
            key[0].decode(),
            key[1].decode(),
            cast("State", state.decode()),
            _text(integrator_id),
            int.from_bytes(position, "big"),
            summary,
        )
    return StoredBill(int.from_bytes(as_of or b"", "big"), _text(error), columns, reports, missing)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
