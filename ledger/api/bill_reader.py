"""Reads single bills: those that wait at the same time are read by one query.

One query costs the driver and the server nearly the same for one bill as for fifty. While one is
under way the next bills gather, so that a lone reader waits for nobody.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from psycopg.sql import SQL, Composed

from ledger.binary import text_array
from ledger.desk.missing import COLUMNS, SUBSCRIBED, Parameters, parameters
from ledger.desk.terms import Terms
from ledger.errors import StateError

MOST = 64
"""Bills in one query."""

UNDER_WAY = 2
"""Queries at a time: one is prepared while the other is answered."""

_BILLS = SQL("""
SELECT
    c.position,
    b.integrator_id,
    b.summary,
    b.reports,
    (
        SELECT json_agg(json_build_array({columns}) ORDER BY m.test_id, m.event_type)
        FROM state.missing_event m
        WHERE m.lab_id = k.lab_id AND m.bill_id = k.bill_id AND {subscribed}
    ) AS missing,
    p.error
FROM state.checkpoint c
CROSS JOIN unnest(%(labs)s, %(bills)s) WITH ORDINALITY AS k (lab_id, bill_id, nth)
LEFT JOIN state.bill b ON b.lab_id = k.lab_id AND b.bill_id = k.bill_id
LEFT JOIN state.parked_bill p ON p.lab_id = k.lab_id AND p.bill_id = k.bill_id
ORDER BY k.nth
""").format(columns=SQL(COLUMNS), subscribed=SQL(SUBSCRIBED))


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


Fetch = Callable[[Composed, Parameters], Awaitable[list[tuple[Any, ...]]]]

_Waiting = tuple[tuple[str, str], asyncio.Future[StoredBill]]


class BillReader:
    """Reads bills for one event loop."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._waiting: deque[_Waiting] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(self, fetch: Fetch, key: tuple[str, str]) -> StoredBill:
        """Return a bill as it is now, by a query that `fetch` runs. Raises what that raises."""
        answer: asyncio.Future[StoredBill] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, answer))
        if len(self._tasks) < UNDER_WAY:
            task = asyncio.create_task(self._work(fetch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await answer

    async def _work(self, fetch: Fetch) -> None:
        while self._waiting:
            count = min(MOST, len(self._waiting))
            await self._answer(fetch, [self._waiting.popleft() for _ in range(count)])

    async def _answer(self, fetch: Fetch, batch: list[_Waiting]) -> None:
        values = {
            **parameters(self._terms, datetime.now(UTC)),
            "labs": text_array(lab for (lab, _), _ in batch),
            "bills": text_array(bill for (_, bill), _ in batch),
        }
        try:
            rows = await fetch(_BILLS, values)
        except Exception as error:  # noqa: BLE001 -- it is each reader's to see
            _fail(batch, error)
            return
        if not rows:
            _fail(batch, StateError("state.checkpoint is empty: run `ledger rebuild`"))
            return
        for (_, answer), row in zip(batch, rows, strict=True):
            if not answer.done():
                answer.set_result(StoredBill(*row))


def _fail(batch: list[_Waiting], error: Exception) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(error)
