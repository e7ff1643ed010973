"""The verification: finds nothing where all is well, and names what is not."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from psycopg import Connection

from ledger.errors import FoldVersionError, LedgerError, RebuildError
from ledger.eventlog import read
from ledger.eventlog.append import append
from ledger.model.bill import FOLD_VERSION
from ledger.postgres.connect import connect
from ledger.projection import fold_bills, parallel, verify
from ledger.projection.parallel import chunks
from ledger.projection.projector import Projector
from ledger.projection.rows import COLUMNS
from ledger.projection.verify import Verified
from ledger.projection.verify_log import LogJob, check_log
from tests.support.histories import body, deliveries, mixed_history
from tests.support.sessions import LONG, drain, one, tamper, wait_until

pytestmark = pytest.mark.slow


def run(url: str, *, processes: int = 1) -> Verified:
    return verify.verify(url, processes=processes, on_progress=lambda *_: None)


def words(url: str) -> str:
    difference = run(url).difference
    return difference.words if difference else ""


def fill(connection: Connection) -> None:
    """Make a log of eight events, with a row in each table but that of the parked bills."""
    events = [
        body(bill="B1"),
        body("report.completed", bill="B1", tests={"T1": "completed"}),
        body("bill.completed", bill="B1", tests={"T1": "completed", "T2": "completed"}),
        b"broken",
        body(bill="B2"),
        body("bill.completed", bill="B2", tests={"T1": "completed"}),
        body("lead.created", bill="B2"),
        body(bill="B3"),
    ]
    append(connection, deliveries(events))
    drain(connection)


def test_several_processes_find_nothing_where_all_is_well(
    database_url: str, service: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "RANGE", 50)
    monkeypatch.setattr(parallel, "chunks", partial(chunks, events=20))
    append(service, mixed_history(300))
    drain(service)
    head = read.head(service)
    bills = one(service, "SELECT count(*) FROM state.bill")
    told: list[tuple[int, int]] = []
    found = verify.verify(database_url, processes=2, on_progress=lambda *done: told.append(done))
    assert found == Verified(head, head, bills, None)
    assert told[-1] == (2 * head, 2 * head)


def test_an_empty_log_is_well(database_url: str) -> None:
    assert run(database_url) == Verified(0, 0, 0, None)


def test_a_state_that_lags_behind_is_compared_at_its_own_position(
    database_url: str, service: Connection
) -> None:
    fill(service)
    append(service, deliveries([body("bill.deleted", bill="B1"), b"new", body(bill="B4")]))
    assert run(database_url) == Verified(11, 8, 3, None)


def test_a_parked_bill_whose_fold_still_fails_is_no_difference(
    database_url: str, service: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fold(*_: object) -> None:
        raise ZeroDivisionError("always")

    monkeypatch.setattr(fold_bills, "fold", fold)
    append(service, deliveries([body()]))
    drain(service)
    assert one(service, "SELECT count(*) FROM state.parked_bill") == 1
    assert run(database_url).difference is None


LOG = {
    "gap": ("DELETE FROM ledger.event_log WHERE position = 3", "position 3 is missing"),
    "gap at the beginning": (
        "DELETE FROM ledger.event_log WHERE position = 1",
        "position 1 is missing",
    ),
    "doubled position": (
        "UPDATE ledger.event_log SET position = 5 WHERE position = 8",
        "position 5 stands in the log twice",
    ),
    "body": (
        "UPDATE ledger.event_log SET body = body || '{}' WHERE position = 5",
        "the digest of position 5",
    ),
    "body that is no JSON": (
        "UPDATE ledger.event_log SET body = 'Broken' WHERE position = 4",
        "the digest of position 4",
    ),
    "digest": (
        "UPDATE ledger.event_log SET digest = sha256('x') WHERE position = 6",
        "the digest of position 6",
    ),
    "lab": ("UPDATE ledger.event_log SET lab_id = 'M' WHERE position = 2", "lab_id of position 2"),
    "bill": (
        "UPDATE ledger.event_log SET bill_id = 'B3' WHERE position = 2",
        "bill_id of position 2",
    ),
    "type": (
        "UPDATE ledger.event_log SET event_type = 'bill.deleted' WHERE position = 8",
        "event_type of position 8",
    ),
    "time": (
        "UPDATE ledger.event_log SET event_time = event_time + interval '1 s' WHERE position = 7",
        "event_time of position 7",
    ),
    "no time": (
        "UPDATE ledger.event_log SET event_time = NULL WHERE position = 7",
        "event_time of position 7",
    ),
    "a time that no body says": (
        "UPDATE ledger.event_log SET event_time = '1970-01-01Z' WHERE position = 4",
        "event_time of position 4",
    ),
}


@pytest.mark.parametrize("ranges", [20_000, 2, 1])
@pytest.mark.parametrize("change", LOG)
def test_a_change_of_the_log_is_named_with_its_position(
    undone: Connection, change: str, ranges: int
) -> None:
    """However the log is cut into stretches."""
    statement, expected = LOG[change]
    fill(undone)
    tamper(undone, statement)
    head = one(undone, "SELECT max(position) FROM ledger.event_log")
    checked = [
        check_log(undone, LogJob(after, min(after + ranges, head)))
        for after in range(0, head, ranges)
    ]
    found = [job.difference for job in checked if job.difference is not None]
    assert expected in min(found, key=lambda difference: difference.place).words


@pytest.mark.parametrize("change", ["gap", "body", "time"])
def test_a_broken_log_is_named_before_the_state_that_was_made_of_it(
    database_url: str, service: Connection, owner: Connection, change: str
) -> None:
    statement, expected = LOG[change]
    fill(service)
    owner.execute("UPDATE state.bill SET position = 99")
    tamper(owner, statement)
    assert expected in words(database_url)


def copied(table: str, row: str, **changed: str) -> str:
    """Write the statement that adds a copy of a row with other values in some columns."""
    columns = ", ".join(COLUMNS[table])
    values = ", ".join(changed.get(column, column) for column in COLUMNS[table])
    return f"INSERT INTO state.{table} ({columns}) SELECT {values} FROM state.{table} WHERE {row}"


STATE = {
    "bill changed": (
        "UPDATE state.bill SET state = 'open' WHERE bill_id = 'B2'",
        ["state.bill L/B2", "state is open", "completed"],
    ),
    "position changed": (
        "UPDATE state.bill SET position = 4 WHERE bill_id = 'B1'",
        ["state.bill L/B1", "position is 4", "3"],
    ),
    "missing events counted": (
        "UPDATE state.bill SET missing = 7 WHERE bill_id = 'B1'",
        ["state.bill L/B1", "missing is 7"],
    ),
    "status changed": (
        "UPDATE state.bill SET flabs_status = 'x' WHERE bill_id = 'B3'",
        ["state.bill L/B3", "flabs_status is x"],
    ),
    "findings changed": (
        "UPDATE state.bill SET findings = '{x}' WHERE bill_id = 'B1'",
        ["state.bill L/B1", "findings is ['x']"],
    ),
    "report changed": (
        "UPDATE state.report SET test_id = 'T9' WHERE bill_id = 'B2' AND test_id = 'T1'",
        ["state.report L/B2/T", "the fold has"],
    ),
    "report no longer completed": (
        "UPDATE state.report SET completed_at = NULL WHERE bill_id = 'B2' AND test_id = 'T1'",
        ["state.report L/B2/T1", "completed_at is null"],
    ),
    "integrator changed": (
        "UPDATE state.bill SET integrator_id = 'x' WHERE bill_id = 'B1'",
        ["state.bill L/B1", "integrator_id is x", "null"],
    ),
    "bill missing": ("DELETE FROM state.bill WHERE bill_id = 'B2'", ["state.bill L/B2", "missing"]),
    "bill extra": (
        copied("bill", "bill_id = 'B1'", bill_id="'B0'"),
        ["state.bill L/B0", "should not be there"],
    ),
    "bill extra, after the last": (
        copied("bill", "bill_id = 'B1'", lab_id="'zzz'", bill_id="'zzz'"),
        ["state.bill zzz/zzz", "should not be there"],
    ),
    "missing event changed": (
        "UPDATE state.missing_event SET evidence_received_at = now() WHERE bill_id = 'B2'",
        ["state.missing_event L/B2", "T1", "evidence_received_at"],
    ),
    "missing event counted": (
        "UPDATE state.missing_event SET count = 2 WHERE bill_id = 'B2'",
        ["state.missing_event L/B2", "T1", "count is 2", "1"],
    ),
    "missing event missing": (
        "DELETE FROM state.missing_event WHERE bill_id = 'B1'",
        ["state.missing_event L/B1", "T2", "missing"],
    ),
    "missing event extra": (
        copied("missing_event", "bill_id = 'B1'", event_type="'bill.deleted'"),
        ["state.missing_event L/B1", "bill.deleted", "should not be there"],
    ),
    "unreadable event changed": (
        "UPDATE state.unreadable_event SET reason = 'wrong_type'",
        ["state.unreadable_event", "4", "reason is wrong_type", "not_json"],
    ),
    "unreadable event missing": (
        "DELETE FROM state.unreadable_event",
        ["state.unreadable_event", "4", "is missing"],
    ),
    "unreadable event extra": (
        "INSERT INTO state.unreadable_event VALUES ('L', 'B3', 8, 'not_json', '$', '')",
        ["state.unreadable_event L/B3/8", "should not be there"],
    ),
    "parked bill extra": (
        "INSERT INTO state.parked_bill VALUES ('L', 'B3', 8, 'an error')",
        ["state.parked_bill L/B3", "should not be there"],
    ),
}


@pytest.mark.parametrize("size", [20_000, 1])
@pytest.mark.parametrize("change", STATE)
def test_a_change_of_the_state_is_named_with_its_row(
    undone: Connection, change: str, size: int
) -> None:
    statement, expected = STATE[change]
    fill(undone)
    assert undone.execute(statement.encode()).rowcount == 1
    checked = [
        verify.check_state(undone, verify.StateJob(chunk, 8))
        for chunk in chunks(undone, events=size)
    ]
    [found] = [job.difference for job in checked if job.difference is not None]
    for part in expected:
        assert part in found.words


def test_a_parked_bill_that_is_not_listed_is_named(
    database_url: str, service: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fold(*_: object) -> None:
        raise ZeroDivisionError("always")

    monkeypatch.setattr(fold_bills, "fold", fold)
    append(service, deliveries([body()]))
    drain(service)
    service.execute("DELETE FROM state.parked_bill")
    assert words(database_url) == "state.parked_bill L/B is missing: the fold has it"


def test_the_first_of_several_differences_is_named(
    database_url: str, service: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "chunks", partial(chunks, events=1))
    fill(service)
    service.execute("UPDATE state.bill SET position = 99")
    assert "state.bill L/B1" in words(database_url)


def test_a_state_beyond_the_end_of_the_log_is_named(database_url: str, service: Connection) -> None:
    """The projector would skip the events that come next."""
    fill(service)
    service.execute("UPDATE state.checkpoint SET position = 20")
    found = words(database_url)
    assert "20" in found
    assert "8" in found


def test_a_last_event_that_is_gone_is_named(
    database_url: str, service: Connection, owner: Connection
) -> None:
    fill(service)
    tamper(owner, "DELETE FROM ledger.event_log WHERE position = 8")
    assert "8" in words(database_url)


def test_writers_and_a_projector_beside_it_cause_no_false_alarm(
    database_url: str, service: Connection
) -> None:
    append(service, mixed_history(100))
    stop = threading.Event()
    projector = Projector(database_url)

    def write() -> int:
        batches = 0
        with connect(database_url, "writer") as connection:
            while not stop.is_set():
                append(connection, mixed_history(20, seed=100 + batches))
                batches += 1
        return batches

    with ThreadPoolExecutor(2) as pool:
        following = pool.submit(projector.run)
        wait_until(
            lambda: one(service, "SELECT position FROM state.checkpoint") >= 90, "it follows"
        )
        writing = pool.submit(write)
        try:
            found = run(database_url, processes=2)
        finally:
            stop.set()
            projector.stop()
        assert writing.result(LONG) > 1
        following.result(LONG)
    assert found.difference is None
    assert found.head > found.bills > 0
    assert read.head(service) > found.head


def test_it_is_refused_while_a_rebuild_runs(database_url: str, service: Connection) -> None:
    service.execute("SELECT pg_advisory_lock(7402, 5)")
    with pytest.raises(RebuildError, match="rebuild runs"):
        run(database_url)


def test_two_may_run_at_once(database_url: str, service: Connection) -> None:
    fill(service)
    service.execute("SELECT pg_advisory_lock_shared(7402, 5)")
    assert run(database_url).difference is None


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        (f"UPDATE state.checkpoint SET fold_version = {FOLD_VERSION + 1}", FoldVersionError),
        ("DELETE FROM state.checkpoint", LedgerError),
        ("DROP SCHEMA state CASCADE", LedgerError),
    ],
)
def test_state_that_is_none_says_to_rebuild(
    database_url: str, service: Connection, statement: str, error: type[LedgerError]
) -> None:
    service.execute(statement.encode())
    with pytest.raises(error, match="ledger rebuild"):
        run(database_url)
