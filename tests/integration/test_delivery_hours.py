"""Deliveries by hour and outcome: counted once, in their hour, also after the database was away."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg
import pytest
from psycopg import Connection

from ledger.eventlog import liveness_recorder
from ledger.eventlog.delivery_hours import LOCK_TIMEOUT, DeliveryHours
from ledger.eventlog.liveness import Liveness, steady_clock
from ledger.eventlog.liveness_recorder import LivenessRecorder
from ledger.metrics import DELIVERIES, REFUSED
from ledger.operations.delivery_hours import (
    LabRate,
    read_delivery_days,
    read_delivery_hours,
    read_lab_rates,
)
from ledger.operations.near_losses import read_near_losses
from ledger.postgres.connect import connect
from tests.support.decisions import POLICY
from tests.support.sessions import one as single
from tests.support.sessions import wait_until

pytestmark = pytest.mark.slow

NOON = datetime(2024, 1, 20, 12, 59, 59, tzinfo=UTC)


@pytest.fixture
def intake(database_url: str) -> Iterator[Connection]:
    """Give a connection as the intake has it."""
    with closing(connect(database_url, "test")) as connection:
        connection.execute("SET ROLE ledger_intake")
        yield connection


def test_what_is_counted_is_added_in_its_hour(intake: Connection) -> None:
    hours = DeliveryHours()
    DELIVERIES.labels("recorded").inc(3)
    REFUSED.labels("401").inc()
    REFUSED.labels("413").inc()
    hours.note(NOON)
    hours.record(intake)
    DELIVERIES.labels("recorded").inc(2)
    REFUSED.labels("503").inc()
    hours.note(NOON)
    hours.note(NOON + timedelta(seconds=1))  # nothing new
    hours.record(intake)
    hours.record(intake)
    eleven, twelve, one = read_delivery_hours(intake, NOON + timedelta(hours=1), hours=3)
    assert (eleven.total, one.total) == (0, 0)
    assert twelve.deliveries == {"recorded": 5, "refused": 2, "not_stored": 1}
    assert twelve.hour == datetime(2024, 1, 20, 12, tzinfo=UTC)


def test_what_could_not_be_added_is_added_later_in_its_own_hour(
    intake: Connection, database_url: str
) -> None:
    hours = DeliveryHours()
    DELIVERIES.labels("spooled").inc()
    hours.note(NOON)
    with psycopg.connect(database_url) as other:
        other.execute("LOCK TABLE ledger.delivery_hour IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            hours.record(intake)
    DELIVERIES.labels("spooled").inc()
    hours.note(NOON + timedelta(hours=1))
    hours.record(intake)
    counted = read_delivery_hours(intake, NOON + timedelta(hours=1), hours=2)
    assert [one.deliveries for one in counted] == [{"spooled": 1}, {"spooled": 1}]
    assert LOCK_TIMEOUT < 1_000


def test_processes_add_to_the_same_hour(intake: Connection) -> None:
    first, second = DeliveryHours(), DeliveryHours()  # each reads the counters of its own process
    DELIVERIES.labels("duplicate").inc(4)
    for one in (first, second):
        one.note(NOON)
        one.record(intake)
    assert read_delivery_hours(intake, NOON, hours=1)[0].deliveries == {"duplicate": 8}


def test_what_is_counted_until_a_process_ends_is_added(
    intake: Connection, database_url: str
) -> None:
    """Also if nothing else of it is left to be recorded."""
    liveness = Liveness()
    recorder = LivenessRecorder(database_url, liveness)
    recorder.start()
    liveness.prove(datetime.now(UTC), steady_clock())
    recorder.hurry()
    recorder.wait_for_first_record(30)
    assert liveness.is_recorded
    REFUSED.labels("401").inc()
    recorder.stop(30)
    counted = read_delivery_hours(intake, datetime.now(UTC), hours=2)
    assert sum(one.total for one in counted) == 1


def is_recorded(connection: Connection, until: datetime) -> bool:
    return bool(single(connection, "SELECT max(alive_until) FROM ledger.liveness") == until)


def test_liveness_is_recorded_while_the_counts_are_locked(
    intake: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness_recorder, "STATEMENT_TIMEOUT", 0)  # it would end the wait as well
    liveness = Liveness()
    recorder = LivenessRecorder(database_url, liveness)
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE ledger.delivery_hour IN ACCESS EXCLUSIVE MODE")
        recorder.start()
        for _ in range(3):
            DELIVERIES.labels("recorded").inc()
            proven = datetime.now(UTC)
            liveness.prove(proven, steady_clock())
            recorder.hurry()
            wait_until(partial(is_recorded, holder, proven), "it is recorded")
        holder.rollback()
        recorder.stop(30)
    counted = read_delivery_hours(intake, datetime.now(UTC), hours=2)
    assert sum(one.deliveries.get("recorded", 0) for one in counted) == 3


def test_days_without_deliveries_are_days_too(database_url: str) -> None:
    with closing(connect(database_url, "test")) as connection:
        today = NOON.date()
        yesterday = today - timedelta(days=1)
        for lab, day, number in (("a", today, 1), ("a", yesterday, 2), ("b", yesterday, 4)):
            connection.execute("INSERT INTO state.delay VALUES (%s, %s, 0, %s)", (lab, day, number))
        found = read_delivery_days(connection, today, days=3, labs=None)
        assert found == [(yesterday - timedelta(days=1), 0), (yesterday, 6), (today, 1)]
        assert read_delivery_days(connection, today, days=1, labs=("b",)) == [(today, 0)]


def test_deliveries_an_hour_are_of_whole_hours_since_a_lab_was_first_heard_of(
    database_url: str,
) -> None:
    """Noon is under way: its deliveries count for nothing. Lab -> hours ago: deliveries."""
    heard = {
        "usual": {300: 1, 168: 9, 167: 144, 24: 48, 23: 12, 0: 999},
        "silent": {168: 9, 30: 72},
        "new": {3: 30},
        "newest": {0: 5},
    }
    this = NOON.replace(minute=0, second=0)
    with closing(connect(database_url, "test")) as connection:
        for lab, hours in heard.items():
            for ago, number in hours.items():
                at = this - timedelta(hours=ago)
                connection.execute(
                    "INSERT INTO state.lab_hour VALUES (%s, %s, %s, %s)", (lab, at, number, at)
                )
        found = read_lab_rates(connection, NOON, labs=[*heard, "imported"])
    assert found == {
        "usual": LabRate(last_day=2.5, before=1.0625),
        "silent": LabRate(last_day=0.0, before=0.5625),
        "new": LabRate(last_day=10.0, before=None),
        "newest": LabRate(last_day=None, before=None),
    }


def test_labs_without_a_late_delivery_are_left_out(database_url: str) -> None:
    delays = {"punctual": (1, 2), "late": (121,), "fast-clock": (-119, 1), "retried": (1, 121)}
    with closing(connect(database_url, "test")) as connection:
        for lab, seconds in delays.items():
            for each in seconds:
                connection.execute(
                    "INSERT INTO state.delay VALUES (%s, %s, %s, 1)", (lab, NOON.date(), each)
                )
        found = read_near_losses(
            connection, POLICY, first_day=NOON.date(), labs=None, only_late=True
        )
        assert {one.lab_id for one in found} == {"late", "fast-clock", "retried"}
