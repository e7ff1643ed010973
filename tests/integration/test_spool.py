"""The spool: what the database does not take is on disk, and is in the log once when it does."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection
from structlog.testing import CapturingLogger

from ledger import schema
from ledger.errors import AppendError
from ledger.eventlog import group_commit as lane_module
from ledger.eventlog import liveness as liveness_module
from ledger.eventlog.append import SPOOLED, Delivery, Outcome
from ledger.settings import Settings
from ledger.spool import drain as drain_module
from ledger.spool import writer as writer_module
from ledger.spool.folder import WorkerFolder, set_aside_in, waiting_in
from ledger.spool.lane import SpoolingLane
from ledger.spool.records import HEAD_BYTES, encode
from ledger.spool.writer import SpoolWriter
from tests.support.histories import body
from tests.support.postgres import PrivateServer
from tests.support.sessions import lane_held, one, wait_until

pytestmark = pytest.mark.slow

BODY_BYTES = 2_000
BUDGET = 4 * 10_000


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a lane and its spool do in tenths of seconds what they do in seconds."""
    for module in (lane_module, liveness_module):
        monkeypatch.setattr(module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lane_module, "PROOF_SECONDS", 0.02)
    monkeypatch.setattr(lane_module, "PATIENCE", 3)
    monkeypatch.setattr(lane_module, "SPOOL_PATIENCE", 2)
    monkeypatch.setattr(lane_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(lane_module, "STATEMENT_TIMEOUT", 1_500)
    monkeypatch.setattr(drain_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(drain_module, "ABANDONED_SECONDS", 0.05)
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.05)


@asynccontextmanager
async def running(url: str, spool: Path) -> AsyncIterator[SpoolingLane]:
    settings = Settings(spool_dir=spool, spool_max_bytes=BUDGET, max_body=BODY_BYTES)
    lane = SpoolingLane(url, settings)
    lane._patience = 0.2  # noqa: SLF001 -- a setting of whole seconds
    lane.start()
    try:
        yield lane
    finally:
        await lane.stop()


def sent(number: int, *, size: int = 0) -> Delivery:
    """Make a delivery that is received now."""
    content = body(bill=f"B{number}", filler="x" * size)
    return Delivery.of(content, received_at=datetime.now(UTC), source="webhook")


async def until(holds: Callable[[], object], what: str) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 -- nothing signals it
            await asyncio.sleep(0.01)
    assert holds(), what


async def spool_some(lane: SpoolingLane, numbers: range) -> list[Delivery]:
    given = [sent(number) for number in numbers]
    outcomes = await asyncio.gather(*map(lane.append, given))
    assert outcomes == [SPOOLED] * len(given)
    return given


def logged(owner: Connection) -> list[tuple[bytes, datetime]]:
    rows = owner.execute("SELECT body, received_at FROM ledger.logged_event ORDER BY position")
    return rows.fetchall()


def repeats(owner: Connection) -> int:
    return int(one(owner, "SELECT count(*) FROM ledger.repeat_delivery"))


def assert_in_log_once(owner: Connection, given: list[Delivery]) -> None:
    assert sorted(logged(owner)) == sorted((each.body, each.received_at) for each in given)
    assert one(owner, "SELECT max(position) = count(*) FROM ledger.event_log")
    assert repeats(owner) == 0


async def drained(spool: Path) -> None:
    await until(lambda: not waiting_in(spool).bytes, "the spool is empty")


def test_what_the_log_does_not_take_in_time_is_spooled_and_then_in_the_log_once(
    database_url: str, owner: Connection, tmp_path: Path
) -> None:
    async def use() -> list[Delivery]:
        async with running(database_url, tmp_path) as lane:
            first = sent(0)
            assert isinstance(await lane.append(first), Outcome)
            with lane_held(database_url):
                given = await spool_some(lane, range(1, 20))
                assert waiting_in(tmp_path).deliveries == 19
                given += await spool_some(lane, range(20, 30))  # at once: it is known now
                await lane.prove(within=0.1)  # ready, for they can be stored
                await asyncio.sleep(0.5)
            await drained(tmp_path)
            last = sent(30)
            assert isinstance(await lane.append(last), Outcome)
            return [first, *given, last]

    given = asyncio.run(use())
    assert_in_log_once(owner, given)
    assert logged(owner)[1:30] == [(each.body, each.received_at) for each in given[1:30]]
    # The time counts as alive.
    assert one(owner, "SELECT count(*) FROM ledger.liveness") == 1
    assert one(owner, "SELECT count(*) FROM ledger.refusal") == 0
    assert list(tmp_path.glob("worker-*")) == []


def test_a_database_that_is_away_from_the_start_is_no_outage(
    postgres_server: PrivateServer, tmp_path: Path
) -> None:
    url = postgres_server.dsn()
    schema.migrate(url)
    postgres_server.kill()

    async def use() -> list[Delivery]:
        async with running(url, tmp_path) as lane:
            await until(lambda: not lane.is_able, "the outage is known")
            given = await spool_some(lane, range(10))
            await asyncio.to_thread(postgres_server.start)
            await drained(tmp_path)
            return given

    given = asyncio.run(use())
    with psycopg.connect(url, autocommit=True) as owner:
        assert_in_log_once(owner, given)
        alive_from = one(owner, "SELECT min(alive_from) FROM ledger.liveness")
        assert alive_from <= given[-1].received_at + timedelta(seconds=0.5)
        assert one(owner, "SELECT count(*) FROM ledger.liveness") == 1


def test_a_run_that_ended_before_the_database_was_back_was_alive_all_the_same(
    postgres_server: PrivateServer, tmp_path: Path
) -> None:
    """Also if nothing came that could be spooled."""
    url = postgres_server.dsn()
    schema.migrate(url)
    postgres_server.kill()

    async def live() -> datetime:
        async with running(url, tmp_path) as lane:
            await until(lambda: lane.is_spooling, "it could spool")
            since = datetime.now(UTC)
            await until(lambda: list(tmp_path.glob("worker-*/alive.json")), "a note of it")
            return since

    async def follow(left: Path) -> None:
        async with running(url, tmp_path):
            await until(lambda: not left.exists(), "the note is taken")

    since = asyncio.run(live())
    [left] = tmp_path.glob("worker-*")
    postgres_server.start()
    asyncio.run(follow(left))
    with psycopg.connect(url, autocommit=True) as owner:
        assert one(owner, "SELECT count(DISTINCT instance) FROM ledger.liveness") == 2
        alive_from = one(owner, "SELECT min(alive_from) FROM ledger.liveness")
    assert alive_from <= since + timedelta(seconds=0.5)
    assert list(tmp_path.glob("worker-*")) == []


def abandon(spool: Path, contents: list[bytes]) -> Path:
    """Leave the folder of a process that is gone."""
    folder = WorkerFolder.create(spool)
    for number, content in enumerate(contents, 1):
        path = folder.path / f"{number:08}.segment"
        path.write_bytes(content + bytes(500))
    folder.close()
    return folder.path


def records(given: list[Delivery]) -> bytes:
    return b"".join(encode(each.received_at, each.body) for each in given)


def test_the_spool_of_a_process_that_is_gone_is_drained_in_order_even_twice(
    database_url: str, owner: Connection, tmp_path: Path
) -> None:
    """Killed after the log had taken it and before the folder was removed."""
    given = [sent(number) for number in range(700)]
    repeat = Delivery.of(given[0].body, received_at=datetime.now(UTC), source="webhook")
    path = abandon(tmp_path / "spool", [records(given[:300]), records([*given[300:], repeat])])
    shutil.copytree(path, tmp_path / "copy")

    async def use() -> None:
        async with running(database_url, tmp_path / "spool"):
            await until(lambda: not path.exists(), "the folder is drained")
            shutil.copytree(tmp_path / "copy", path)
            await until(lambda: not path.exists(), "the folder is drained again")

    asyncio.run(use())
    assert logged(owner) == [(each.body, each.received_at) for each in given]
    assert repeats(owner) == 1


def test_a_folder_in_use_is_left_alone(
    database_url: str, owner: Connection, tmp_path: Path
) -> None:
    folder = WorkerFolder.create(tmp_path)
    (folder.path / "00000001.segment").write_bytes(records([sent(1)]))

    async def use() -> None:
        async with running(database_url, tmp_path) as lane:
            await lane.append(sent(2))
            await asyncio.sleep(0.5)

    asyncio.run(use())
    assert len(logged(owner)) == 1
    assert folder.segments()
    folder.close()


def test_damage_is_set_aside_and_the_rest_is_replayed(
    database_url: str, owner: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever another test of this process has set up for logging.
    log = CapturingLogger()
    monkeypatch.setattr(drain_module, "_log", log)
    given = [sent(number) for number in range(4)]
    parts = [bytearray(records([each])) for each in given]
    parts[1][HEAD_BYTES + 5] ^= 1  # in the body
    parts[2][6] ^= 1  # in the head
    torn = records([sent(9)])[:-3]
    content = b"".join(map(bytes, parts)) + torn
    path = abandon(tmp_path, [content])

    async def use() -> None:
        async with running(database_url, tmp_path):
            await until(lambda: not path.exists(), "the folder is drained")

    asyncio.run(use())
    assert logged(owner) == [(each.body, each.received_at) for each in (given[0], given[3])]
    kept = sorted(each.read_bytes() for each in (tmp_path / "set-aside").iterdir())
    assert kept == sorted([bytes(parts[1]), bytes(parts[2]), torn + bytes(3)])
    assert set_aside_in(tmp_path) == 3
    said = [call.args[0] for call in log.calls]
    assert said.count("a record of the spool is damaged") == 2
    assert said.count("the last record of a spool was not finished") == 1


def test_a_full_spool_refuses_and_has_room_again_when_it_is_drained(
    database_url: str, owner: Connection, tmp_path: Path
) -> None:
    async def use() -> list[Delivery]:
        stored: list[Delivery] = []
        async with running(database_url, tmp_path) as lane:
            await lane.append(sent(0))
            with lane_held(database_url):
                await spool_some(lane, range(1, 2))
                with pytest.raises(AppendError, match="the spool is full"):  # noqa: PT012 -- at some time
                    for number in range(2, 200):
                        stored.append(sent(number, size=1_000))
                        assert await lane.append(stored[-1]) is SPOOLED
                stored.pop()
                with pytest.raises(AppendError):
                    await lane.prove(within=0.1)
            await drained(tmp_path)
            with lane_held(database_url):
                assert await lane.append(sent(999, size=1_000)) is SPOOLED
            await drained(tmp_path)
        return stored

    stored = asyncio.run(use())
    assert len(stored) > 20
    assert {each.body for each in stored} <= {content for content, _ in logged(owner)}
    assert one(owner, "SELECT max(position) = count(*) FROM ledger.event_log")
    assert one(owner, "SELECT sum(deliveries) FROM ledger.refusal") == 1


def test_after_a_failed_flush_a_segment_is_never_written_to_again(
    database_url: str, owner: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    fails = True

    def fdatasync(descriptor: int) -> None:
        nonlocal fails
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if path.endswith(".segment"):
            flushed.append(path)
            if fails:
                fails = False
                raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fdatasync)

    async def use() -> list[Delivery]:
        async with running(database_url, tmp_path) as lane:
            await lane.append(sent(0))
            with lane_held(database_url):
                with pytest.raises(AppendError, match="Input/output error"):
                    await lane.append(sent(1))
                given = await spool_some(lane, range(2, 12))
            await drained(tmp_path)
            return given

    given = asyncio.run(use())
    assert flushed.count(flushed[0]) == 1
    assert len(flushed) > 1
    assert {each.body for each in given} <= {content for content, _ in logged(owner)}


def test_bodies_that_the_database_refuses_are_kept_each_even_if_they_came_at_once(
    database_url: str, owner: Connection, tmp_path: Path
) -> None:
    owner.execute("ALTER TABLE ledger.event_log ADD CONSTRAINT no CHECK (bill_id > 'B3')")
    at = datetime.now(UTC)
    given = [
        Delivery.of(body(bill=f"B{number}"), received_at=at, source="webhook")
        for number in range(6)
    ]
    path = abandon(tmp_path, [records(given)])

    async def use() -> None:
        async with running(database_url, tmp_path):
            await until(lambda: not path.exists(), "the folder is drained")

    asyncio.run(use())
    assert {content for content, _ in logged(owner)} == {each.body for each in given[4:]}
    kept = {each.read_bytes() for each in (tmp_path / "set-aside").iterdir()}
    assert kept == {each.body for each in given[:4]}


def test_a_spool_whose_thread_has_died_takes_nothing(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path / "spool", budget=BUDGET, longest=BODY_BYTES)
    assert not writer.can_take()
    writer.start()
    wait_until(writer.can_take, "the spool is made")
    writer.put(None, lambda _: None)  # type: ignore[arg-type]  # what no thread survives
    wait_until(lambda: not writer.can_take(), "nothing is said to be stored")


def test_what_the_database_refuses_for_its_content_holds_up_nothing(
    database_url: str, owner: Connection, tmp_path: Path
) -> None:
    owner.execute("ALTER TABLE ledger.event_log ADD CONSTRAINT no CHECK (bill_id <> 'B3')")

    async def use() -> None:
        async with running(database_url, tmp_path) as lane:
            await lane.append(sent(0))
            with lane_held(database_url):
                await spool_some(lane, range(1, 6))
            await drained(tmp_path)

    asyncio.run(use())
    assert len(logged(owner)) == 5
    [kept] = (tmp_path / "set-aside").iterdir()
    assert kept.read_bytes() == sent(3).body
