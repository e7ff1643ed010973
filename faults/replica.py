"""Faults of a replicated PostgreSQL: the standby is gone, or takes over from a dead primary."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from faults.fault import fault
from faults.load import SPOOLED, Load
from faults.world import POSTGRES, World, rows
from ledger.embedded import child
from ledger.embedded.home import USER, find_programs
from tests.support.postgres import PrivateServer
from tests.support.server import wait_until

VERSION = 18


def make_standby(primary: PrivateServer, folder: Path) -> PrivateServer:
    """Copy a running primary into a folder, and start the copy as its synchronous standby."""
    folder.mkdir()
    user = child.server_user()
    for name in ("password",):
        shutil.copy2(primary.folder / name, folder / name)
        if user:
            shutil.chown(folder / name, user.uid, user.gid)
    if user:
        shutil.chown(folder, user.uid, user.gid)
    place = urlsplit(primary.dsn())
    command = [
        str(find_programs(VERSION) / "pg_basebackup"),
        f"--dbname=postgresql://{USER}:{place.password}@127.0.0.1:{place.port}/?application_name=b",
        f"--pgdata={folder / 'cluster'}",
        "--write-recovery-conf",
        "--checkpoint=fast",
        "--no-sync",
    ]
    done = child.run(command, user)
    assert done.returncode == 0, done.stdout
    return PrivateServer(folder, settings=POSTGRES)


def make_synchronous(primary: PrivateServer, world: World, standbys: str) -> None:
    """Have each commit wait for a standby."""
    with world.owner() as owner:
        owner.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{standbys}'".encode())
        owner.execute("SELECT pg_reload_conf()")
    del primary


@fault("standby-gone")
def _standby_gone(world: World, load: Load, _random: Random) -> Iterator[None]:
    """Commits wait for a standby that is not there."""
    make_synchronous(world.postgres, world, "nobody")
    load.wait_for(1, SPOOLED)
    yield
    with world.owner() as owner:
        owner.execute("ALTER SYSTEM RESET synchronous_standby_names")
        owner.execute("SELECT pg_reload_conf()")


@fault("standby-promoted")
def _standby_promoted(world: World, load: Load, random: Random) -> Iterator[None]:
    """The primary dies and its synchronous standby takes over, with all that was acknowledged."""
    former = world.postgres
    standby = make_standby(former, world.disk / f"standby-{random.randrange(10**9)}")
    make_synchronous(former, world, "*")
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
