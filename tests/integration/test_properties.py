"""What must be so of any history: order, repetition and batching decide nothing."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import Connection

from ledger.api.bill_reader import BILLS, stored_bill
from ledger.eventlog import read
from ledger.eventlog.append import Delivery, append
from ledger.model.bill import BillSummary, Report, fold
from ledger.model.bill_history import LoggedEvent
from ledger.postgres.connect import connect
from ledger.projection import parallel, rebuild, verify
from ledger.projection.parallel import chunks
from ledger.projection.projector import follow_once
from ledger.projection.read_event import read_row
from tests.support.examples import examples
from tests.support.histories import RECEIVED, TYPES, body, respelled
from tests.support.sessions import drain, empty_log, state_rows, state_without_positions

pytestmark = pytest.mark.slow

Dump = dict[str, list[tuple[Any, ...]]]

few = settings(
    max_examples=examples(20),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# Few names and times, so that much falls together.
_status = st.sampled_from([None, "completed", " Completed", "pending", "\u0000", ""])
_events = st.builds(
    body,
    st.sampled_from((*TYPES, "report.completed", "bill.completed", "lead.created")),
    bill=st.sampled_from(["B1", "B2"]),
    lab=st.sampled_from(["L1", "L1", "L2"]),
    at=st.integers(0, 3) | st.just(10_000),
    tests=st.none() | st.dictionaries(st.sampled_from(["T1", "T2", "T3"]), _status, max_size=3),
    status=_status,
    integratorID=st.sampled_from([None, "", "one", "two"]),
    reportURL=st.sampled_from([None, "", "https://example.org/1", "\ud800"]),
)
_bodies = _events | st.sampled_from(
    [b"", b"broken", b'{"labID":"L1"}', b'{"data":{"billID":"B1"}}']
)


def _received(events: list[bytes]) -> list[Delivery]:
    """Make deliveries, each received at a time of its own; of equal ones, one."""
    made: dict[bytes, Delivery] = {}
    for number, event in enumerate(events):
        moment = RECEIVED + timedelta(microseconds=7 * number)
        delivery = Delivery.of(event, received_at=moment, source="webhook")
        made.setdefault(delivery.columns.digest, delivery)
    return list(made.values())


histories = st.lists(_bodies, min_size=1, max_size=14).map(_received)


@st.composite
def told_otherwise(draw: st.DrawFn) -> tuple[list[Delivery], list[list[Delivery]]]:
    """Draw a history, and the same events in another order, repeated, respelled and in batches."""
    history = draw(histories)
    again = draw(st.lists(st.sampled_from(history), max_size=10))
    shuffled = draw(st.permutations(history + again))
    told = [
        Delivery.of(
            respelled(delivery.body), received_at=delivery.received_at, source=delivery.source
        )
        if draw(st.booleans()) and not delivery.columns.unreadable
        else delivery
        for delivery in shuffled
    ]
    cuts = sorted(draw(st.lists(st.integers(0, len(told)), max_size=5)))
    edges = [0, *cuts, len(told)]
    return history, [told[a:b] for a, b in pairwise(edges)]


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
def log(connections: tuple[Connection, Connection]) -> "Log":
    return Log(*connections)


class Log:
    """A log that can be emptied for the next example, which nobody but its owner can do."""

    def __init__(self, owner: Connection, service: Connection) -> None:
        self._owner = owner
        self.service = service
        self.url = f"{owner.info.dsn} password={owner.info.password}"

    def empty(self) -> None:
        empty_log(self._owner)

    def state_after(self, batches: list[list[Delivery]], limit: int) -> Dump:
        """Return the state that the projector makes, following between the batches."""
        self.empty()
        for batch in batches:
            append(self.service, batch)
            follow_once(self.service, read.head(self.service), limit=limit)
        while follow_once(self.service, read.head(self.service), limit=limit).events:
            pass
        return state_without_positions(self.service)


@few
@given(told=told_otherwise(), limit=st.integers(1, 6))
def test_order_repetition_and_batching_decide_nothing(
    log: Log, told: tuple[list[Delivery], list[list[Delivery]]], limit: int
) -> None:
    history, batches = told
    expected = log.state_after([history], 1000)
    assert log.state_after(batches, limit) == expected


@few
@given(told=told_otherwise(), limit=st.integers(1, 6), size=st.integers(1, 8))
def test_rebuilt_equals_live(
    log: Log, told: tuple[list[Delivery], list[list[Delivery]]], limit: int, size: int
) -> None:
    log.state_after(told[1], limit)
    live = state_rows(log.service)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "chunks", partial(chunks, events=size))
        verified = verify.verify(log.url, processes=1, on_progress=lambda *_: None)
        rebuild.rebuild(log.url, processes=1, started_at=RECEIVED, on_progress=lambda *_: None)
    assert verified.difference is None
    assert state_rows(log.service) == live


def shown(connection: Connection) -> dict[tuple[str, str], tuple[BillSummary, list[Report]]]:
    """Return what the state says of each bill, with positions."""
    keys = connection.execute("SELECT lab_id, bill_id FROM state.bill").fetchall()
    values = {
        "labs": [lab for lab, _ in keys],
        "bills": [bill for _, bill in keys],
        "events": [],
        "position": 0,
    }
    bills = map(stored_bill, connection.execute(BILLS, values))
    return {
        (bill.summary.lab_id, bill.summary.bill_id): (bill.summary, bill.reports)
        for bill in bills
        if bill.summary
    }


@few
@given(history=histories, data=st.data())
def test_what_had_been_received_by_a_time_folds_to_what_the_state_was_then(
    log: Log, history: list[Delivery], data: st.DataObject
) -> None:
    """And so what had been received by the end folds to what it is now."""
    log.empty()
    known = []
    for delivery in history:
        append(log.service, [delivery])
        drain(log.service)
        known.append((delivery.received_at, shown(log.service)))
    moments = [known[-1], data.draw(st.sampled_from(known))]
    rows = list(read.after(log.service, 0, len(history), 1000))
    for moment, state in moments:
        folded: dict[tuple[str, str], list[LoggedEvent]] = {}
        for row in rows:
            event = read_row(row)
            if row.received_at <= moment and isinstance(event, LoggedEvent):
                folded.setdefault((row.lab_id, row.bill_id), []).append(event)
        assert {
            key: (bill.summary, bill.reports)
            for key, events in folded.items()
            for bill in [fold(*key, events)]
        } == state
