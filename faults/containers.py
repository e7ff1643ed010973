"""Faults of the network and the machine of a PostgreSQL that runs in a container.

They last longer than all time-outs: connections are half-open, for nothing is reset, and both sides
have to find out by themselves that the other is gone.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random

from faults import container
from faults.fault import fault
from faults.load import Load
from faults.processes import rebuild
from faults.world import World, rows
from ledger.postgres.locks import Lock, held
from tests.support.server import wait_until

PAUSED = "container-paused"
DISCONNECTED = "container-disconnected"

LASTS = (2.0, 25.0)
"""Seconds. Ledger gives a connection up after ten without a packet."""

FREE_SECONDS = 60.0
"""Within which what a lost session held is free again."""


def _no_container(_disk: Path) -> str | None:
    return container.missing()


def _no_filter(_disk: Path) -> str | None:
    return container.missing() or container.cannot_filter()


@fault(PAUSED, reason=_no_container, lasts=LASTS, contained=True)
def _paused(world: World, _load: Load, _random: Random) -> Iterator[None]:
    world.container.pause()
    yield
    world.container.unpause()


@fault(DISCONNECTED, reason=_no_container, lasts=LASTS, contained=True)
def _disconnected(world: World, _load: Load, _random: Random) -> Iterator[None]:
    world.container.disconnect()
    yield
    world.container.reconnect()


@fault("container-disconnected-in-rebuild", reason=_no_container, lasts=LASTS, contained=True)
def _disconnected_in_rebuild(world: World, _load: Load, _random: Random) -> Iterator[None]:
    """A rebuild loses its sessions, and what they held is free for the next one."""
    started = rebuild(world)
    with world.owner() as owner:
        wait_until(lambda: rows(owner, f"SELECT {held(Lock.REBUILD)}")[0][0], "a rebuild runs")
    world.container.disconnect()
    yield
    world.container.reconnect()
    started.wait(120)
    wait_until(world.container.answers, "the container is reached again")
    # Until the server has given the lost session up, it says that another rebuild runs.
    wait_until(lambda: rebuild(world).wait(120) == 0, "a rebuild is done", seconds=FREE_SECONDS)


@fault("container-packets-dropped", reason=_no_filter, lasts=LASTS, contained=True)
def _packets_dropped(world: World, _load: Load, _random: Random) -> Iterator[None]:
    """The way to the container is there, and everything on it gets lost."""
    world.container.drop("INPUT")
    world.container.drop("OUTPUT")
    yield
    world.container.pass_on("INPUT")
    world.container.pass_on("OUTPUT")


@fault("container-answers-dropped", reason=_no_filter, lasts=LASTS, contained=True)
def _answers_dropped(world: World, _load: Load, _random: Random) -> Iterator[None]:
    """What is sent arrives and is committed, and its answer gets lost."""
    world.container.drop("OUTPUT")
    yield
    world.container.pass_on("OUTPUT")
