"""When a process was alive, as it writes it down: no outage is invented and none is hidden."""

import asyncio
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import Connection

from ledger.errors import AppendError
from ledger.eventlog import group_commit as lane_module
from ledger.eventlog.group_commit import GroupCommit
from ledger.eventlog.liveness import BEAT_SECONDS, LONGEST_GAP, Liveness, steady_clock
from ledger.model.loss_windows import Interval, union
from ledger.operations.loss_windows import read_windows
from ledger.postgres.connect import connect
from tests.support.decisions import POLICY
from tests.support.histories import body, delivery
from tests.support.sessions import lane_held, one, sessions_named, terminate, wait_until

pytestmark = pytest.mark.slow

NOON = datetime(2024, 1, 20, 12, tzinfo=UTC)
UPTIME = 1_000.0
"""What the steady clock says at noon."""


def noon(seconds: float = 0) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Process:
    """A process with a clock on the wall that somebody sets; the steady one only goes."""

    def __init__(self, connection: Connection) -> None:
        self.liveness = Liveness()
        self.connection = connection
        self.steady = UPTIME
        self.wrong = 0.0

    def beat(self) -> None:
        now = noon(self.steady - UPTIME + self.wrong)
        self.liveness.beat(self.connection, now, self.steady)

    def live(self, seconds: float) -> None:
        """Go on for a while, with beats from the beginning to the end."""
        end = self.steady + seconds
        while self.steady < end:
            self.beat()
            self.steady = min(end, self.steady + BEAT_SECONDS)
        self.beat()


@pytest.fixture
def process(service: Connection) -> Process:
    return Process(service)


def rows(connection: Connection) -> list[tuple[float, float]]:
    query = "SELECT alive_from, alive_until FROM ledger.liveness ORDER BY alive_from, alive_until"
    return [
        ((begin - NOON).total_seconds(), (end - NOON).total_seconds())
        for begin, end in connection.execute(query)
    ]


def alive(connection: Connection) -> list[tuple[float, float]]:
    spans = [Interval(noon(begin), noon(end)) for begin, end in rows(connection)]
    return [
        ((one_.begin - NOON).total_seconds(), (one_.end - NOON).total_seconds())
        for one_ in union(spans)
    ]


# --- rows of a run ----------------------------------------------------------------------------


def test_a_run_is_one_row_that_grows(process: Process) -> None:
    process.beat()
    assert rows(process.connection) == [(0, 0)]
    process.live(61)
    assert rows(process.connection) == [(0, 61)]


def test_a_beat_is_due_after_its_time(process: Process) -> None:
    assert process.liveness.is_due(UPTIME)
    process.beat()
    assert not process.liveness.is_due(UPTIME + BEAT_SECONDS - 0.001)
    assert process.liveness.is_due(UPTIME + BEAT_SECONDS)


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (LONGEST_GAP, [(0, 14 + LONGEST_GAP)]),
        (LONGEST_GAP + 0.001, [(0, 10), (10 + LONGEST_GAP + 0.001, 14 + LONGEST_GAP + 0.001)]),
        (3_600, [(0, 10), (3_610, 3_614)]),
    ],
)
def test_a_gap_that_is_too_long_begins_a_new_row(
    process: Process, gap: float, expected: list[tuple[float, float]]
) -> None:
    process.live(10)
    process.steady += gap
    process.live(4)
    assert rows(process.connection) == expected


def test_what_failed_meanwhile_begins_a_new_row(process: Process) -> None:
    process.live(10)
    process.liveness.interrupt()
    process.steady += 1
    process.live(10)
    assert rows(process.connection) == [(0, 10), (11, 21)]


def test_several_instances_write_rows_of_their_own(process: Process, service: Connection) -> None:
    other = Process(service)
    process.live(10)
    other.steady += 4
    other.live(20)
    assert rows(service) == [(0, 10), (4, 24)]
    assert one(service, "SELECT count(DISTINCT instance) FROM ledger.liveness") == 2


# --- clocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0.5, 4, 100, 3_600, 86_400])
@pytest.mark.parametrize("direction", [1, -1])
def test_a_clock_that_is_set_invents_no_outage(
    process: Process, step: float, direction: int
) -> None:
    """Not then, and not when it is set right again."""
    process.live(60)
    process.wrong = direction * step
    process.live(60)
    process.wrong = 0
    process.live(400)
    assert any(begin <= 0 and end >= 520 for begin, end in alive(process.connection))
    assert read_windows(process.connection, POLICY, noon(520), position=0) == []


def test_a_clock_that_is_set_back_and_right_again_claims_nothing(process: Process) -> None:
    """Of the time before it ran: what the wrong clock said is taken back."""
    process.live(60)
    process.wrong = -3_600
    process.live(60)
    process.wrong = 0
    process.live(60)
    assert alive(process.connection) == [(0, 180)]


def test_a_clock_that_began_wrong_and_was_put_right_loses_no_time(process: Process) -> None:
    """As of a machine that starts in another zone's time; much later its clock is set again."""
    process.wrong = 3_600
    process.live(60)
    process.wrong = 0
    process.live(4_000)
    process.wrong = 10
    process.live(60)
    assert any(begin <= 60 and end >= 4_130 for begin, end in alive(process.connection))


def test_a_clock_that_is_set_back_to_before_the_run_leaves_no_hole(process: Process) -> None:
    process.live(60)
    process.wrong = -100
    process.live(160)
    assert rows(process.connection) == [(-40, 120), (0, 60)]


def test_the_steady_clock_only_goes_on() -> None:
    first = steady_clock()
    assert 0 < first <= steady_clock()


# --- only while a delivery could be made durable ----------------------------------------------


def test_while_somebody_holds_the_lane_there_is_no_beat(
    process: Process, database_url: str
) -> None:
    process.live(10)
    process.connection.execute("SET statement_timeout = '50ms'")
    process.steady += 2
    with lane_held(database_url), pytest.raises(psycopg.errors.QueryCanceled):
        process.beat()
    process.steady += 2
    process.live(4)
    assert rows(process.connection) == [(0, 10), (14, 18)]


@pytest.mark.parametrize(
    "obstacle",
    ["SET default_transaction_read_only = on", "SET ROLE {reader}"],
)
def test_where_nothing_can_be_written_there_is_no_beat(
    process: Process, owner: Connection, obstacle: str
) -> None:
    """A role that may write liveness and not the log would be alive and take nothing."""
    reader = f"reader_of_{owner.info.dbname}"
    owner.execute(
        f"CREATE ROLE {reader}; GRANT {reader} TO ledger_service;"
        f"GRANT SELECT, INSERT, UPDATE ON ledger.liveness TO {reader}".encode()
    )
    try:
        process.live(10)
        process.connection.execute(obstacle.format(reader=reader).encode())
        process.steady += 2
        with pytest.raises(psycopg.Error):
            process.beat()
        process.connection.execute("SET default_transaction_read_only = off")
        process.connection.execute("SET ROLE ledger_service")
        process.steady += 2
        process.live(4)
        assert rows(process.connection) == [(0, 10), (14, 18)]
    finally:
        owner.execute(f"DROP OWNED BY {reader}; DROP ROLE {reader}".encode())


def test_a_lane_that_could_not_write_begins_a_new_row(
    database_url: str, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr("ledger.eventlog.liveness.BEAT_SECONDS", 0.02)

    name = owner.info.dbname

    def beats(at_least: int) -> None:
        wait_until(
            lambda: (
                one(owner, "SELECT count(*) FROM ledger.liveness WHERE alive_until > alive_from")
                >= at_least
            ),
            f"{at_least} rows grow",
        )

    async def use() -> None:
        lane = GroupCommit(database_url)
        lane.start()
        try:
            await lane.append(delivery(body()))
            await asyncio.to_thread(beats, 1)
            owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
            terminate(owner, *sessions_named(owner, "lane"))
            with pytest.raises(AppendError):
                await lane.append(delivery(body(bill="refused")))
            before = rows(owner)
            with pytest.raises(AppendError):
                await lane.append(delivery(body(bill="refused")))
            assert rows(owner) == before
            owner.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
            terminate(owner, *sessions_named(owner, "lane"))
            await asyncio.to_thread(beats, 2)
        finally:
            await lane.stop()

    asyncio.run(use())
    assert one(owner, "SELECT count(DISTINCT instance) FROM ledger.liveness") == 1
    with connect(database_url, "test") as service:
        assert len(rows(service)) >= 2


# --- before the first start -------------------------------------------------------------------


def test_times_before_the_first_start_are_no_outage(process: Process) -> None:
    process.live(10)
    for moment in (-86_400, 0, 10):
        assert read_windows(process.connection, POLICY, noon(moment), position=0) == []


def test_without_any_run_nothing_is_known_to_be_lost(service: Connection) -> None:
    assert read_windows(service, POLICY, noon(), position=0) == []


def test_the_last_beat_is_a_moment_old_and_that_is_no_outage(service: Connection) -> None:
    """Where one does not try again, any outage loses events."""
    policy = type(POLICY)(
        POLICY.events, timedelta(seconds=120), 0, timedelta(seconds=10), POLICY.ask_again_after
    )
    Process(service).live(10)
    now = noon(10 + LONGEST_GAP)
    assert read_windows(service, policy, now, position=0) == []
    later = now + timedelta(milliseconds=1)
    [window] = read_windows(service, policy, later, position=0)
    assert (window.begin, window.end, window.labs, window.state) == (noon(10), later, [], "open")
