"""A rebuild in shares: taken by several machines, given back by the dead, gone on with later."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

import psycopg
import pytest
from psycopg import Connection

from ledger.errors import RebuildError
from ledger.eventlog import read
from ledger.eventlog.append import append
from ledger.postgres.connect import connect
from ledger.projection import fold_share, parallel, rebuild, shares
from ledger.projection.delivery_stats import DeliveryStats
from ledger.projection.fold_share import Job
from ledger.projection.join import join
from ledger.projection.parallel import Chunk, chunks
from ledger.projection.rebuild import Rebuilt
from ledger.projection.shares import Counts
from tests.support.histories import RECEIVED, mixed_history
from tests.support.sessions import drain, in_thread, one, pid_of, state_rows, terminate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_chunks")]

BILLS = 40

State = dict[str, list[str]]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "chunks", partial(chunks, events=7))


@pytest.fixture
def live(service: Connection) -> State:
    """Fill the log and the state; return the state."""
    append(service, mixed_history(BILLS))
    drain(service)
    return state_rows(service)


def run(
    url: str, on_progress: Callable[[int, int], None] = lambda *_: None, *, anew: bool = False
) -> Rebuilt:
    return rebuild.rebuild(
        url, processes=1, started_at=RECEIVED, on_progress=on_progress, anew=anew
    )


def take_part(url: str) -> Counts:
    return join(url, processes=1, on_progress=lambda *_: None)


class StoppedError(Exception):
    pass


def interrupt_half_way(url: str) -> int:
    """Begin a rebuild and end it in its midst; return how many events were done."""
    told: list[int] = []

    def stop(done: int, todo: int) -> None:
        told.append(done)
        if done * 2 > todo:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(url, stop)
    return told[-1]


@contextmanager
def waiting_rebuild(url: str) -> Iterator[threading.Event]:
    """Run a rebuild that waits, after some shares, until the event is set."""
    first, go_on = threading.Event(), threading.Event()

    def wait(done: int, todo: int) -> None:
        if done * 4 > todo:
            first.set()
            assert go_on.wait(60)

    with in_thread(lambda: run(url, wait)):
        assert first.wait(60)
        try:
            yield go_on
        finally:
            go_on.set()


# --- several machines -------------------------------------------------------------------------


def test_another_machine_folds_shares_of_a_rebuild(
    database_url: str, service: Connection, live: State
) -> None:
    joined: list[Counts] = []
    with (
        waiting_rebuild(database_url) as go_on,
        in_thread(lambda: joined.append(take_part(database_url))),
    ):
        wait_until(lambda: shares.done(service).left == 0, "all that is cut is folded")
        assert not one(service, "SELECT is_cut FROM state_next.rebuild")
        go_on.set()
    assert joined[0].events > 7
    assert joined[0].events < read.head(service)
    assert state_rows(service) == live


def test_what_a_lost_machine_had_taken_is_folded_by_another(
    database_url: str, service: Connection, owner: Connection, live: State
) -> None:
    lost = connect(database_url, "rebuild")
    lost.autocommit = False
    with waiting_rebuild(database_url) as go_on:
        assert shares.take(lost)
        lost.execute("INSERT INTO state_next.lab VALUES ('half done', now(), now())")
        go_on.set()
        wait_until(lambda: shares.done(service).left == 1, "all others are done")
        terminate(owner, pid_of(lost))
    lost.close()
    assert state_rows(service) == live


def test_a_machine_that_stands_still_does_not_hold_a_rebuild_up(
    database_url: str,
    service: Connection,
    live: State,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shares, "STALLED_SECONDS", 0)
    with (
        waiting_rebuild(database_url) as go_on,
        closing(connect(database_url, "rebuild")) as frozen,
    ):
        frozen.autocommit = False
        share = shares.take(frozen)
        assert share
        go_on.set()
        wait_until(lambda: not rebuild_runs(service), "the rebuild is done")
        with pytest.raises(psycopg.OperationalError):  # what it would write is not written
            shares.finish(frozen, share, Counts(events=1), DeliveryStats.none())
    assert state_rows(service) == live


def test_a_session_that_works_is_not_ended(
    database_url: str, service: Connection, live: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert live
    with waiting_rebuild(database_url), closing(connect(database_url, "rebuild")) as busy:
        busy.autocommit = False
        assert shares.take(busy)
        assert list(shares.end_stalled(service)) == []
        monkeypatch.setattr(shares, "STALLED_SECONDS", 0)
        assert list(shares.end_stalled(service)) == [pid_of(busy)]


def test_there_is_nothing_to_join_while_no_rebuild_runs(
    database_url: str, service: Connection, live: State
) -> None:
    assert live
    with pytest.raises(RebuildError, match="start one with `ledger rebuild`"):
        take_part(database_url)
    interrupt_half_way(database_url)
    with pytest.raises(RebuildError, match="start one with `ledger rebuild`"):
        take_part(database_url)
    assert shares.done(service).left


def test_who_joined_is_told_that_the_rebuild_was_interrupted(
    database_url: str, service: Connection, live: State
) -> None:
    first, joined, go_on = threading.Event(), threading.Event(), threading.Event()

    def stop(done: int, todo: int) -> None:
        if done * 4 > todo:
            first.set()
            assert go_on.wait(60)
            raise StoppedError

    def leader() -> None:
        with pytest.raises(StoppedError):
            run(database_url, stop)

    def helper() -> None:
        with pytest.raises(RebuildError, match="was interrupted"):
            join(database_url, processes=1, on_progress=lambda *_: joined.set())

    with connect(database_url, "rebuild") as slow, slow.transaction(), in_thread(leader):
        assert first.wait(60)
        assert shares.take(slow)  # so that there is always something left
        with in_thread(helper):
            assert joined.wait(60)
            go_on.set()
    assert run(database_url).before
    assert state_rows(service) == live


# --- interrupted ------------------------------------------------------------------------------


def test_an_interrupted_rebuild_is_gone_on_with(
    database_url: str, service: Connection, live: State
) -> None:
    done = interrupt_half_way(database_url)
    told: list[int] = []
    made = run(database_url, lambda done, _: told.append(done))
    assert made.before == done
    assert told[0] > done
    assert made.counts.events == made.position == read.head(service)
    assert state_rows(service) == live


def test_what_came_after_an_interruption_is_in_the_state(
    database_url: str, service: Connection
) -> None:
    history = mixed_history(BILLS)
    append(service, history[:100])
    interrupt_half_way(database_url)
    append(service, history[100:])
    assert run(database_url).position == read.head(service)
    rebuilt = state_rows(service)
    assert run(database_url).before == 0
    assert state_rows(service) == rebuilt


def test_a_rebuild_that_was_interrupted_before_its_swap_only_swaps(
    database_url: str,
    service: Connection,
    live: State,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(_: Connection) -> int:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(rebuild, "_swap", stop)
        with pytest.raises(StoppedError):
            run(database_url)
    monkeypatch.setattr(rebuild, "fold_share", None)  # whoever calls it fails
    made = run(database_url)
    assert made.before == made.counts.events == read.head(service)
    assert state_rows(service) == live


@pytest.mark.parametrize("when", ["before the first share", "in its midst", "before its end"])
def test_a_rebuild_that_was_interrupted_while_it_was_cut_cuts_the_rest(
    database_url: str,
    service: Connection,
    live: State,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    cut, left = shares.cut, iter([True] * (3 if when == "in its midst" else 0))

    def stop(connection: Connection, *chunk: Chunk) -> None:
        if not next(left, False):
            raise StoppedError
        cut(connection, *chunk)

    with monkeypatch.context() as patch:
        patch.setattr(shares, "all_cut" if when == "before its end" else "cut", stop)
        with pytest.raises(StoppedError):
            run(database_url)
    made = run(database_url)
    assert made.counts.events == read.head(service)
    assert state_rows(service) == live


@pytest.mark.parametrize(
    "other",
    [
        "UPDATE state_next.rebuild SET ledger_version = 'another'",
        "UPDATE state_next.checkpoint SET fold_version = fold_version - 1",
        "UPDATE state_next.rebuild SET is_archived = true",
        "UPDATE state_next.rebuild SET events_total = events_total + 1000000",
    ],
)
def test_a_rebuild_that_another_began_is_begun_anew(
    database_url: str, service: Connection, live: State, other: str
) -> None:
    interrupt_half_way(database_url)
    service.execute(other.encode())
    assert run(database_url).before == 0
    assert state_rows(service) == live


def test_a_rebuild_can_be_begun_anew(database_url: str, service: Connection, live: State) -> None:
    interrupt_half_way(database_url)
    service.execute("UPDATE state_next.bill SET state = 'deleted'")
    assert run(database_url, anew=True).before == 0
    assert state_rows(service) == live


def test_a_machine_that_stands_still_does_not_keep_the_next_rebuild_from_beginning_anew(
    database_url: str, service: Connection, live: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "STALLED_SECONDS", 0)
    interrupt_half_way(database_url)
    with closing(connect(database_url, "rebuild")) as frozen:
        frozen.autocommit = False
        assert shares.take(frozen)
        assert run(database_url, anew=True).before == 0
    assert state_rows(service) == live


def test_a_share_is_taken_by_one_at_a_time(
    database_url: str, service: Connection, live: State
) -> None:
    assert live
    interrupt_half_way(database_url)
    left = shares.done(service).left
    with connect(database_url, "rebuild") as other, other.transaction(), service.transaction():
        first, second = shares.take(service), shares.take(other)
        assert first
        assert second
        assert first.share_id != second.share_id
    job = Job(read.head(service))
    for _ in range(left):
        assert fold_share.fold_share(service, job)
    assert fold_share.fold_share(service, job) is None


def rebuild_runs(connection: Connection) -> bool:
    return bool(one(connection, "SELECT to_regnamespace('state_next') IS NOT NULL"))
