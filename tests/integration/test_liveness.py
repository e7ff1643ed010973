"""When a process was alive, as it writes it down: no outage is invented and none is hidden."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import structlog
from psycopg import Connection

from ledger import schema
from ledger.errors import AppendError, EmbeddedPostgresError
from ledger.eventlog import group_commit as lane_module
from ledger.eventlog import liveness as liveness_module
from ledger.eventlog.append import Delivery
from ledger.eventlog.group_commit import GroupCommit
from ledger.eventlog.liveness import BEAT_SECONDS, LONGEST_GAP, Liveness, steady_clock
from ledger.model.loss_windows import Interval, outages, union
from ledger.operations.loss_windows import read_windows
from ledger.postgres.connect import connect
from tests.support.decisions import POLICY
from tests.support.histories import body
from tests.support.postgres import PrivateServer, folder_for_postgres
from tests.support.sessions import drain, one, sessions_named, terminate

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

    @property
    def now(self) -> datetime:
        return noon(self.steady - UPTIME + self.wrong)

    def beat(self) -> None:
        self.liveness.prove(self.now, self.steady)
        self.record()

    def record(self) -> None:
        self.liveness.record(self.connection, self.liveness.take_changes())

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


# --- refusals ---------------------------------------------------------------------------------


def refusals(connection: Connection) -> list[tuple[float, float, int]]:
    query = "SELECT refused_from, refused_until, deliveries FROM ledger.refusal ORDER BY number"
    return [
        ((begin - NOON).total_seconds(), (end - NOON).total_seconds(), deliveries)
        for begin, end, deliveries in connection.execute(query)
    ]


def refuse(process: Process, *, waited: float, deliveries: int = 1) -> None:
    """Refuse deliveries, the first of which came some seconds ago."""
    now = process.now
    process.liveness.refuse(now - timedelta(seconds=waited), now, process.steady, deliveries)


def test_a_refusal_lasts_from_the_last_proof_to_the_next(process: Process) -> None:
    process.live(10)
    process.steady += 1
    refuse(process, waited=0.1)
    process.steady += 3
    refuse(process, waited=0.1, deliveries=2)
    process.record()
    assert refusals(process.connection) == [(10, 14, 3)]
    process.steady += 1
    process.live(4)
    assert refusals(process.connection) == [(10, 15, 3)]
    assert rows(process.connection) == [(0, 10), (15, 19)]
    process.steady += 1
    refuse(process, waited=0.1)
    process.steady += 1
    process.beat()
    assert refusals(process.connection) == [(10, 15, 3), (19, 21, 1)]


def test_a_refused_delivery_that_came_before_the_last_proof_is_in_the_refusal(
    process: Process,
) -> None:
    process.live(10)
    refuse(process, waited=6)
    process.record()
    assert refusals(process.connection) == [(4, 10, 1)]


def test_a_clock_that_is_set_before_a_refusal_makes_it_no_longer(process: Process) -> None:
    process.live(10)
    process.wrong = 3_600
    process.steady += 1
    refuse(process, waited=0)
    process.record()
    assert refusals(process.connection) == [(3_610, 3_611, 1)]


def test_what_could_not_be_recorded_is_recorded_later(process: Process) -> None:
    process.live(4)
    process.steady += 1
    process.liveness.prove(process.now, process.steady)
    refuse(process, waited=0)
    lost = process.liveness.take_changes()
    process.steady += 1
    process.liveness.prove(process.now, process.steady)
    process.liveness.give_back(lost)
    process.record()
    assert rows(process.connection) == [(0, 5), (6, 6)]
    assert refusals(process.connection) == [(5, 6, 1)]


def test_what_is_being_written_is_not_recorded_yet(process: Process) -> None:
    """Or a process that ends while the database hangs takes its note of being alive with it."""
    process.beat()
    seen = [process.liveness.is_recorded]
    process.liveness.prove(process.now, process.steady)
    seen.append(process.liveness.is_recorded)
    taken = process.liveness.take_changes()
    seen.append(process.liveness.is_recorded)
    process.liveness.give_back(taken)
    seen.append(process.liveness.is_recorded)
    process.record()
    seen.append(process.liveness.is_recorded)
    assert seen == [True, False, False, False, True]


def test_an_outage_of_one_receiver_counts_beside_another_that_is_alive(service: Connection) -> None:
    policy = type(POLICY)(
        POLICY.events, timedelta(seconds=120), 0, timedelta(seconds=10), POLICY.ask_again_after
    )
    healthy, refusing = Process(service), Process(service)
    healthy.live(60)
    refusing.live(10)
    refusing.steady += 20
    refuse(refusing, waited=19)
    refusing.steady += 1
    refusing.live(29)
    [window] = read_windows(service, policy, noon(60), position=0)
    assert (window.begin, window.end) == (noon(10), noon(31))


# --- what a lane proves -----------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a lane do in tenths of seconds what it does in seconds."""
    for module in (lane_module, liveness_module):
        monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lane_module, "PROOF_SECONDS", 0.02)
    monkeypatch.setattr(lane_module, "PATIENCE", 0.6)
    monkeypatch.setattr(lane_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(lane_module, "STATEMENT_TIMEOUT", 400)


Times = list[tuple[datetime, datetime]]


class Sender:
    """Sends deliveries through a lane and keeps the times of those that were refused."""

    def __init__(self, lane: GroupCommit) -> None:
        self.lane = lane
        self.refused: Times = []
        self._sent = 0

    async def send(self) -> bool:
        self._sent += 1
        began = datetime.now(UTC)
        content = body(bill=f"B{self._sent}")
        try:
            await self.lane.append(Delivery.of(content, received_at=began, source="webhook"))
        except AppendError:
            self.refused.append((began, datetime.now(UTC)))
            return False
        return True

    async def until(self, wanted: bool) -> None:  # noqa: FBT001 -- what `send` returns
        async with asyncio.timeout(30):
            while await self.send() is not wanted:  # noqa: ASYNC110 -- nothing signals it
                await asyncio.sleep(0.02)


async def is_ready(lane: GroupCommit) -> bool:
    try:
        await lane.prove(within=0.3)
    except AppendError:
        return False
    return True


def outages_of(connection: Connection) -> list[Interval]:
    def spans(query: str) -> list[Interval]:
        return [Interval(*row) for row in connection.execute(query.encode())]

    alive_spans = spans("SELECT alive_from, alive_until FROM ledger.liveness")
    return outages(
        alive_spans,
        spans("SELECT refused_from, refused_until FROM ledger.refusal"),
        since=min(span.begin for span in alive_spans),
        until=max(span.end for span in alive_spans),
    )


@contextmanager
def log_locked(owner: Connection) -> Iterator[None]:
    with owner.transaction():
        owner.execute("LOCK TABLE ledger.event_log IN SHARE MODE")
        yield


@contextmanager
def right_taken(owner: Connection) -> Iterator[None]:
    owner.execute("REVOKE INSERT ON ledger.event_log FROM ledger_service, ledger_intake")
    yield
    owner.execute("GRANT INSERT ON ledger.event_log TO ledger_service, ledger_intake")


@contextmanager
def read_only(owner: Connection) -> Iterator[None]:
    name = owner.info.dbname
    owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    terminate(owner, *sessions_named(owner, "lane"))
    yield
    owner.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
    terminate(owner, *sessions_named(owner, "lane"))


@contextmanager
def disk_full(owner: Connection) -> Iterator[None]:
    """Refuse real events, while everything else can be committed."""
    owner.execute(
        "CREATE FUNCTION public.full() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$;"
        "CREATE TRIGGER full_disk BEFORE INSERT ON ledger.event_log"
        " FOR EACH ROW EXECUTE FUNCTION public.full()"
    )
    yield
    owner.execute("DROP FUNCTION public.full() CASCADE")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("obstacle", [log_locked, right_taken, read_only, disk_full])
def test_each_refused_delivery_lies_in_an_outage_and_readiness_tells(
    database_url: str,
    owner: Connection,
    obstacle: Callable[[Connection], AbstractContextManager[None]],
) -> None:
    """Even if liveness can still be written, and if an empty batch could be committed."""

    async def use() -> Times:
        lane, idle = GroupCommit(database_url), GroupCommit(database_url)
        lane.start()
        idle.start()
        try:
            sender = Sender(lane)
            await sender.until(wanted=True)
            assert await is_ready(lane)
            with obstacle(owner):
                await sender.until(wanted=False)
                for _ in range(10):
                    assert not await is_ready(lane)
                    assert not await sender.send()
                    await asyncio.sleep(0.05)
            await sender.until(wanted=True)
            assert await is_ready(lane)
            return sender.refused
        finally:
            await lane.stop()
            await idle.stop()

    refused = asyncio.run(use())
    assert len(refused) > 10
    out = outages_of(owner)
    for begin, end in refused:
        assert any(each.begin <= begin and end <= each.end for each in out), (begin, end, out)
    # One outage, and not many with holes between them.
    lost = union([*out])
    assert sum(each.begin <= refused[-1][0] and refused[0][0] <= each.end for each in lost) == 1
    assert one(owner, "SELECT sum(deliveries) FROM ledger.refusal") == len(refused)


@pytest.mark.usefixtures("hasty")
def test_a_full_queue_of_notifications_refuses_nothing() -> None:
    """Nothing can be committed that notifies, and a notification is only a hint."""
    settings = {"max_notify_queue_pages": "64"}
    with folder_for_postgres() as folder:
        try:
            server = PrivateServer(folder / "postgres", settings=settings)
        except EmbeddedPostgresError:
            pytest.skip("this PostgreSQL has no max_notify_queue_pages")
        try:
            _fill_notifications(server)
        finally:
            server.stop()


def _fill_notifications(server: PrivateServer) -> None:
    url = server.dsn()
    schema.migrate(url)

    async def use() -> None:
        lane = GroupCommit(url)
        lane.start()
        try:
            sender = Sender(lane)
            await sender.until(wanted=True)
            with psycopg.connect(url) as sleeper, psycopg.connect(url, autocommit=True) as owner:
                sleeper.execute("LISTEN other")
                sleeper.commit()
                sleeper.execute("SELECT 1")  # in a transaction: it reads no notification
                with suppress(psycopg.Error):
                    while True:
                        owner.execute(
                            "SELECT pg_notify('other', repeat('x', 7000) || n)"
                            " FROM generate_series(1, 50) n"
                        )
                with pytest.raises(psycopg.Error, match="too many notifications"):
                    owner.execute("NOTIFY other")
                for _ in range(10):
                    assert await sender.send()
                assert await is_ready(lane)
                with connect(url, "test") as projector:
                    assert drain(projector) > 10
        finally:
            await lane.stop()

    asyncio.run(use())


@pytest.mark.usefixtures("hasty")
def test_a_lock_on_liveness_stops_no_delivery_and_invents_no_outage(
    database_url: str, owner: Connection
) -> None:
    async def use() -> None:
        lane = GroupCommit(database_url)
        lane.start()
        try:
            sender = Sender(lane)
            await sender.until(wanted=True)
            with psycopg.connect(database_url) as holder:
                holder.execute("LOCK TABLE ledger.liveness, ledger.refusal")
                for _ in range(30):
                    assert await sender.send()
                    await asyncio.sleep(0.03)
            assert await sender.send()
        finally:
            await lane.stop()

    asyncio.run(use())
    assert len(rows(owner)) == 1
    assert refusals(owner) == []


@pytest.mark.usefixtures("hasty")
def test_the_end_of_an_outage_is_logged_with_what_was_refused(
    database_url: str, owner: Connection
) -> None:
    async def use() -> int:
        lane = GroupCommit(database_url)
        lane.start()
        try:
            sender = Sender(lane)
            await sender.until(wanted=True)
            with right_taken(owner):
                for _ in range(3):
                    assert not await sender.send()
            await sender.until(wanted=True)
            return len(sender.refused)
        finally:
            await lane.stop()

    with structlog.testing.capture_logs() as lines:
        refused = asyncio.run(use())
    [back] = [line for line in lines if line["event"] == "deliveries can be made durable again"]
    assert back["refused"] == refused
    assert back["seconds"] >= 0


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
