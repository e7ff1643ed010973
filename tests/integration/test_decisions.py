"""Decisions and the log: one decider at a time, on a state that knows all, and all or nothing."""

import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import psycopg
import pytest
from psycopg import Connection

from ledger.errors import DecisionError, FoldVersionError
from ledger.eventlog import read
from ledger.eventlog.append import append
from ledger.eventlog.export_lines import export_lines
from ledger.eventlog.import_events import import_events
from ledger.eventlog.import_files import ImportFile
from ledger.eventlog.import_values import Options
from ledger.model.bill import FOLD_VERSION
from ledger.model.operator_events import write_decision
from ledger.operations import decisions
from ledger.operations.decisions import catch_up, deciding, record
from ledger.operations.expected_bills import Expectation, expect_one
from ledger.operations.support_requests.make import make_request
from ledger.operations.support_requests.queries import read_request
from ledger.postgres.connect import connect
from ledger.projection import projector
from ledger.projection.projector import Projector
from tests.support.addresses import database_of
from tests.support.decisions import (
    OPERATOR,
    POLICY,
    decided,
    expected_bill,
    request_made,
    requested,
    waived,
)
from tests.support.histories import RECEIVED, body, deliveries, delivery
from tests.support.postgres import new_database
from tests.support.sessions import (
    LONG,
    drain,
    in_thread,
    lane_held,
    one,
    pid_of,
    sessions_named,
    state_rows,
    terminate,
    wait_until,
)

pytestmark = pytest.mark.slow

LOST = body("bill.completed")
"""A bill of which bill.created never came; it was received long ago."""

DECIDERS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 6"


def press(url: str) -> int | None:
    """Ask support for what is overdue, as an operator does; return the number of the request."""
    made = make_request(
        url, POLICY, lab_id=None, include_possible=True, note=None, by=OPERATOR, patience=LONG
    )
    return made[0].number if made else None


def position(connection: Connection) -> int:
    return int(one(connection, "SELECT position FROM state.checkpoint"))


@contextmanager
def leading_elsewhere(url: str) -> Iterator[Connection]:
    """Hold the lock of the leading projector in another session."""
    with psycopg.connect(url, autocommit=True) as leader:
        leader.execute("SELECT pg_advisory_lock(7402, 4)")
        yield leader


# --- one at a time ----------------------------------------------------------------------------


def test_two_who_press_at_once_make_one_request(database_url: str, service: Connection) -> None:
    append(service, deliveries([LOST]))
    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(lambda _: press(database_url), range(4)))
    assert sorted(numbers, key=str) == [1, None, None, None]
    assert (
        one(service, "SELECT count(*) FROM ledger.event_log WHERE event_type = 'request.made'") == 1
    )
    [line] = read_request(service, 1).lines
    assert (line.bill_id, line.event_type, line.state) == ("B", "bill.created", "requested")


def test_the_second_waits_and_sees_what_the_first_decided(
    database_url: str, service: Connection, owner: Connection
) -> None:
    append(service, deliveries([LOST]))
    seen: list[int] = []

    def second() -> None:
        with deciding(database_url, patience=LONG) as connection:
            seen.append(position(connection))

    with deciding(database_url, patience=LONG) as first, in_thread(second):
        wait_until(
            lambda: any(blocked(owner, pid) for pid in sessions_named(owner, "desk")),
            "the second waits",
        )
        assert seen == []
        record(first, [waived()])
        first.close()
    assert seen == [2]


def blocked(owner: Connection, pid: int) -> bool:
    return bool(
        one(owner, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = %s)", pid)
    )


def test_who_waits_too_long_for_another_is_told_so(
    database_url: str, service: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "LOCK_SECONDS", "0.05")
    with (
        deciding(database_url, patience=LONG),
        pytest.raises(DecisionError, match="another operator's decision"),
        deciding(database_url, patience=LONG),
    ):
        pass
    assert read.head(service) == 0


def test_the_lock_is_free_after_an_error(database_url: str, owner: Connection) -> None:
    with pytest.raises(ZeroDivisionError), deciding(database_url, patience=LONG):
        raise ZeroDivisionError
    wait_until(lambda: one(owner, DECIDERS) == 0, "the lock is free")
    with deciding(database_url, patience=LONG):
        assert one(owner, DECIDERS) == 1


def test_decisions_that_are_many_are_recorded_all_or_none(
    database_url: str, service: Connection, owner: Connection
) -> None:
    owner.execute("ALTER TABLE ledger.event_log ADD CONSTRAINT no CHECK (bill_id <> 'refused')")
    refused = [waived(key=("L", "B")), waived(key=("L", "refused")), waived(key=("L", "C"))]
    with deciding(database_url, patience=LONG) as connection:
        with pytest.raises(psycopg.errors.CheckViolation):
            record(connection, refused)
        assert read.head(service) == 0
        assert record(connection, refused[::2]) == 2


def test_a_decider_that_is_cut_off_has_decided_nothing(
    database_url: str, service: Connection, owner: Connection
) -> None:
    append(service, deliveries([LOST]))
    with deciding(database_url, patience=LONG) as connection:
        terminate(owner, pid_of(connection))
        with pytest.raises(psycopg.OperationalError):
            record(connection, [request_made(lines=1), requested()])
    assert read.head(service) == 1
    assert press(database_url) == 1


def test_a_decider_that_is_cut_off_while_it_records_has_decided_nothing(
    database_url: str, service: Connection, owner: Connection
) -> None:
    """It waits for the lane, in the middle of all."""
    append(service, deliveries([LOST]))
    drain(service)
    with psycopg.connect(database_url) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(7402, 1)")

        def cut_off() -> None:
            with pytest.raises(psycopg.OperationalError):
                press(database_url)

        with in_thread(cut_off):
            wait_until(
                lambda: any(blocked(owner, pid) for pid in sessions_named(owner, "desk")),
                "it waits for the lane",
            )
            terminate(owner, *sessions_named(owner, "desk"))
        holder.rollback()
    assert read.head(service) == 1
    assert press(database_url) == 1


# --- on a state that knows all ----------------------------------------------------------------


def test_without_a_projector_it_folds_itself(database_url: str, service: Connection) -> None:
    append(service, deliveries([LOST, body(bill="C")]))
    with deciding(database_url, patience=LONG) as connection:
        assert position(connection) == 2
        wanted = record(connection, [waived()])
        assert catch_up(database_url, connection, patience=LONG, upto=wanted) == 3
    assert one(service, "SELECT waived_at IS NOT NULL FROM state.missing_event")


def test_it_leaves_the_folding_to_who_leads(
    database_url: str, service: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "POLL_SECONDS", 0.05)
    append(service, deliveries([LOST]))
    with leading_elsewhere(database_url), in_thread(lambda: press(database_url)):
        wait_until(lambda: one(service, DECIDERS) == 1, "it decides")
        assert position(service) == 0
        drain(service)
        wait_until(lambda: read.head(service) == 3, "it has decided")
        assert position(service) == 1
        drain(service)
    assert read_request(service, 1).lines[0].state == "requested"


def test_beside_a_projector_it_decides_as_well(database_url: str, service: Connection) -> None:
    append(service, deliveries([LOST]))
    projector = Projector(database_url)
    thread = threading.Thread(target=projector.run, daemon=True)
    thread.start()
    try:
        assert press(database_url) == 1
        assert press(database_url) is None
    finally:
        projector.stop()
        thread.join(LONG)
    assert position(service) == 3


def test_a_state_that_stays_behind_is_a_sentence_and_nothing_is_recorded(
    database_url: str, service: Connection
) -> None:
    append(service, deliveries([LOST]))
    with (
        leading_elsewhere(database_url),
        pytest.raises(DecisionError, match="position 0 and the log at 1"),
    ):
        make_request(
            database_url,
            POLICY,
            lab_id=None,
            include_possible=True,
            note=None,
            by=OPERATOR,
            patience=0.2,
        )
    assert (read.head(service), position(service)) == (1, 0)


def test_a_state_of_another_version_is_a_sentence_and_nothing_is_recorded(
    database_url: str, service: Connection
) -> None:
    append(service, deliveries([LOST]))
    service.execute("UPDATE state.checkpoint SET fold_version = %s", (FOLD_VERSION + 1,))
    with pytest.raises(FoldVersionError, match="ledger rebuild"):
        press(database_url)
    with (
        leading_elsewhere(database_url),
        pytest.raises(FoldVersionError, match="ledger rebuild"),
        deciding(database_url, patience=0.2),
    ):
        pass
    assert (read.head(service), position(service)) == (1, 0)


def test_while_somebody_holds_the_log_nothing_is_decided_and_that_is_said(
    database_url: str, service: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "LOCK_SECONDS", 1)
    with deciding(database_url, patience=LONG) as connection:
        with lane_held(database_url), pytest.raises(DecisionError, match="Nothing was decided"):
            record(connection, [expected_bill("i")])
        assert read.head(service) == 0
        assert record(connection, [expected_bill("i")]) == 1


def test_an_expectation_that_the_state_does_not_know_yet_is_said_to_be_recorded(
    database_url: str, service: Connection
) -> None:
    """It must not look like a fault, for it would be told again."""
    one_bill = Expectation("i", RECEIVED)
    with (
        leading_elsewhere(database_url),
        pytest.raises(DecisionError, match="stands in the log at position 1; do not repeat it"),
    ):
        expect_one(database_url, one_bill, by=OPERATOR, patience=0.1)
    assert (read.head(service), position(service)) == (1, 0)
    item, at = expect_one(database_url, one_bill, by=OPERATOR, patience=LONG)
    assert (item.integrator_id, item.state, at) == ("i", "unseen", 1)


# --- what is a decision -----------------------------------------------------------------------


def unreadable(connection: Connection) -> list[int]:
    query = "SELECT position FROM state.unreadable_event ORDER BY position"
    return [found for (found,) in connection.execute(query)]


def test_a_webhook_that_looks_like_a_decision_decides_nothing(service: Connection) -> None:
    looks = [write_decision(one) for one in (waived(), request_made(), expected_bill())]
    append(service, deliveries([LOST, *looks]))
    drain(service)
    assert unreadable(service) == [2, 3, 4]
    rows = state_rows(service)
    assert not rows["support_request"] + rows["expected_bill"] + rows["expectation"]
    assert one(service, "SELECT waived_at FROM state.missing_event") is None


def test_an_operator_s_broken_bodies_are_listed_and_stop_nothing(service: Connection) -> None:
    whole = json.loads(write_decision(waived()))
    broken = [
        b"",
        b"broken",
        LOST,
        *(
            json.dumps({**whole, **changed}).encode()
            for changed in (
                {"decision": "event.waved"},
                {"at": "0001-01-01T00:00:00+14:00"},
                {"at": "2024-01-20T10:00:00+16:00"},
                {"bill_id": "a\0b"},
                {"count": 2**40},
            )
        ),
        json.dumps({**json.loads(write_decision(request_made())), "request": 2**40}).encode(),
    ]
    append(service, [delivery(one_, source="operator") for one_ in broken])
    append(service, [delivery(body("bill.completed", at=1)), decided(waived())])
    assert drain(service) == len(broken) + 2
    assert unreadable(service) == list(range(1, len(broken) + 1))
    assert one(service, "SELECT waived_at IS NOT NULL FROM state.missing_event")


@pytest.mark.parametrize("exports", [True, False])
def test_an_export_brings_decisions_back_where_it_is_taken_for_one(
    service: Connection,
    postgres_url: str,
    migrated_template: str,
    exports: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    """And a file of somebody else's decides nothing, whatever it holds."""
    append(service, [*deliveries([LOST]), decided(request_made(lines=1)), decided(requested())])
    drain(service)
    exported = b"".join(export_lines(service))
    with (
        new_database(postgres_url, template=migrated_template) as name,
        closing(connect(database_of(postgres_url, name), "test")) as other,
    ):
        import_events(
            other,
            ImportFile(io.BytesIO(exported)),
            Options(by=OPERATOR, exports=exports, keep_unreadable=True),
            on_progress=lambda _: None,
        )
        drain(other)
        if exports:
            assert state_rows(other) == state_rows(service)
        else:
            assert unreadable(other) == [2, 3]
            assert state_rows(other)["request_line"] == []
