"""Many writers at once: positions stay gapless and in the order of the commits."""

import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe

import psycopg
import pytest
from psycopg import Connection

from ledger.eventlog import read
from ledger.eventlog.append import Outcome, append
from ledger.model.digest import digest
from ledger.postgres.connect import connect
from tests.support.histories import body, deliveries, delivery, respelled
from tests.support.sessions import (
    LONG,
    in_thread,
    lane_held,
    log_rows,
    one,
    pid_of,
    terminate,
    wait_until,
    wait_until_blocked,
)
from tests.support.writers import append_and_hang, append_batches

pytestmark = pytest.mark.slow

SPAWN = multiprocessing.get_context("spawn")


@contextmanager
def writers(url: str, count: int) -> Iterator[list[Connection]]:
    connections = [connect(url, "writer") for _ in range(count)]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


def end_by_commit(connection: Connection, owner: Connection) -> None:  # noqa: ARG001 -- one shape
    connection.commit()


def end_by_rollback(connection: Connection, owner: Connection) -> None:  # noqa: ARG001 -- one shape
    connection.rollback()


def end_by_termination(connection: Connection, owner: Connection) -> None:
    terminate(owner, pid_of(connection))


ENDS = {
    "commits": (end_by_commit, 1),
    "rolls back": (end_by_rollback, 0),
    "is terminated": (end_by_termination, 0),
}


@pytest.mark.parametrize("end", ENDS)
def test_an_append_waits_until_the_one_before_it_ends(
    database_url: str, owner: Connection, end: str
) -> None:
    """Nobody sees the second before the first, and it takes the place that is free then."""
    finish, appended = ENDS[end]
    with writers(database_url, 2) as (slow, quick):
        slow.autocommit = False
        assert append(slow, [delivery(body(bill="slow"))]) == [Outcome(1, recorded=True)]
        outcomes: list[Outcome] = []
        with in_thread(lambda: outcomes.extend(append(quick, [delivery(body(bill="quick"))]))):
            wait_until_blocked(owner, pid_of(quick))
            assert one(owner, "SELECT count(*) FROM ledger.event_log") == 0
            finish(slow, owner)
        assert outcomes == [Outcome(appended + 1, recorded=True)]
        assert one(owner, "SELECT count(*) FROM ledger.event_log") == appended + 1


@pytest.mark.parametrize("end", ENDS)
def test_the_same_event_from_two_writers_is_recorded_once(
    database_url: str, owner: Connection, end: str
) -> None:
    """The one that waited sees what the one before it committed meanwhile."""
    finish, appended = ENDS[end]
    with writers(database_url, 2) as (slow, quick):
        slow.autocommit = False
        append(slow, deliveries([body(), b"other"]))
        outcomes: list[Outcome] = []
        with in_thread(
            lambda: outcomes.extend(append(quick, [delivery(respelled(body()), received=9)]))
        ):
            wait_until_blocked(owner, pid_of(quick))
            finish(slow, owner)
        assert outcomes == [Outcome(1, recorded=not appended)]
        assert one(owner, "SELECT count(*) FROM ledger.repeat_delivery") == appended


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_another_default_isolation_gives_no_position_twice(
    database_url: str, owner: Connection, isolation: str
) -> None:
    """A snapshot from before the wait would not see what the other one committed."""
    name = owner.info.dbname
    setting = f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'"
    owner.execute(setting.encode())
    with writers(database_url, 2) as (first, second), ThreadPoolExecutor(2) as pool:
        with lane_held(database_url):
            answers = [
                pool.submit(append, first, deliveries([body(bill="B1"), body()])),
                pool.submit(append, second, deliveries([body(bill="B2"), body()])),
            ]
            wait_until_blocked(owner, pid_of(first), pid_of(second))
        positions = sorted(outcome.position for answer in answers for outcome in answer.result())
    assert [row[0] for row in log_rows(owner)] == [1, 2, 3]
    assert set(positions) == {1, 2, 3}


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_append_in_a_transaction_that_keeps_its_snapshot_is_refused(
    service: Connection, isolation: str
) -> None:
    with service.transaction(force_rollback=True):
        service.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}".encode())
        with pytest.raises(psycopg.Error, match="read committed"):
            append(service, [delivery(body())])
    assert log_rows(service) == []


def test_the_head_is_told_only_when_all_before_it_can_be_seen(
    database_url: str, owner: Connection
) -> None:
    with writers(database_url, 2) as (slow, reader):
        append(slow, [delivery(b"first")])
        slow.autocommit = False
        append(slow, [delivery(b"second")])
        heads: list[int] = []
        with in_thread(lambda: heads.append(read.head(reader))):
            wait_until_blocked(owner, pid_of(reader))
            slow.commit()
        assert heads == [2]
        assert one(reader, "SELECT count(*) FROM ledger.event_log") == 2


def test_a_killed_process_leaves_neither_its_events_nor_its_lock(
    database_url: str, service: Connection
) -> None:
    answers, pipe = SPAWN.Pipe(duplex=False)
    batch = [body(bill="lost"), body(bill="B")]
    process = SPAWN.Process(target=append_and_hang, args=(database_url, batch, pipe))
    process.start()
    try:
        assert answers.poll(LONG)
        assert answers.recv() == "appended"
    finally:
        process.kill()
        process.join(LONG)
    assert append(service, [delivery(body(bill="B"))]) == [Outcome(1, recorded=True)]


# --- as much as there is at once --------------------------------------------------------------


class Follower:
    """Reads the log as it grows, and notices when it was let to skip a position."""

    def __init__(self, url: str, head: Callable[[Connection], int]) -> None:
        self._url = url
        self._head = head
        self._stop = threading.Event()
        self.seen: list[int] = []
        self.rounds = 0

    def run(self) -> None:
        with connect(self._url, "reader") as connection:
            while not self._stop.is_set():
                self._read(connection)
            self._read(connection)

    def stop(self) -> None:
        self._stop.set()

    def _read(self, connection: Connection) -> None:
        head = self._head(connection)
        last = self.seen[-1] if self.seen else 0
        new = connection.execute(
            "SELECT position FROM ledger.event_log WHERE position > %s AND position <= %s"
            " ORDER BY position",
            (last, head),
        )
        self.seen += [position for (position,) in new]
        self.rounds += 1
        row = connection.execute(
            "SELECT count(*), coalesce(max(position), 0), count(DISTINCT position)"
            " FROM ledger.event_log"
        ).fetchone()
        assert row
        assert row[0] == row[1] == row[2], "a reader saw a position, and not all before it"


def plain_maximum(connection: Connection) -> int:
    return int(one(connection, "SELECT coalesce(max(position), 0) FROM ledger.event_log"))


class Writer:
    """Appends batches in all the ways in which a transaction can go on and end."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._chance = random.Random(seed)
        self._seed = seed
        self.acknowledged: dict[bytes, int] = {}
        self.recorded = 0

    def run(self) -> None:
        owner = psycopg.connect(self._url, autocommit=True)
        connection = connect(self._url, "writer")
        try:
            for number in range(30):
                ending = self._chance.choice(["at once", "slow", "slow", "undo", "end"])
                self._append(connection, self._batch(number), ending, owner)
                if connection.closed:
                    connection = connect(self._url, "writer")
        finally:
            connection.close()
            owner.close()

    def _batch(self, number: int) -> list[bytes]:
        size = self._chance.randrange(1, 6)
        own = [body(bill=f"{self._seed}-{number}-{nth}") for nth in range(size)]
        shared = [body(bill=f"shared-{self._chance.randrange(60)}") for _ in range(2)]
        batch = own + shared
        self._chance.shuffle(batch)
        return batch

    def _append(
        self, connection: Connection, batch: list[bytes], ending: str, owner: Connection
    ) -> None:
        if ending == "at once":
            self._acknowledge(batch, append(connection, deliveries(batch)))
            return
        connection.autocommit = False
        outcomes = append(connection, deliveries(batch))
        self._give_others_time(owner)
        if ending == "end":
            terminate(owner, pid_of(connection))
            connection.close()
        elif ending == "undo":
            connection.rollback()
        else:
            connection.commit()
            self._acknowledge(batch, outcomes)
        if not connection.closed:
            connection.autocommit = True

    def _give_others_time(self, owner: Connection) -> None:
        """Hold the transaction open until another writer has come as far as it can."""
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ledger writer'"
            " AND datname = current_database()"
            " AND (wait_event_type = 'Lock' OR state LIKE 'idle in transaction%%')"
        )
        for _ in range(40):  # not for ever: the others may be done
            if one(owner, query) >= 3:
                return

    def _acknowledge(self, batch: list[bytes], outcomes: list[Outcome]) -> None:
        for event, outcome in zip(batch, outcomes, strict=True):
            known = self.acknowledged.setdefault(digest(event), outcome.position)
            assert known == outcome.position, "one event was told two positions"
            self.recorded += outcome.recorded


def test_no_reader_skips_a_position_whatever_the_writers_do(
    database_url: str, owner: Connection
) -> None:
    followers = [Follower(database_url, plain_maximum), Follower(database_url, read.head)]
    threads = [Writer(database_url, seed) for seed in range(4)]
    batches = [
        [[body(bill=f"p{process}-{number}"), body(bill=f"shared-{number}")] for number in range(60)]
        for process in range(2)
    ]
    pipes = [SPAWN.Pipe(duplex=False) for _ in batches]
    processes = [
        SPAWN.Process(target=append_batches, args=(database_url, mine, pipe))
        for mine, (_, pipe) in zip(batches, pipes, strict=True)
    ]
    with ThreadPoolExecutor(8) as pool:
        for process in processes:
            process.start()
        reading = [pool.submit(follower.run) for follower in followers]
        try:
            for writing in [pool.submit(writer.run) for writer in threads]:
                writing.result()
            answers = [_answers(mine, ours) for mine, (ours, _) in zip(batches, pipes, strict=True)]
        finally:
            for follower in followers:
                follower.stop()
            for process in processes:
                process.join(LONG)
        for done in reading:
            done.result()

    positions = {digest: position for position, digest in _places(owner)}
    count = len(positions)
    assert sorted(positions.values()) == list(range(1, count + 1))
    assert one(owner, "SELECT count(*) FROM ledger.event_log") == count
    for follower in followers:
        assert follower.seen == list(range(1, count + 1))
        assert follower.rounds > 5, "it was over before anybody could read beside it"
    recorded = 0
    for acknowledged, new in [
        *((writer.acknowledged, writer.recorded) for writer in threads),
        *answers,
    ]:
        recorded += new
        for event, position in acknowledged.items():
            assert positions[event] == position
    assert recorded == count


def _answers(batches: list[list[bytes]], answers: Pipe) -> tuple[dict[bytes, int], int]:
    acknowledged: dict[bytes, int] = {}
    recorded = 0
    for batch in batches:
        wait_until(answers.poll, "a process answers")
        for event, (position, new) in zip(batch, answers.recv(), strict=True):
            assert acknowledged.setdefault(digest(event), position) == position
            recorded += new
    return acknowledged, recorded


def _places(owner: Connection) -> list[tuple[int, bytes]]:
    return owner.execute("SELECT position, digest FROM ledger.event_log").fetchall()
