"""The rebuild: equal to the live state, swapped at once, interrupted without harm."""

import multiprocessing
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count

import psycopg
import pytest
from psycopg import Connection

from ledger.errors import LedgerError, RebuildError
from ledger.eventlog import read
from ledger.eventlog.append import append
from ledger.eventlog.read import Key, LogRow
from ledger.model.bill import FOLD_VERSION
from ledger.postgres.connect import connect
from ledger.projection import fold_share, parallel, rebuild, store
from ledger.projection.fold_bills import Projected, add_history
from ledger.projection.parallel import Chunk, chunks, histories
from ledger.projection.projector import lock_projection
from ledger.projection.rebuild import Rebuilt
from tests.support.histories import RECEIVED, body, deliveries, delivery, mixed_history
from tests.support.sessions import drain, one, sessions_named, state_rows, terminate, wait_until

pytestmark = pytest.mark.slow

Progress = Callable[[int, int], None]


def ignore(done: int, todo: int) -> None:
    """Stand in for a listener."""


def run(url: str, *, processes: int = 1, on_progress: Progress = ignore) -> Rebuilt:
    return rebuild.rebuild(url, processes=processes, started_at=RECEIVED, on_progress=on_progress)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "chunks", partial(chunks, events=7))


def shape(connection: Connection, schema: str = "state") -> list[tuple[object, ...]]:
    """Describe all that a schema holds: columns, indexes, constraints, owners."""
    query = """
        SELECT c.relname, c.relkind::text, pg_get_userbyid(c.relowner), a.attname, a.attnotnull,
            format_type(a.atttypid, a.atttypmod), l.collname, pg_get_indexdef(c.oid)
        FROM pg_class c
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        LEFT JOIN pg_collation l ON l.oid = a.attcollation
        WHERE c.relnamespace = %(schema)s::regnamespace AND c.relkind <> 't'
        UNION ALL
        SELECT conrelid::regclass::text, contype::text, conname, '', true,
            pg_get_constraintdef(oid), '', ''
        FROM pg_constraint WHERE connamespace = %(schema)s::regnamespace
        ORDER BY 1, 2, 3, 4, 6
    """
    return connection.execute(query, {"schema": schema}).fetchall()


def leftovers(connection: Connection) -> list[str]:
    query = "SELECT nspname FROM pg_namespace WHERE nspname IN ('state_next', 'state_old')"
    return [name for (name,) in connection.execute(query)]


# --- equal to live ----------------------------------------------------------------------------


@pytest.mark.usefixtures("small_chunks")
def test_several_processes_rebuild_what_the_projector_made(
    database_url: str, service: Connection
) -> None:
    append(service, mixed_history(300))
    append(service, mixed_history(50))
    drain(service)
    live, live_shape = state_rows(service), shape(service)
    assert all(live[table] for table in ("bill", "report", "missing_event", "unreadable_event"))
    told: list[tuple[int, int]] = []
    made = run(database_url, processes=2, on_progress=lambda *done: told.append(done))
    head = read.head(service)
    assert state_rows(service) == live
    assert shape(service) == live_shape
    assert leftovers(service) == []
    assert (made.position, made.counts.events) == (head, head)
    assert (made.counts.bills, made.counts.parked) == (len(live["bill"]), 0)
    assert made.counts.unreadable == len(live["unreadable_event"])
    assert told == sorted(told)
    assert told[-1] == (head, head)


def test_one_process_is_this_one(database_url: str, service: Connection) -> None:
    append(service, mixed_history(20))
    told: list[int] = []

    def listen(done: int, todo: int) -> None:
        assert multiprocessing.active_children() == []
        told.append(todo - done)

    run(database_url, on_progress=listen)
    assert told == [0]


def test_the_rebuilt_state_is_followed_on(database_url: str, service: Connection) -> None:
    append(service, mixed_history(60))
    run(database_url)
    append(service, mixed_history(60, seed=2))
    drain(service)
    live = state_rows(service)
    run(database_url)
    assert state_rows(service) == live


def test_an_empty_log_makes_an_empty_state(database_url: str, service: Connection) -> None:
    empty, empty_shape = state_rows(service), shape(service)
    made = run(database_url)
    assert (made.position, made.counts.events) == (0, 0)
    assert (state_rows(service), shape(service)) == (empty, empty_shape)


@pytest.mark.usefixtures("small_chunks")
def test_a_giant_group_of_bodies_that_say_nothing_is_rebuilt(
    database_url: str, service: Connection
) -> None:
    append(service, deliveries(f"broken {number}".encode() for number in range(400)))
    append(service, mixed_history(40))
    drain(service)
    live = state_rows(service)
    assert len(live["unreadable_event"]) >= 400
    run(database_url)
    assert state_rows(service) == live


def test_state_of_an_older_version_of_the_fold_is_made_anew(
    database_url: str, service: Connection
) -> None:
    append(service, mixed_history(40))
    drain(service)
    live = state_rows(service)
    service.execute("UPDATE state.checkpoint SET fold_version = %s", (FOLD_VERSION - 1,))
    service.execute("ALTER TABLE state.bill DROP COLUMN report_url CASCADE")
    run(database_url)
    assert state_rows(service) == live


@pytest.mark.parametrize(
    "loss",
    [
        "DROP SCHEMA state CASCADE",
        "DROP TABLE state.checkpoint",
        "DELETE FROM state.checkpoint",
        "DROP TABLE state.bill CASCADE",
        "DROP SCHEMA state CASCADE; CREATE SCHEMA state",
        "TRUNCATE state.bill",
    ],
)
def test_state_that_was_lost_is_made_anew(
    database_url: str, service: Connection, loss: str
) -> None:
    append(service, mixed_history(40))
    drain(service)
    live = state_rows(service)
    service.execute(loss.encode())
    run(database_url)
    assert state_rows(service) == live


def test_a_parked_bill_is_folded_when_the_database_takes_it(
    database_url: str, service: Connection, owner: Connection
) -> None:
    owner.execute("ALTER TABLE state.bill ADD CONSTRAINT no CHECK (bill_id <> 'bad')")
    append(service, deliveries([body(bill="good"), body(bill="bad")]))
    drain(service)
    assert one(service, "SELECT bill_id FROM state.parked_bill") == "bad"
    run(database_url)
    assert one(service, "SELECT count(*) FROM state.parked_bill") == 0
    assert one(service, "SELECT count(*) FROM state.bill") == 2


# --- readers, writers and projectors beside it ------------------------------------------------


@contextmanager
def polled(url: str) -> Iterator[list[tuple[int, int]]]:
    """Read the state all the time; give what was read, as (position, bills)."""
    seen: list[tuple[int, int]] = []
    stop = threading.Event()

    def read_on() -> None:
        with connect(url, "reader") as connection:
            while not stop.is_set():
                position = one(connection, "SELECT position FROM state.checkpoint")
                bills = one(connection, "SELECT count(*) FROM state.bill")
                reports = one(connection, "SELECT count(*) FROM state.report")
                assert reports
                seen.append((position, bills))

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read_on) for _ in range(2)]
        try:
            wait_until(lambda: len(seen) > 10, "readers read")
            yield seen
            before = len(seen)
            wait_until(lambda: len(seen) > before + 10, "readers read on")
        finally:
            stop.set()
        for reader in readers:
            reader.result()


def test_readers_are_served_throughout(database_url: str, service: Connection) -> None:
    """None misses a table, finds it empty, or sees a position go back."""
    append(service, mixed_history(100))
    drain(service)
    bills = one(service, "SELECT count(*) FROM state.bill")
    with polled(database_url) as seen:
        for number in range(4):
            append(service, [delivery(body(bill=f"new{number}"))])
            if number % 2:
                drain(service)
            run(database_url)
    head = read.head(service)
    assert all(100 - 20 <= position <= head for position, _ in seen)
    assert all(bills <= found <= bills + 4 for _, found in seen)


def test_a_reader_never_sees_a_position_go_back(database_url: str, service: Connection) -> None:
    """Not even when the projector is ahead of where the rebuild began."""
    append(service, mixed_history(50))
    drain(service)
    positions: list[int] = []
    stop = threading.Event()

    def read_on() -> None:
        with connect(database_url, "reader") as connection:
            while not stop.is_set():
                positions.append(one(connection, "SELECT position FROM state.checkpoint"))

    def go_on(done: int, todo: int) -> None:
        assert done <= todo
        append(service, mixed_history(30, seed=done))
        drain(service)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_on)
        for _ in range(3):
            run(database_url, on_progress=go_on)
        stop.set()
        reading.result()
    assert positions == sorted(positions)
    assert positions[-1] == read.head(service)


def test_a_projector_that_is_ahead_at_the_swap_is_caught_up_with(
    database_url: str, service: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(service, mixed_history(20))

    def lock_late(connection: Connection) -> None:
        append(service, mixed_history(5, seed=9))
        drain(service)
        lock_projection(connection)

    monkeypatch.setattr(rebuild, "lock_projection", lock_late)
    made = run(database_url)
    assert made.position == read.head(service) > 20
    assert one(service, "SELECT position FROM state.checkpoint") == made.position


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("near", [0, 10, 2000])
def test_events_that_come_during_a_rebuild_are_in_its_state(
    database_url: str, service: Connection, monkeypatch: pytest.MonkeyPatch, near: int
) -> None:
    monkeypatch.setattr(rebuild, "NEAR", near)
    append(service, mixed_history(60))

    def more(done: int, todo: int) -> None:
        assert done <= todo
        append(service, mixed_history(9, seed=done))

    made = run(database_url, on_progress=more)
    assert made.position == read.head(service) > 60
    rebuilt = state_rows(service)
    service.execute("DROP SCHEMA state CASCADE")
    store.create(service, "state")
    drain(service)
    assert state_rows(service) == rebuilt


def test_an_append_that_is_under_way_holds_nobody_up_for_ever(
    database_url: str, service: Connection
) -> None:
    """The rebuild waits for it, and then has its event."""
    append(service, [delivery(body(bill="B1"))])
    with connect(database_url, "writer") as writer, ThreadPoolExecutor(1) as pool:
        writer.autocommit = False
        append(writer, [delivery(body(bill="B2"))])
        rebuilding = pool.submit(run, database_url)
        wait_until(lambda: sessions_named(service, "rebuild"), "the rebuild has begun")
        writer.commit()
        assert rebuilding.result().position == 2


# --- interruptions ----------------------------------------------------------------------------


def test_a_second_rebuild_is_refused_and_the_first_goes_on(
    database_url: str, service: Connection
) -> None:
    append(service, mixed_history(20))
    refusals: list[str] = []

    def again(done: int, todo: int) -> None:
        assert done <= todo
        with pytest.raises(RebuildError) as refused:
            run(database_url)
        refusals.append(str(refused.value))

    assert run(database_url, on_progress=again).position == read.head(service)
    assert "rebuild" in refusals[0]


def test_a_rebuild_beside_a_verify_does_not_blame_a_rebuild_alone(
    database_url: str, service: Connection
) -> None:
    service.execute("SELECT pg_advisory_lock_shared(7402, 5)")
    with pytest.raises(RebuildError, match="verify"):
        run(database_url)


def test_what_an_interrupted_rebuild_left_is_removed(
    database_url: str, service: Connection
) -> None:
    append(service, mixed_history(20))
    drain(service)
    live = state_rows(service)
    for schema in ("state_next", "state_old"):
        store.create(service, schema)
        service.execute(f"CREATE TABLE {schema}.rebuild (events_done bigint)".encode())
    run(database_url)
    assert leftovers(service) == []
    assert state_rows(service) == live


@pytest.mark.usefixtures("small_chunks")
def test_a_rebuild_whose_session_is_lost_leaves_the_live_state_and_can_be_repeated(
    database_url: str, service: Connection, owner: Connection
) -> None:
    append(service, mixed_history(60))
    drain(service)
    live = state_rows(service)

    def lose(done: int, todo: int) -> None:
        if done * 2 > todo:
            terminate(owner, *sessions_named(owner, "rebuild"))

    with pytest.raises(psycopg.OperationalError):
        run(database_url, on_progress=lose)
    assert state_rows(service) == live
    run(database_url)
    assert state_rows(service) == live
    assert leftovers(service) == []


def test_a_rebuild_of_which_a_process_is_killed_says_so_and_can_be_repeated(
    database_url: str, service: Connection
) -> None:
    append(service, mixed_history(60))
    drain(service)
    live = state_rows(service)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "chunks", partial(chunks, events=2))

        def kill(done: int, todo: int) -> None:
            assert done <= todo
            for child in multiprocessing.active_children():
                child.kill()

        with pytest.raises(LedgerError, match="run it again"):
            run(database_url, processes=2, on_progress=kill)
    assert state_rows(service) == live
    run(database_url)
    assert state_rows(service) == live


def test_a_rebuild_that_the_listener_interrupts_leaves_the_live_state(
    database_url: str, service: Connection
) -> None:
    """As Ctrl-C does."""
    append(service, mixed_history(20))
    drain(service)
    live = state_rows(service)

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(database_url, on_progress=interrupt)
    assert state_rows(service) == live
    run(database_url)
    assert state_rows(service) == live


@pytest.mark.parametrize("error", [KeyboardInterrupt, psycopg.errors.DiskFull])
def test_a_rebuild_that_ends_in_the_midst_of_a_chunk_leaves_the_live_state(
    database_url: str,
    service: Connection,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    append(service, mixed_history(200))
    drain(service)
    live = state_rows(service)
    folded = count()

    def fail(projected: Projected, key: Key, log_rows: Iterable[LogRow]) -> int:
        if next(folded) == 2:
            next(iter(log_rows))
            raise error
        return add_history(projected, key, log_rows)

    with monkeypatch.context() as patch:
        patch.setattr(fold_share, "add_history", fail)
        patch.setattr(parallel, "FETCH", 2)
        with pytest.raises(error):
            run(database_url)
    assert state_rows(service) == live
    run(database_url)
    assert state_rows(service) == live
    assert leftovers(service) == []


# --- chunks -----------------------------------------------------------------------------------

HOSTILE_NAMES = ("'", "''", "\\", '"', "%s", "{}", "a b", "é", "Z", "a", "\U0001f9ea", "\x01")


@pytest.mark.parametrize("size", [1, 2, 3, 10, 49, 50, 1000])
def test_chunks_of_any_size_hold_each_bill_whole_and_once(undone: Connection, size: int) -> None:
    chance = random.Random(size)
    events = [b"broken %d" % number for number in range(12)]
    events += [
        body(lab=lab, bill=bill, at=at)
        for lab in HOSTILE_NAMES
        for bill in chance.sample(HOSTILE_NAMES, 3)
        for at in range(chance.randrange(1, 4))
    ]
    append(undone, deliveries(events))
    found: list[tuple[str, str, int]] = []
    groups: list[tuple[str, str]] = []
    cut = list(chunks(undone, events=size))
    for chunk in cut:
        with undone.transaction():
            for key, history in histories(undone, chunk, len(events)):
                groups.append(key)
                found += [(row.lab_id, row.bill_id, row.position) for row in history]
    stored = undone.execute(
        "SELECT lab_id, bill_id, position FROM ledger.event_log ORDER BY lab_id, bill_id"
    ).fetchall()
    assert sorted(found) == sorted(stored)
    assert len(groups) == len(set(groups))
    assert groups == sorted(groups, key=lambda key: (key[0].encode(), key[1].encode()))
    assert (cut[0].after, cut[-1].last) == (None, None)
    assert [chunk.last for chunk in cut[:-1]] == [chunk.after for chunk in cut[1:]]
    assert len(cut) >= len(events) // (size + 12)


def test_the_history_of_a_chunk_ends_at_the_given_position(undone: Connection) -> None:
    append(undone, deliveries(body(at=at) for at in range(5)))
    with undone.transaction():
        read_rows = histories(undone, Chunk(None, None), 3)
        found = [row.position for _, rows in read_rows for row in rows]
    assert sorted(found) == [1, 2, 3]


def test_an_empty_log_is_one_empty_chunk(undone: Connection) -> None:
    assert list(chunks(undone)) == [Chunk(None, None)]
    with undone.transaction():
        assert list(histories(undone, Chunk(None, None), 10)) == []
