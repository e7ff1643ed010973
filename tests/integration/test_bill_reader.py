"""Reading single bills, many at a time, and what becomes of who waits when it fails."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from ledger.api import bill_reader
from ledger.api.bill_reader import BILLS, BillReader, StoredBill
from ledger.eventlog.append import append
from ledger.eventlog.read import Key
from ledger.model.bill import FOLD_VERSION
from ledger.operations.missing_events.queries import LAST_POSITION
from ledger.operations.policy import Policy
from ledger.projection import rebuild
from ledger.settings import Settings
from tests.support.histories import body, deliveries
from tests.support.sessions import drain, sessions_named, terminate, wait_until

POLICY = Policy.of(Settings())


@asynccontextmanager
async def running(url: str) -> AsyncIterator[BillReader]:
    reader = BillReader(url, POLICY)
    try:
        yield reader
    finally:
        await reader.stop()


async def read_all(reader: BillReader, keys: list[Key]) -> list[StoredBill | None]:
    return await asyncio.gather(*map(reader.read, keys))


def named(name: str) -> bytes:
    """Make a bill whose integrator names it as the lab does."""
    return body(bill=name, integratorID=name)


def name_of(bill: StoredBill | None) -> str | None:
    assert bill, "it cannot be said"
    return None if bill.summary is None else bill.summary.integrator_id


def test_each_reader_gets_its_own_bill(database_url: str, service: Connection) -> None:
    """More than go into one query, some twice, some not there, one of another lab."""
    append(service, deliveries(named(f"B{number}") for number in range(100)))
    append(service, deliveries([body(bill="B7", lab="other", integratorID="theirs")]))
    head = drain(service)

    async def use() -> None:
        async with running(database_url) as reader:
            numbers = [*range(150), *range(50)]
            found = await read_all(reader, [("L", f"B{number}") for number in numbers])
            names = [f"B{number}" if number < 100 else None for number in numbers]
            assert list(map(name_of, found)) == names
            assert {bill.position for bill in found if bill} == {head}
            other = await reader.read(("other", "B7"))
            assert name_of(other) == "theirs"

    asyncio.run(use())


def test_those_who_wait_are_read_by_few_queries(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    fetch = BillReader._fetch  # noqa: SLF001 -- counted, and done as ever

    async def counted(reader: BillReader, keys: Sequence[Key]) -> list[StoredBill]:
        sizes.append(len(keys))
        return await fetch(reader, keys)

    monkeypatch.setattr(BillReader, "_fetch", counted)

    async def use() -> None:
        async with running(database_url) as reader:
            await read_all(reader, [("L", f"B{number}") for number in range(640)])

    asyncio.run(use())
    assert sizes == [bill_reader.MOST] * 10


@pytest.mark.parametrize(
    ("bills", "at_once"),
    [(bill_reader.MANY, 1), (bill_reader.MANY + bill_reader.MOST, 2), (1000, bill_reader.QUERIES)],
)
def test_where_a_query_is_slow_and_many_wait_others_are_begun_beside_it(
    database_url: str, monkeypatch: pytest.MonkeyPatch, bills: int, at_once: int
) -> None:
    under_way = most = 0
    begun, may_end = asyncio.Event(), asyncio.Event()
    fetch = BillReader._fetch  # noqa: SLF001 -- slowed down, and done as ever

    async def slow(reader: BillReader, keys: Sequence[Key]) -> list[StoredBill]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        begun.set()
        await may_end.wait()
        under_way -= 1
        return await fetch(reader, keys)

    monkeypatch.setattr(BillReader, "_fetch", slow)

    async def use() -> None:
        async with running(database_url) as reader:
            first = asyncio.create_task(reader.read(("L", "first")))
            await begun.wait()
            keys = [("L", f"B{number}") for number in range(bills - 1)]
            others = asyncio.ensure_future(read_all(reader, keys))
            for _ in range(10):  # for all that is to begin without time to pass
                await asyncio.sleep(0)
            may_end.set()
            found = [*await others, await first]
            assert [name_of(bill) for bill in found] == [None] * bills

    asyncio.run(use())
    assert most == at_once


def test_a_bill_is_read_anew_each_time(database_url: str, service: Connection) -> None:
    async def use() -> None:
        async with running(database_url) as reader:
            nothing = await reader.read(("L", "B"))
            assert (name_of(nothing), nothing and nothing.position) == (None, 0)
            append(service, deliveries([named("B")]))
            drain(service)
            there = await reader.read(("L", "B"))
            assert (name_of(there), there and there.position) == ("B", 1)

    asyncio.run(use())


def test_a_state_that_was_rebuilt_meanwhile_is_the_one_that_is_read(
    database_url: str, service: Connection
) -> None:
    """Not the old tables, which a statement prepared before had found under that name."""
    append(service, deliveries([named("B")]))
    drain(service)

    async def use() -> None:
        async with running(database_url) as reader:
            assert name_of(await reader.read(("L", "B"))) == "B"
            await asyncio.to_thread(
                rebuild.rebuild,
                database_url,
                processes=1,
                started_at=datetime.now(UTC),
                on_progress=lambda *_: None,
            )
            append(service, deliveries([named("new")]))
            drain(service)
            found = await read_all(reader, [("L", "B"), ("L", "new")])
            assert list(map(name_of, found)) == ["B", "new"]
            assert [bill and bill.position for bill in found] == [2, 2]

    asyncio.run(use())


def test_a_parked_bill_is_told_with_its_error(database_url: str, owner: Connection) -> None:
    owner.execute("INSERT INTO state.parked_bill VALUES ('L', 'B', 1, 'why')")

    async def use() -> None:
        async with running(database_url) as reader:
            assert await reader.read(("L", "B")) == StoredBill(0, "why", None, [], None)

    asyncio.run(use())


def test_after_a_lost_connection_nothing_is_said_for_a_pause_and_then_all_is_well(
    database_url: str, service: Connection, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bill_reader, "PAUSE", 0.2)
    append(service, deliveries([named("B")]))
    drain(service)

    async def use() -> None:
        async with running(database_url) as reader:
            await reader.read(("L", "B"))
            terminate(owner, *sessions_named(owner, "bills"))
            assert await read_all(reader, [("L", "B")] * 3) == [None] * 3
            assert await reader.read(("L", "B")) is None
            async with asyncio.timeout(5):
                while (bill := await reader.read(("L", "B"))) is None:  # noqa: ASYNC110 -- nothing signals it
                    await asyncio.sleep(0)
            assert name_of(bill) == "B"

    asyncio.run(use())


def test_a_query_that_takes_too_long_is_given_up(
    database_url: str, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bill_reader, "PATIENCE", 0.3)

    async def use() -> None:
        async with running(database_url) as reader:
            with psycopg.connect(database_url) as holder:
                holder.execute("LOCK TABLE state.bill IN ACCESS EXCLUSIVE MODE")
                async with asyncio.timeout(5):
                    assert await reader.read(("L", "B")) is None

    asyncio.run(use())
    wait_until(lambda: not sessions_named(owner, "bills"), "the reader's connection is closed")


def test_a_reader_who_gives_up_takes_nobody_along(database_url: str, service: Connection) -> None:
    append(service, deliveries(named(f"B{number}") for number in range(3)))
    drain(service)

    async def use() -> None:
        async with running(database_url) as reader:
            readers = [
                asyncio.ensure_future(reader.read(("L", f"B{number}"))) for number in range(3)
            ]
            await asyncio.sleep(0)
            readers[1].cancel()
            assert name_of(await readers[0]) == "B0"
            assert name_of(await readers[2]) == "B2"
            assert name_of(await reader.read(("L", "B1"))) == "B1"

    asyncio.run(use())


def test_a_lost_checkpoint_leaves_nobody_waiting(
    database_url: str, service: Connection, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bill_reader, "PAUSE", 0.0)
    append(service, deliveries([named("B")]))
    drain(service)

    async def use() -> None:
        async with running(database_url) as reader, asyncio.timeout(5):
            [lost] = owner.execute("DELETE FROM state.checkpoint RETURNING position").fetchall()
            assert await read_all(reader, [("L", "B")] * 3) == [None] * 3
            owner.execute(
                "INSERT INTO state.checkpoint VALUES (true, %s, %s)", [*lost, FOLD_VERSION]
            )
            assert name_of(await reader.read(("L", "B"))) == "B"

    asyncio.run(use())


def test_stopping_leaves_nobody_waiting(database_url: str) -> None:
    async def use() -> None:
        reader = BillReader(database_url, POLICY)
        async with asyncio.timeout(5):
            with psycopg.connect(database_url) as holder:
                holder.execute("LOCK TABLE state.bill IN ACCESS EXCLUSIVE MODE")
                waiting = asyncio.ensure_future(read_all(reader, [("L", "B")] * 100))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                await reader.stop()
                assert await waiting == [None] * 100

    asyncio.run(use())


def test_what_is_missing_or_parked_is_looked_for_only_where_it_can_be(service: Connection) -> None:
    whole = [named("B"), body("bill.deleted", bill="B", at=9)]
    append(service, deliveries([*whole, body("bill.completed", bill="lacks")]))
    drain(service)
    keys = {"labs": ["L"] * 3, "bills": ["B", "lacks", "none"]}
    values = {**keys, "events": list(POLICY.events), "position": LAST_POSITION}
    explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {BILLS}".encode()
    ((plan,),) = service.execute(explained, values).fetchall()
    assert looks(plan[0]["Plan"], "missing_event") == 1
    assert looks(plan[0]["Plan"], "parked_bill") == 1


def looks(plan: dict[str, Any], table: str) -> int:
    """Return how often a table was looked at."""
    own = plan["Actual Loops"] if plan.get("Relation Name") == table else 0
    return int(own) + sum(looks(part, table) for part in plan.get("Plans", ()))
