"""PostgreSQL in a container that is paused or cut off: nothing is reset, packets are lost."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from psycopg import Connection

from faults import container, containers
from faults.fault import FAULTS
from faults.rounds import play
from faults.world import World
from ledger.postgres.connect import connect
from ledger.postgres.locks import Lock, try_lock_session
from tests.support.payloads import event
from tests.support.server import wait_until
from tests.support.sessions import one

pytestmark = pytest.mark.slow

SEED = 1
ROUNDS = {
    # Longer than a delivery or a statement may take: the server's kernel goes on acknowledging.
    containers.PAUSED: (7.0, 8.0),
    # Longer than it takes to give a connection up of which no packet comes.
    containers.DISCONNECTED: (11.0, 12.0),
}
LONG = 90.0
"""Seconds. PostgreSQL keeps a lost session for two hours by default."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if reason := container.missing():
        pytest.skip(reason)
    with World(tmp_path_factory.mktemp("world"), None) as world:
        yield world


@pytest.mark.parametrize("name", ROUNDS)
def test_what_was_acknowledged_is_in_the_log_once(
    world: World, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    played = play(world, FAULTS[name], 1, SEED, lasts=ROUNDS[name])
    with capsys.disabled():
        print(f"\n{played.line()}", end="")  # noqa: T201 -- what was measured
    assert played.problems == []
    assert played.spooled
    assert not played.refused


def test_what_lost_clients_held_is_soon_free(world: World) -> None:
    """Also those to which an answer or a notification was on its way.

    A decision's lock is wanted by another session, and the projector's by its own next one.
    """
    if reason := container.cannot_filter():
        pytest.skip(reason)
    with (
        closing(connect(world.url, "lost")) as lost,
        closing(connect(world.url, "test")) as other,
        world.owner() as owner,
    ):
        assert try_lock_session(lost, Lock.DECISION)
        assert not try_lock_session(other, Lock.DECISION)
        cut = [port(owner, "lost"), port(owner, "projector")]
        for chain in ("INPUT", "OUTPUT"):
            world.container.drop(chain, *cut)
        try:
            world.server.record(event("L", "B", "bill.created"))
            position = world.server.head()
            wait_until(lambda: try_lock_session(other, Lock.DECISION), "it is free", seconds=LONG)
            wait_until(lambda: folded(owner) >= position, "another session leads", seconds=LONG)
        finally:
            for chain in ("INPUT", "OUTPUT"):
                world.container.pass_on(chain, *cut)


def port(owner: Connection, purpose: str) -> int:
    """Return the port from which a session of Ledger's came."""
    query = "SELECT client_port FROM pg_stat_activity WHERE application_name = %s"
    return int(one(owner, query, f"ledger {purpose}"))


def folded(owner: Connection) -> int:
    return int(one(owner, "SELECT position FROM state.checkpoint"))
