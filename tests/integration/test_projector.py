"""Following the log: batches, the checkpoint, leaders, parked bills."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import Connection
from structlog.testing import capture_logs

from ledger import schema
from ledger.errors import CheckpointError, FoldVersionError, LedgerError
from ledger.eventlog import read
from ledger.eventlog.append import append
from ledger.eventlog.read import LogRow
from ledger.model import bill as bill_module
from ledger.model.bill import FOLD_VERSION, Bill
from ledger.model.bill_history import LoggedEvent
from ledger.model.operator_events import LoggedDecision
from ledger.postgres.connect import connect
from ledger.projection import fold_bills, histories, projector, store
from ledger.projection.projector import Batch, Projector, follow_once
from ledger.projection.rebuild import rebuild_bill
from tests.support.histories import RECEIVED, START, body, deliveries, delivery, mixed_history
from tests.support.postgres import PrivateServer
from tests.support.sessions import (
    LONG,
    drain,
    in_thread,
    one,
    pid_of,
    sessions_named,
    state_rows,
    state_without_positions,
    terminate,
    wait_until,
    wait_until_blocked,
)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a projector try again at once, so that no test waits for its pauses."""
    monkeypatch.setattr(projector, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(projector, "POLL_SECONDS", 0.05)


def position(connection: Connection) -> int:
    return store.read_checkpoint(connection).position


def bills(connection: Connection) -> list[str]:
    query = "SELECT bill_id FROM state.bill ORDER BY bill_id"
    return [bill for (bill,) in connection.execute(query)]


def parked(connection: Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT bill_id, error FROM state.parked_bill"))


def append_bills(connection: Connection, *names: str) -> None:
    append(connection, deliveries(body(bill=name) for name in names))


# --- one batch --------------------------------------------------------------------------------


def test_a_batch_ends_where_its_bodies_become_many_bytes(service: Connection) -> None:
    large = [b"%04d" % number + b"x" * 1024 * 1024 for number in range(40)]
    append(service, deliveries(large[:20]))
    append(service, deliveries(large[20:]))
    sizes = []
    while batch := follow_once(service, 40).events:
        sizes.append(batch)
    assert sum(sizes) == 40
    assert max(sizes) * 1024 * 1024 <= read.BATCH_BYTES + 2 * 1024 * 1024


def test_a_batch_takes_the_next_events_and_no_more_than_the_limit(service: Connection) -> None:
    append_bills(service, "B1", "B2", "B3", "B4", "B5")
    assert follow_once(service, 5, limit=2) == Batch(events=2, bills=2, position=2)
    assert bills(service) == ["B1", "B2"]
    assert follow_once(service, 5, limit=2).position == 4
    assert follow_once(service, 5, limit=2) == Batch(events=1, bills=1, position=5)
    assert follow_once(service, 5, limit=2) == Batch(events=0, bills=0, position=5)


def test_a_batch_takes_nothing_after_the_given_position(service: Connection) -> None:
    append_bills(service, "B1", "B2", "B3")
    assert follow_once(service, 2).position == 2
    assert bills(service) == ["B1", "B2"]


def test_a_bill_whose_events_fall_into_several_batches_is_one(service: Connection) -> None:
    for limit in (1, 2):
        append_bills(service, f"other{limit}")
        append(service, [delivery(body(at=limit)), delivery(body("bill.completed", at=limit + 5))])
        while follow_once(service, read.head(service), limit=limit).events:
            pass
    query = "SELECT events FROM state.bill WHERE bill_id = 'B'"
    assert one(service, query) == 4


def test_the_rows_of_a_bill_that_was_folded_before_are_replaced(service: Connection) -> None:
    append(service, [delivery(body("bill.completed", tests={"T1": "completed"}))])
    drain(service)
    assert one(service, "SELECT count(*) FROM state.missing_event") == 2
    append(service, [delivery(body()), delivery(body("report.completed", tests={"T2": "open"}))])
    drain(service)
    tests = service.execute("SELECT test_id FROM state.report ORDER BY 1").fetchall()
    assert tests == [("T1",), ("T2",)]
    missing = service.execute("SELECT event_type, test_id FROM state.missing_event").fetchall()
    assert missing == [("report.completed", "T1")]


def test_events_of_other_types_and_unreadable_ones_move_the_checkpoint(
    service: Connection,
) -> None:
    append(service, deliveries([body("lead.created"), b"hello"]))
    assert follow_once(service, 2) == Batch(events=2, bills=0, position=2)
    assert bills(service) == []
    found = service.execute("SELECT position, reason FROM state.unreadable_event").fetchall()
    assert found == [(2, "not_json")]


def test_a_slice_smaller_than_the_batch_gives_the_same_state(
    service: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(service, mixed_history(120))
    monkeypatch.setattr(histories, "SLICE", 3)
    drain(service)
    sliced = state_rows(service)
    with service.transaction(force_rollback=True):
        service.execute("DROP SCHEMA state CASCADE")
        store.create(service, "state")
        monkeypatch.undo()
        drain(service)
        assert state_rows(service) == sliced


def test_times_in_the_state_are_utc_whatever_the_database_s_zone(
    database_url: str, owner: Connection
) -> None:
    owner.execute(f"ALTER DATABASE {owner.info.dbname} SET timezone = 'Asia/Kolkata'".encode())
    with connect(database_url, "test") as connection:
        append(connection, [delivery(body())])
        drain(connection)
        received_at = one(connection, "SELECT first_received_at FROM state.lab")
        of_bill = one(connection, "SELECT first_received_at FROM state.bill")
    assert received_at == of_bill == RECEIVED
    assert received_at.utcoffset() == of_bill.utcoffset() == timedelta(0)


# --- the checkpoint ---------------------------------------------------------------------------


def test_a_checkpoint_that_somebody_moves_meanwhile_fails_the_whole_batch(
    service: Connection, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(service, deliveries([body(bill="B1"), b"hello", body(bill="B2")]))
    reading = read.after

    def move_it(connection: Connection, *arguments: int) -> Iterator[LogRow]:
        owner.execute("UPDATE state.checkpoint SET position = 1")
        return reading(connection, *arguments)

    monkeypatch.setattr(read, "after", move_it)
    with pytest.raises(CheckpointError):
        follow_once(service, 3)
    assert (bills(service), position(service)) == ([], 1)
    assert one(service, "SELECT count(*) FROM state.unreadable_event") == 0


@contextmanager
def stopped_at_the_checkpoint(owner: Connection, service: Connection) -> Iterator[None]:
    """Have a batch wait, all its rows written, when it is about to move the checkpoint."""
    owner.execute(
        """
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_advisory_xact_lock(1, 1);
            RETURN NEW;
        END $$;
        CREATE TRIGGER wait BEFORE UPDATE ON state.checkpoint
            FOR EACH ROW EXECUTE FUNCTION wait();
        SELECT pg_advisory_lock(1, 1);
        """
    )
    with in_thread(lambda: _failing(lambda: follow_once(service, 3))):
        wait_until_blocked(owner, pid_of(service))
        yield
    owner.execute("SELECT pg_advisory_unlock(1, 1); DROP FUNCTION wait CASCADE")


def _failing(work: Callable[[], object]) -> None:
    with pytest.raises(psycopg.OperationalError):
        work()


def test_nobody_sees_rows_of_a_batch_before_its_checkpoint(
    service: Connection, owner: Connection
) -> None:
    append(service, deliveries([body(bill="B1"), b"hello", body(bill="B2")]))
    with stopped_at_the_checkpoint(owner, service):
        assert (bills(owner), position(owner)) == ([], 0)
        assert one(owner, "SELECT count(*) FROM state.unreadable_event") == 0
        terminate(owner, pid_of(service))


def test_a_batch_that_was_cut_off_is_done_again_once(
    database_url: str, service: Connection, owner: Connection
) -> None:
    append(service, deliveries([body(bill="B1"), b"hello", body(bill="B2")]))
    with stopped_at_the_checkpoint(owner, service):
        terminate(owner, pid_of(service))
    assert (bills(owner), position(owner)) == ([], 0)
    with connect(database_url, "test") as again:
        assert drain(again) == 3
        assert bills(again) == ["B1", "B2"]
        assert one(again, "SELECT count(*) FROM state.unreadable_event") == 1


def test_a_checkpoint_without_a_row_says_what_to_do(service: Connection) -> None:
    service.execute("DELETE FROM state.checkpoint")
    with pytest.raises(LedgerError, match="ledger rebuild"):
        follow_once(service, 1)


def test_state_of_another_version_of_the_fold_is_refused_and_left_as_it_is(
    database_url: str, service: Connection
) -> None:
    append_bills(service, "B1")
    drain(service)
    service.execute("UPDATE state.checkpoint SET fold_version = %s", (FOLD_VERSION + 1,))
    before = state_rows(service)
    append_bills(service, "B2")
    with pytest.raises(FoldVersionError, match="ledger rebuild"):
        follow_once(service, 2)
    with pytest.raises(FoldVersionError, match="ledger rebuild"):
        rebuild_bill(database_url, ("L", "B1"))
    assert state_rows(service) == before


# --- projectors -------------------------------------------------------------------------------


@contextmanager
def projecting(url: str, count: int = 1) -> Iterator[list[tuple[Projector, threading.Thread]]]:
    projectors = [Projector(url) for _ in range(count)]
    running = [(one_, threading.Thread(target=one_.run, daemon=True)) for one_ in projectors]
    for _, thread in running:
        thread.start()
    try:
        yield running
    finally:
        for projector, thread in running:
            stop(url, projector, thread)


def stop(url: str, projector: Projector, thread: threading.Thread) -> None:
    projector.stop()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("NOTIFY ledger_event_log")  # in case it waits for one
    thread.join(LONG)
    assert not thread.is_alive()


def leaders(owner: Connection) -> list[int]:
    query = (
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = 7402"
        " AND objid = 4 AND database = (SELECT oid FROM pg_database"
        " WHERE datname = current_database())"
    )
    return [pid for (pid,) in owner.execute(query.encode())]


def reached(connection: Connection, wanted: int) -> None:
    wait_until(lambda: position(connection) == wanted, f"the state is at position {wanted}")


def test_of_many_projectors_one_leads(
    database_url: str, service: Connection, owner: Connection
) -> None:
    with projecting(database_url, 4):
        wait_until(lambda: len(sessions_named(owner, "projector")) == 4, "all are connected")
        for number in range(1, 21):
            append_bills(service, f"B{number}")
            assert len(leaders(owner)) <= 1
        reached(service, 20)
        assert len(leaders(owner)) == 1
    assert len(bills(service)) == 20


def test_another_takes_over_from_a_leader_that_stops(
    database_url: str, service: Connection, owner: Connection
) -> None:
    with projecting(database_url) as first:
        wait_until(lambda: leaders(owner), "the first leads")
        with projecting(database_url):
            wait_until(lambda: len(sessions_named(owner, "projector")) == 2, "the second waits")
            old = leaders(owner)
            stop(database_url, *first[0])
            wait_until(lambda: leaders(owner) not in ([], old), "the second leads")
            append_bills(service, "B")
            reached(service, 1)


def test_another_takes_over_from_a_leader_whose_session_is_lost(
    database_url: str, service: Connection, owner: Connection
) -> None:
    with projecting(database_url, 2):
        wait_until(lambda: leaders(owner), "one leads")
        for number in range(1, 6):
            terminate(owner, *leaders(owner))
            append_bills(service, f"B{number}")
            reached(service, number)
            wait_until(lambda: leaders(owner), "one leads again")
    assert bills(service) == ["B1", "B2", "B3", "B4", "B5"]


def test_a_projector_is_woken_by_a_notification(
    database_url: str,
    service: Connection,
    owner: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(projector, "POLL_SECONDS", 10 * LONG)
    with projecting(database_url):
        wait_until(lambda: leaders(owner), "it leads")
        for number in range(1, 6):
            append_bills(service, f"B{number}")
            reached(service, number)


def test_a_projector_finds_events_of_which_no_notification_came(
    database_url: str, service: Connection, owner: Connection
) -> None:
    append_bills(service, "B1")
    with projecting(database_url):
        reached(service, 1)
        # As the lane writes them, but without its hint.
        event = delivery(body(bill="B2"))
        service.execute(
            "INSERT INTO ledger.event_log SELECT 2, received_at, event_time, source, lab_id,"
            " 'B2', event_type, %s, %s FROM ledger.event_log",
            (event.columns.digest, event.body),
        )
        reached(service, 2)
    assert bills(owner) == ["B1", "B2"]


def test_a_projector_leaves_state_of_another_version_until_it_is_rebuilt(
    database_url: str, service: Connection
) -> None:
    append_bills(service, "B1")
    service.execute("UPDATE state.checkpoint SET fold_version = %s", (FOLD_VERSION + 1,))
    with capture_logs() as said, projecting(database_url):
        wait_until(lambda: "run `ledger rebuild`" in str(said), "it says what to do")
        assert (bills(service), position(service)) == ([], 0)
        service.execute("UPDATE state.checkpoint SET fold_version = %s", (FOLD_VERSION,))
        reached(service, 1)


def test_a_projector_survives_that_the_state_is_dropped_and_made_again(
    database_url: str, service: Connection
) -> None:
    append_bills(service, "B1")
    with projecting(database_url) as running:
        reached(service, 1)
        service.execute("DROP SCHEMA state CASCADE")
        append_bills(service, "B2")
        with connect(database_url, "test") as other:
            read.head(other)
        assert running[0][1].is_alive()
        schema.migrate(database_url)
        reached(service, 2)
    assert bills(service) == ["B1", "B2"]


def test_a_projector_goes_on_after_the_database_crashed(postgres_server: PrivateServer) -> None:
    url = postgres_server.dsn()
    schema.migrate(url)
    with projecting(url) as running:
        with connect(url, "test") as connection:
            append_bills(connection, "B1")
            reached(connection, 1)
        postgres_server.kill()
        postgres_server.start()
        with connect(url, "test") as connection:
            append(connection, deliveries([body(bill="B2"), b"hello", body(bill="B1")]))
            reached(connection, 3)
            assert bills(connection) == ["B1", "B2"]
            assert one(connection, "SELECT count(*) FROM state.unreadable_event") == 1
        assert running[0][1].is_alive()


# --- parked bills -----------------------------------------------------------------------------


@pytest.fixture
def unfoldable(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Have the fold raise for the bill named bad; undo it by `undo()`."""
    with monkeypatch.context() as patch:

        def fold(
            lab_id: str,
            bill_id: str,
            events: list[LoggedEvent],
            decisions: Sequence[LoggedDecision],
        ) -> Bill:
            if bill_id == "bad":
                raise ZeroDivisionError("what no fold\nshould do \x00 \ud800")
            return bill_module.fold(lab_id, bill_id, events, decisions)

        patch.setattr(fold_bills, "fold", fold)
        yield patch


@pytest.mark.usefixtures("unfoldable")
def test_a_bill_that_cannot_be_folded_is_parked_and_the_others_go_on(service: Connection) -> None:
    append_bills(service, "A", "bad", "C")
    assert drain(service) == 3
    assert bills(service) == ["A", "C"]
    assert list(parked(service)) == ["bad"]
    assert parked(service)["bad"].startswith("ZeroDivisionError: what no fold should do")


@pytest.mark.usefixtures("unfoldable")
def test_a_bill_that_becomes_unfoldable_loses_its_rows(service: Connection) -> None:
    append(service, [delivery(body("bill.completed", bill="bad", tests={"T": "completed"}))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold_bills, "fold", bill_module.fold)
        drain(service)
    assert bills(service) == ["bad"]
    append(service, [delivery(body(bill="bad", at=1))])
    drain(service)
    for table in ("bill", "report", "missing_event"):
        assert one(service, f"SELECT count(*) FROM state.{table}") == 0
    assert one(service, "SELECT position FROM state.parked_bill") == 2


def test_a_parked_bill_is_folded_by_its_next_event(
    service: Connection, unfoldable: pytest.MonkeyPatch
) -> None:
    append_bills(service, "bad")
    drain(service)
    unfoldable.undo()
    append(service, [delivery(body(bill="bad", at=9))])
    drain(service)
    assert (bills(service), parked(service)) == (["bad"], {})


def test_a_parked_bill_is_folded_by_a_command(
    database_url: str, service: Connection, unfoldable: pytest.MonkeyPatch
) -> None:
    append_bills(service, "bad")
    drain(service)
    assert "ZeroDivisionError" in str(rebuild_bill(database_url, ("L", "bad")))
    assert list(parked(service)) == ["bad"]
    unfoldable.undo()
    assert rebuild_bill(database_url, ("L", "bad")) is None
    assert (bills(service), parked(service)) == (["bad"], {})


def test_rebuilding_a_bill_of_which_the_log_knows_nothing_says_so(database_url: str) -> None:
    assert "no readable event of bill X of lab L" in str(rebuild_bill(database_url, ("L", "X")))


def test_rebuilding_a_bill_takes_no_event_after_the_checkpoint(
    database_url: str, service: Connection
) -> None:
    append(service, [delivery(body())])
    drain(service)
    before = state_rows(service)
    append(service, [delivery(body("bill.completed", at=4))])
    assert rebuild_bill(database_url, ("L", "B")) is None
    assert state_rows(service) == before


@pytest.fixture
def refused(owner: Connection) -> Callable[[], None]:
    """Have PostgreSQL refuse the rows of the bill named bad; called, it takes them again."""
    owner.execute("ALTER TABLE state.bill ADD CONSTRAINT no CHECK (bill_id <> 'bad')")

    def take_again() -> None:
        owner.execute("ALTER TABLE state.bill DROP CONSTRAINT no")

    return take_again


@pytest.mark.usefixtures("refused")
def test_a_bill_whose_rows_the_database_refuses_is_parked_and_the_others_go_on(
    service: Connection,
) -> None:
    append_bills(service, "A", "bad", "C")
    assert drain(service) == 3
    assert bills(service) == ["A", "C"]
    assert list(parked(service)) == ["bad"]
    assert "violates check constraint" in parked(service)["bad"]


@pytest.mark.usefixtures("refused")
def test_a_disk_that_is_full_parks_no_bill(owner: Connection, service: Connection) -> None:
    owner.execute("""
        CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full';
        END $$;
        CREATE TRIGGER no_room BEFORE INSERT ON state.bill
            FOR EACH ROW WHEN (NEW.bill_id = 'good') EXECUTE FUNCTION no_room();
    """)
    append_bills(service, "bad", "good")
    with pytest.raises(psycopg.errors.DiskFull):
        drain(service)
    assert (parked(service), position(service)) == ({}, 0)
    owner.execute("DROP TRIGGER no_room ON state.bill")
    assert drain(service) == 2
    assert (bills(service), list(parked(service))) == (["good"], ["bad"])


@pytest.mark.usefixtures("refused")
def test_of_a_refused_bill_no_row_stays_in_any_table(service: Connection) -> None:
    event = body("bill.completed", bill="bad", tests={"T": "completed"})
    append(service, [delivery(event), delivery(body(bill="A"))])
    drain(service)
    for table in ("bill", "report", "missing_event"):
        assert one(service, f"SELECT count(*) FROM state.{table} WHERE bill_id = 'bad'") == 0


def test_a_refused_bill_is_tried_again_by_its_next_event_and_by_a_command(
    database_url: str, service: Connection, refused: Callable[[], None]
) -> None:
    append_bills(service, "bad")
    drain(service)
    append(service, [delivery(body(bill="bad", at=9))])
    drain(service)
    assert one(service, "SELECT position FROM state.parked_bill") == 2
    assert "violates check constraint" in str(rebuild_bill(database_url, ("L", "bad")))
    refused()
    assert rebuild_bill(database_url, ("L", "bad")) is None
    assert (bills(service), parked(service)) == (["bad"], {})


def test_each_report_has_its_status_and_its_proof(service: Connection) -> None:
    said: dict[str, str | None] = {"A": "completed", "B": " Completed", "C": "open", "D": None}
    append(service, [delivery(body("bill.completed", at=60, tests=said))])
    append(service, [delivery(body("report.completed", at=30, tests={"A": "completed"}))])
    drain(service)
    query = "SELECT test_id, status, completed_at, evidence FROM state.report ORDER BY 1"
    moment = datetime.fromtimestamp(START, UTC)
    assert service.execute(query).fetchall() == [
        ("A", "completed", moment + timedelta(seconds=30), "report.completed"),
        ("B", " Completed", moment + timedelta(seconds=60), "bill.completed"),
        ("C", "open", None, None),
        ("D", None, None, None),
    ]


def test_a_bill_with_ten_thousand_tests_is_folded(service: Connection) -> None:
    tests: dict[str, str | None] = {f"T{number}": "completed" for number in range(10_000)}
    append(service, [delivery(body("bill.completed", tests=tests))])
    drain(service)
    assert one(service, "SELECT count(*) FROM state.report") == 10_000
    assert one(service, "SELECT count(*) FROM state.missing_event") == 10_001


def test_any_batch_size_gives_the_same_state(service: Connection) -> None:
    append(service, mixed_history(150))
    states = []
    for limit in (1, 7, 1000):
        with service.transaction(force_rollback=True):
            while follow_once(service, 10_000, limit=limit).events:
                pass
            states.append((state_rows(service), state_without_positions(service)))
    assert states[0] == states[1] == states[2]
    assert all(states[0][0][table] for table in ("bill", "report", "missing_event"))
