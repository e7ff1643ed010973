"""What decisions make in the state: the same however it was made, and nothing else unseen."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection

from ledger.eventlog import read
from ledger.eventlog.append import Delivery, append
from ledger.model.bill import Bill
from ledger.model.bill import fold as real_fold
from ledger.model.operator_events import AnyDecision
from ledger.postgres.connect import connect
from ledger.projection import fold_bills, store, verify
from ledger.projection.rows import COLUMNS
from tests.support.decisions import (
    PARKED,
    Log,
    decided,
    decisions_of_known,
    expected_bill,
    report_of,
    request_closed,
    request_made,
    requested,
    some_decisions,
    some_events,
    span,
    subscribed,
    subscribed_at_flabs,
    waived,
    window_closed,
)
from tests.support.examples import examples
from tests.support.histories import RECEIVED, body
from tests.support.sessions import drain, one, state_rows

pytestmark = pytest.mark.slow

few = settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def told(draw: st.DrawFn, decisions: st.SearchStrategy[AnyDecision]) -> list[Delivery]:
    """Draw events and decisions in one order; each event at a time and from a source of its own."""
    made: dict[bytes, Delivery] = {}
    for number, event in enumerate(draw(st.lists(some_events, max_size=10))):
        moment = RECEIVED + timedelta(microseconds=7 * number)
        source = draw(st.sampled_from(["webhook", "webhook", "import"]))
        delivery = Delivery.of(event, received_at=moment, source=source)  # type: ignore[arg-type]
        made.setdefault(delivery.columns.digest, delivery)
    taken = draw(st.lists(decisions.map(decided), max_size=12))
    return draw(st.permutations([*made.values(), *taken]))


def cut(draw: st.DataObject, given: list[Delivery]) -> list[list[Delivery]]:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(given)), max_size=4)))
    return [given[a:b] for a, b in pairwise([0, *cuts, len(given)])]


def fold_but_one(lab_id: str, bill_id: str, *history: Any) -> Bill:  # noqa: ANN401 -- as fold's
    if bill_id == PARKED:
        raise ZeroDivisionError("always")
    return real_fold(lab_id, bill_id, *history)


@pytest.fixture(scope="module")
def connections(module_database_url: str) -> Iterator[tuple[Connection, Connection]]:
    """Give a superuser's connection to empty the log with, and the service's to use it."""
    with (
        psycopg.connect(module_database_url, autocommit=True) as owner,
        connect(module_database_url, "test") as service,
    ):
        name = owner.info.dbname
        owner.execute(f"GRANT CREATE ON DATABASE {name} TO ledger_service".encode())
        read.keep_to_indexes(service)
        yield owner, service


@pytest.fixture
def log(connections: tuple[Connection, Connection], monkeypatch: pytest.MonkeyPatch) -> "Log":
    monkeypatch.setattr(fold_bills, "fold", fold_but_one)
    return Log(*connections)


@few
@given(told(some_decisions), st.data(), st.integers(1, 6), st.integers(1, 8))
def test_any_batching_and_a_rebuild_give_the_same_rows(
    log: Log, given: list[Delivery], data: st.DataObject, limit: int, size: int
) -> None:
    expected = log.follow([given], 1000)
    assert log.follow(cut(data, given), limit) == expected
    assert log.verify_and_rebuild(size) is None
    assert state_rows(log.service) == expected


@few
@given(told(decisions_of_known), st.data(), st.integers(1, 6))
def test_the_order_of_events_decides_nothing(
    log: Log, given: list[Delivery], data: st.DataObject, limit: int
) -> None:
    """Among each other and among the decisions, which stay in their order."""
    log.follow([given], 1000)
    expected = log.said()
    order = data.draw(st.permutations(range(len(given))))
    decisions = iter([one for one in given if one.source == "operator"])
    shuffled = [
        next(decisions) if given[place].source == "operator" else given[place] for place in order
    ]
    log.follow(cut(data, shuffled), limit)
    assert log.said() == expected


def test_two_lines_of_one_name_are_one_in_a_rebuild_too(log: Log) -> None:
    """As of two logs that were merged, each of which had a request 1."""
    log.empty()
    events = [Delivery.of(body("bill.completed"), received_at=RECEIVED, source="webhook")]
    append(log.service, [*events, decided(requested(when=1)), decided(requested(when=2))])
    drain(log.service)
    live = state_rows(log.service)
    assert (len(live["request_line"]), live["parked_bill"]) == (1, [])
    assert log.verify_and_rebuild(1) is None
    assert state_rows(log.service) == live


def test_of_an_id_expected_of_two_labs_the_last_counts_in_a_rebuild_too(log: Log) -> None:
    """Which reads the labs in their order, each with all that was said of it."""
    log.empty()
    labs = ["L2", "L3", "L1"]
    append(log.service, [decided(expected_bill("one", n, lab=lab)) for n, lab in enumerate(labs)])
    drain(log.service)
    live = state_rows(log.service)
    assert one(log.service, "SELECT lab_id FROM state.expected_bill") == "L1"
    assert log.verify_and_rebuild(1) is None
    assert state_rows(log.service) == live


# --- tampering --------------------------------------------------------------------------------

OTHER_COLUMNS = {
    "expected_bill": ("integrator_id", "lab_id", "position", "expected_by", "is_seen"),
    "lab": ("lab_id", "first_received_at", "last_received_at"),
    "delay": ("lab_id", "day", "seconds", "deliveries"),
    "lab_hour": ("lab_id", "hour", "events", "last_received_at"),
}
TAMPERED = {
    table: tuple((COLUMNS | OTHER_COLUMNS)[table])
    for table in store.TABLES
    if table not in {"bill", "unreadable_event", "parked_bill"}
}
CHANGED = {
    "text": "coalesce({column}, '') || 'x'",
    "integer": "coalesce({column}, 0) + 100",
    "bigint": "coalesce({column}, 0) + 100",
    "boolean": "NOT {column}",
    "date": "{column} + 1",
    "timestamp with time zone": "coalesce({column}, now()) + interval '1 s'",
    "json": "'{{}}'",
    "ARRAY": "'{{x}}'",
}
"""By type, another value."""

LAST_ROW = "ctid = (SELECT max(ctid) FROM state.{})"

_TYPE = """
SELECT data_type FROM information_schema.columns
WHERE table_schema = 'state' AND table_name = %s AND column_name = %s
"""


def fill(connection: Connection) -> None:
    """Make rows in every table that decisions fill."""
    events = [
        body("bill.completed", tests={"a": "completed"}, integratorID="one"),
        body("bill.completed", at=9, tests={"b": "completed"}, integratorID="two"),
        body("bill.completed", lab="filled", tests={"a": "completed"}),
    ]
    append(
        connection,
        [
            *(Delivery.of(one, received_at=RECEIVED, source="webhook") for one in events),
            decided(requested()),
            decided(waived(report_of("a"))),
            decided(requested(report_of("b"))),
            decided(request_made(windows=[span(RECEIVED, RECEIVED, "L")], lines=2)),
            decided(request_closed()),
            decided(window_closed(span(RECEIVED, RECEIVED, "L"))),
            decided(subscribed("L", ["bill.created"])),
            decided(subscribed_at_flabs("L", "bill.created")),
            decided(expected_bill()),
            decided(expected_bill("never", lab="L")),
            decided(expected_bill("never", 5, when=5)),
        ],
    )
    drain(connection)


@pytest.fixture
def filled(log: Log) -> Log:
    if one(log.service, "SELECT count(*) FROM ledger.event_log WHERE lab_id = 'filled'") == 0:
        log.empty()
        fill(log.service)
        assert found_by_verify(log) == ""
    return log


def found_by_verify(log: Log) -> str:
    found = verify.verify(log.url, processes=1, on_progress=lambda *_: None).difference
    return found.words if found else ""


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table in TAMPERED for column in TAMPERED[table]]
)
def test_a_changed_field_of_any_row_is_found(filled: Log, table: str, column: str) -> None:
    kind = one(filled.service, _TYPE, table, column)
    value = CHANGED[kind].format(column=column)
    change = f"UPDATE state.{table} SET {column} = {value} WHERE {LAST_ROW.format(table)}"
    with filled.undone(table):
        assert filled.service.execute(change.encode()).rowcount == 1
        assert f"state.{table} " in found_by_verify(filled)


@pytest.mark.parametrize("table", TAMPERED)
def test_a_row_too_few_or_too_many_is_found(filled: Log, table: str) -> None:
    columns = TAMPERED[table]
    rest = ", ".join(columns[1:])
    fewer = f"DELETE FROM state.{table} WHERE {LAST_ROW.format(table)}"
    more = f"INSERT INTO state.{table} ({', '.join(columns)}) SELECT 'other', {rest}"
    for statement in (fewer, f"{more} FROM state.{table} LIMIT 1"):
        with filled.undone(table):
            assert filled.service.execute(statement.encode()).rowcount == 1
            assert f"state.{table} " in found_by_verify(filled)


def test_every_column_of_every_table_was_tampered_with(filled: Log) -> None:
    query = (
        "SELECT array_agg(column_name::text) FROM information_schema.columns"
        " WHERE table_schema = 'state' AND table_name = %s"
    )
    for table, columns in TAMPERED.items():
        assert set(one(filled.service, query, table)) == set(columns)
