"""Faults of a replicated PostgreSQL: the standby is gone, or takes over from a dead primary."""

import shutil
from collections.abc import Iterator
from random import Random
from urllib.parse import urlsplit

from faults.fault import fault
from faults.load import SPOOLED, Load
from faults.world import POSTGRES, World, rows
from tests.support.postgres import PrivateServer
from tests.support.replica import make_standby
from tests.support.server import wait_until


def _wait_for_standby(world: World, names: str) -> None:
    """Have each commit wait for a standby of these names."""
    with world.owner() as owner:
        owner.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'".encode())
        owner.execute("SELECT pg_reload_conf()")


@fault("standby-gone")
def _standby_gone(world: World, load: Load, _random: Random) -> Iterator[None]:
    """Commits wait for a standby that is not there."""
    _wait_for_standby(world, "nobody")
    load.wait_for(1, SPOOLED)
    yield
    with world.owner() as owner:
        owner.execute("ALTER SYSTEM RESET synchronous_standby_names")
        owner.execute("SELECT pg_reload_conf()")


@fault("standby-promoted")
def _standby_promoted(world: World, load: Load, random: Random) -> Iterator[None]:
    """The primary dies and its synchronous standby takes over, with all that was acknowledged."""
    former = world.postgres
    assert isinstance(former, PrivateServer)
    folder = world.disk / f"standby-{random.randrange(10**9)}"
    standby = make_standby(former, folder, settings=POSTGRES)
    _wait_for_standby(world, "*")
    with world.owner() as owner:
        query = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_until(lambda: rows(owner, query)[0][0] == 1, "the standby is synchronous")
    load.wait_for(50, 200)
    former.kill()
    world.postgres = standby
    yield
    with world.owner() as owner:
        owner.execute("SELECT pg_promote(true, 60)")
    world.relay.target = int(urlsplit(standby.dsn()).port or 0)
    former.stop()
    shutil.rmtree(former.folder)
