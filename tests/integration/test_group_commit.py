"""The lane under an event loop: group commit, and what becomes of who waits when it fails."""

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest
from prometheus_client import REGISTRY
from psycopg import Connection

from ledger import schema
from ledger.errors import AppendError
from ledger.eventlog import delivery_queue, liveness
from ledger.eventlog import group_commit as lane_module
from ledger.eventlog.append import Delivery, Outcome, Spooled
from ledger.eventlog.group_commit import GroupCommit
from ledger.postgres.connect import connect
from tests.support.histories import HOSTILE, body, deliveries, delivery
from tests.support.postgres import PrivateServer
from tests.support.sessions import lane_held, one, sessions_named, terminate, wait_until

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from collections.abc import Iterator

SENDER_WAITS = 10.0


@asynccontextmanager
async def running(url: str) -> AsyncIterator[GroupCommit]:
    lane = GroupCommit(url)
    lane.start()
    try:
        yield lane
    finally:
        await lane.stop()


async def until(holds: Callable[[], object], what: str) -> None:
    """Wait for something of the database without stopping the loop."""
    await asyncio.to_thread(wait_until, holds, what)


async def lane_waits(owner: Connection) -> None:
    """Return when the lane has a transaction that waits for its lock."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ledger lane'"
        " AND datname = current_database() AND wait_event = 'advisory'"
    )
    await until(lambda: one(owner, query) == 1, "the lane waits for its lock")


async def append_all(
    lane: GroupCommit, given: list[Delivery]
) -> "list[Outcome | Spooled | BaseException]":
    return await asyncio.gather(*map(lane.append, given), return_exceptions=True)


async def appended(lane: GroupCommit, given: Delivery) -> Outcome:
    outcome = await lane.append(given)
    assert isinstance(outcome, Outcome)
    return outcome


@contextmanager
def within_patience() -> "Iterator[None]":
    began = time.monotonic()
    yield
    assert time.monotonic() - began < lane_module.PATIENCE + 1


def test_each_delivery_is_told_its_own_outcome(database_url: str) -> None:
    async def use() -> None:
        async with running(database_url) as lane:
            assert await lane.append(delivery(body())) == Outcome(1, recorded=True)
            assert await lane.append(delivery(b"hello")) == Outcome(2, recorded=True)
            assert await lane.append(delivery(body())) == Outcome(1, recorded=False)

    asyncio.run(use())


def test_a_delivery_is_counted_before_it_is_answered(database_url: str) -> None:
    """Else a kill after the answer leaves a count too few."""

    def counted() -> float:
        return REGISTRY.get_sample_value("ledger_deliveries_total", {"outcome": "recorded"}) or 0

    async def use() -> None:
        async with running(database_url) as lane:
            before = counted()
            told = asyncio.get_running_loop().create_future()
            lane.enqueue(delivery(body()), lambda _: told.set_result(counted() - before))
            assert await told == 1

    asyncio.run(use())


def test_those_who_wait_go_in_one_transaction(database_url: str, owner: Connection) -> None:
    given = deliveries(body(bill=f"B{number}") for number in range(300))

    async def use() -> None:
        async with running(database_url) as lane:
            with lane_held(database_url):
                answers = asyncio.ensure_future(append_all(lane, given))
                await lane_waits(owner)
            outcomes = await answers
        assert outcomes == [Outcome(number + 1, recorded=True) for number in range(300)]

    asyncio.run(use())
    # The first may have gone before the others had come.
    assert one(owner, "SELECT count(DISTINCT xmin::text) FROM ledger.event_log") <= 2


def test_more_than_a_batch_goes_in_several(
    database_url: str, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_queue, "MAX_BATCH", 10)
    given = deliveries(body(bill=f"B{number}") for number in range(95))

    async def use() -> None:
        async with running(database_url) as lane:
            outcomes = await append_all(lane, given)
        assert outcomes == [Outcome(number + 1, recorded=True) for number in range(95)]

    asyncio.run(use())
    assert one(owner, "SELECT count(DISTINCT xmin::text) FROM ledger.event_log") >= 10


def test_hostile_bodies_do_not_touch_those_beside_them(database_url: str) -> None:
    hostile = list(HOSTILE.values())
    good = [body(bill=f"B{number}") for number in range(len(hostile))]
    given = deliveries(event for pair in zip(hostile, good, strict=True) for event in pair)

    async def use() -> None:
        async with running(database_url) as lane, asyncio.timeout(lane_module.PATIENCE):
            outcomes = await append_all(lane, given)
        assert all(isinstance(outcome, Outcome) for outcome in outcomes)

    asyncio.run(use())


def test_a_delivery_that_the_database_refuses_fails_alone(
    database_url: str, owner: Connection
) -> None:
    owner.execute("ALTER TABLE ledger.event_log ADD CONSTRAINT no CHECK (bill_id <> 'refused')")
    names = [f"B{number}" for number in range(10)]
    given = deliveries(body(bill=name) for name in [*names[:5], "refused", *names[5:]])

    async def use() -> None:
        async with running(database_url) as lane:
            with lane_held(database_url):
                answers = asyncio.ensure_future(append_all(lane, given))
                await lane_waits(owner)
            outcomes = await answers
            assert isinstance(outcomes.pop(5), AppendError)
            assert outcomes == [Outcome(number + 1, recorded=True) for number in range(10)]
            assert await lane.append(delivery(body(bill="after"))) == Outcome(11, recorded=True)

    asyncio.run(use())


def test_what_is_more_than_a_socket_takes_is_sent_whole(
    database_url: str, owner: Connection
) -> None:
    long_one = delivery(b"x" * 40_000_000)

    async def use() -> None:
        async with running(database_url) as lane:
            assert await lane.append(long_one) == Outcome(1, recorded=True)
            assert await lane.append(delivery(body())) == Outcome(2, recorded=True)

    asyncio.run(use())
    assert one(owner, "SELECT body FROM ledger.logged_event WHERE position = 1") == long_one.body


def test_liveness_is_recorded_while_one_batch_follows_the_other(
    database_url: str, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_queue, "MAX_BATCH", 10)
    monkeypatch.setattr(liveness, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lane_module, "BEAT_SECONDS", 0.05)
    query = "SELECT max(alive_until) FROM ledger.liveness"
    stopped = threading.Event()

    def recorded_since(last: datetime) -> bool:
        return bool(one(owner, query) > last)

    async def keep_busy(lane: GroupCommit) -> None:
        told = 0

        def count(_: object) -> None:
            nonlocal told
            told += 1

        for number in itertools.count():
            # So many that some wait whenever a batch is done.
            while number - told == 200:  # noqa: ASYNC110 -- a turn of the loop for the lane
                await asyncio.sleep(0)
            if stopped.is_set():
                return
            lane.enqueue(delivery(body(bill=f"B{number}")), count)

    async def use() -> None:
        async with running(database_url) as lane:
            busy = asyncio.ensure_future(keep_busy(lane))
            await lane.settle(within=SENDER_WAITS)
            try:
                for _ in range(3):  # the first may have come before all this
                    await until(partial(recorded_since, one(owner, query)), "another record")
            finally:
                stopped.set()
            await busy

    asyncio.run(use())


def test_a_terminated_session_fails_those_in_it_and_the_next_are_recorded(
    database_url: str, owner: Connection
) -> None:
    async def use() -> None:
        async with running(database_url) as lane:
            await lane.append(delivery(b"0"))  # and with it the first proof
            with lane_held(database_url):
                doomed = asyncio.ensure_future(append_all(lane, [delivery(b"1"), delivery(b"2")]))
                await lane_waits(owner)
                terminate(owner, *sessions_named(owner, "lane"))
            refused = [answer for answer in await doomed if isinstance(answer, AppendError)]
            assert refused
            outcomes = await append_all(lane, [delivery(b"1"), delivery(b"2")])
            assert sorted(_position(outcome) for outcome in outcomes) == [2, 3]

    asyncio.run(use())


def _position(outcome: Outcome | Spooled | BaseException) -> int:
    assert isinstance(outcome, Outcome)
    return outcome.position


def test_a_killed_database_fails_all_who_wait_and_the_same_lane_recovers(
    postgres_server: PrivateServer,
) -> None:
    """And what was acknowledged before is there after the crash."""
    url = postgres_server.dsn()
    schema.migrate(url)

    async def use() -> None:
        async with running(url) as lane:
            before = [
                await appended(lane, delivery(body(bill=f"before{number}"))) for number in range(5)
            ]
            assert [outcome.position for outcome in before] == [1, 2, 3, 4, 5]
            with psycopg.connect(url, autocommit=True) as owner:
                holder = psycopg.connect(url)
                holder.execute("SELECT pg_advisory_xact_lock(7402, 1)")
                waiting = deliveries(body(bill=f"waits{number}") for number in range(20))
                answers = asyncio.ensure_future(append_all(lane, waiting))
                await lane_waits(owner)
            with within_patience():
                await asyncio.to_thread(postgres_server.kill)
                assert all(isinstance(answer, AppendError) for answer in await answers)
            holder.close()
            with within_patience(), pytest.raises(AppendError):
                await lane.append(delivery(body(bill="away")))
            await asyncio.to_thread(postgres_server.start)
            after = await appended(lane, delivery(body(bill="after")))
            with connect(url, "test") as connection:
                query = "SELECT position FROM ledger.event_log WHERE bill_id LIKE %s ORDER BY 1"
                kept = connection.execute(query, ("before%",)).fetchall()
                assert kept == [(1,), (2,), (3,), (4,), (5,)]
                assert connection.execute(query, ("after",)).fetchall() == [(after.position,)]
                assert one(connection, "SELECT max(position) = count(*) FROM ledger.event_log")

    asyncio.run(use())


def test_a_lock_that_somebody_holds_fails_who_waits_in_time(
    database_url: str, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "STATEMENT_TIMEOUT", 500)

    async def use() -> None:
        async with running(database_url) as lane:
            with lane_held(database_url), within_patience():
                answers = await append_all(lane, deliveries([b"1", b"2", b"3"]))
                assert all(isinstance(answer, AppendError) for answer in answers)
            outcomes = await append_all(lane, deliveries([b"1", b"2", b"3"]))
            assert sorted(_position(outcome) for outcome in outcomes) == [1, 2, 3]

    asyncio.run(use())
    assert one(owner, "SELECT count(*) FROM ledger.event_log") == 3


def test_patience_ends_before_the_sender_hangs_up() -> None:
    assert lane_module.STATEMENT_TIMEOUT / 1000 < lane_module.PATIENCE < SENDER_WAITS - 2


def test_a_host_that_never_answers_fails_who_waits_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://ledger:x@127.0.0.1:{silent.getsockname()[1]}/ledger"

        async def use() -> None:
            async with running(url) as lane:
                with within_patience(), pytest.raises(AppendError):
                    await lane.append(delivery(body()))

        asyncio.run(use())


def test_a_waiter_who_gives_up_takes_nobody_along(database_url: str, owner: Connection) -> None:
    async def use() -> None:
        async with running(database_url) as lane:
            with lane_held(database_url):
                first = asyncio.ensure_future(lane.append(delivery(body(bill="first"))))
                await lane_waits(owner)
                second = asyncio.ensure_future(lane.append(delivery(body(bill="second"))))
                third = asyncio.ensure_future(appended(lane, delivery(body(bill="third"))))
                await asyncio.sleep(0)
                first.cancel()
                second.cancel()
            outcome = await third
            assert first.cancelled()
            for gone in (first, second):
                with pytest.raises(asyncio.CancelledError):
                    await gone
            query = "SELECT bill_id FROM ledger.event_log WHERE position = %s"
            assert one(owner, query, outcome.position) == "third"
            assert (await appended(lane, delivery(body(bill="fourth")))).recorded

    asyncio.run(use())


def test_too_much_that_waits_is_refused_at_once_and_room_comes_again(
    database_url: str, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_queue, "MAX_WAITING_BYTES", 1000)

    async def use() -> None:
        async with running(database_url) as lane:
            with lane_held(database_url):
                first = asyncio.ensure_future(appended(lane, delivery(b"x" * 900)))
                await lane_waits(owner)
                with pytest.raises(AppendError):
                    await lane.append(delivery(b"y" * 200))
            assert (await first).recorded
            # Its sender is told a moment before its room is free.
            while not await accepted(lane):  # noqa: ASYNC110 -- nothing signals it
                await asyncio.sleep(0)

    async def accepted(lane: GroupCommit) -> bool:
        try:
            return (await appended(lane, delivery(b"y" * 200))).recorded
        except AppendError:
            return False

    asyncio.run(asyncio.wait_for(use(), SENDER_WAITS))


def test_stopping_commits_what_waits_and_takes_no_more(
    database_url: str, owner: Connection
) -> None:
    given = deliveries(body(bill=f"B{number}") for number in range(20))

    async def use() -> None:
        lane = GroupCommit(database_url)
        lane.start()
        with lane_held(database_url):
            answers = asyncio.ensure_future(append_all(lane, given))
            await lane_waits(owner)
            stopping = asyncio.ensure_future(lane.stop())
            await asyncio.sleep(0)
            with pytest.raises(AppendError):
                await lane.append(delivery(body(bill="late")))
        await stopping
        assert [_position(outcome) for outcome in await answers] == list(range(1, 21))

    asyncio.run(use())
    assert one(owner, "SELECT count(*) FROM ledger.event_log") == 20
    wait_until(lambda: not sessions_named(owner, "lane"), "the lane's connection is closed")
    assert not [thread for thread in threading.enumerate() if thread.name == "lane"]


@pytest.mark.parametrize(
    ("default", "used"), [("off", "on"), ("on", "on"), ("local", "local"), ("remote_apply",) * 2]
)
def test_the_lane_commits_durably_whatever_the_default_is(
    database_url: str, owner: Connection, default: str, used: str
) -> None:
    """The database itself notes with what setting events were committed."""
    owner.execute(
        f"""
        ALTER DATABASE {owner.info.dbname} SET synchronous_commit = {default};
        CREATE TABLE public.noted (setting text);
        GRANT INSERT ON public.noted TO ledger_service;
        CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.noted VALUES (current_setting('synchronous_commit'));
            RETURN NULL;
        END $$;
        CREATE TRIGGER note AFTER INSERT ON ledger.event_log
            FOR EACH STATEMENT EXECUTE FUNCTION public.note();
        """.encode()
    )

    async def use() -> None:
        async with running(database_url) as lane:
            await lane.append(delivery(body(bill="B1")))
            terminate(owner, *sessions_named(owner, "lane"))
            with suppress(AppendError):  # the first one finds the connection gone
                await lane.append(delivery(body(bill="B2")))
            await lane.append(delivery(body(bill="B3")))

    asyncio.run(use())
    assert set(owner.execute("SELECT setting FROM noted").fetchall()) == {(used,)}
