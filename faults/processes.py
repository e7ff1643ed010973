"""Faults of Ledger's own processes: killed, stopped and frozen, also in the middle of something."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random

import psutil

from faults.fault import fault
from faults.load import SPOOLED, Load
from faults.world import World
from ledger.spool.folder import waiting_in
from tests.support.server import Process, wait_until

WAITING = 40
"""How many deliveries wait on disk before a drain begins."""


def family(pid: int) -> list[int]:
    """Return the ids of a process and of all below it."""
    with suppress(psutil.Error):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def send_all(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to processes, of which some may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def frozen(pids: list[int]) -> Iterator[None]:
    """Stop processes for a while."""
    send_all(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        send_all(pids, signal.SIGCONT)


@fault("serve-killed")
def _serve_killed(world: World, _load: Load, _random: Random) -> Iterator[None]:
    world.server.kill_server()
    yield
    world.server.start_server()


@fault("serve-parent-killed")
def _serve_parent_killed(world: World, _load: Load, _random: Random) -> Iterator[None]:
    workers = world.workers()
    world.server.serve.send_signal(signal.SIGKILL)
    world.server.serve.wait()
    wait_until(lambda: not any(map(psutil.pid_exists, workers)), "orphaned workers end")
    yield
    world.server.start_server()


@fault("serve-terminated")
def _serve_terminated(world: World, _load: Load, _random: Random) -> Iterator[None]:
    code = world.server.serve.terminate()
    assert code == 0, f"serve ended with {code} when it was told to stop"
    yield
    world.server.start_server()


@fault("worker-killed")
def _worker_killed(world: World, _load: Load, random: Random) -> Iterator[None]:
    os.kill(random.choice(world.workers()), signal.SIGKILL)
    yield
    wait_until(lambda: len(world.workers()) > 1, "the worker is replaced", seconds=60)


@fault("worker-frozen")
def _worker_frozen(world: World, _load: Load, random: Random) -> Iterator[None]:
    with frozen([random.choice(world.workers())]):
        yield


@fault("serve-frozen")
def _serve_frozen(world: World, _load: Load, _random: Random) -> Iterator[None]:
    with frozen(family(world.server.serve.pid)):
        yield


@fault("projector-killed")
def _projector_killed(world: World, _load: Load, _random: Random) -> Iterator[None]:
    world.server.kill_projector()
    yield
    world.server.start_projector()


@fault("projector-terminated")
def _projector_terminated(world: World, _load: Load, _random: Random) -> Iterator[None]:
    assert world.server.projector
    code = world.server.projector.terminate()
    assert code == 0, f"project ended with {code} when it was told to stop"
    yield
    world.server.start_projector()


@fault("projector-frozen")
def _projector_frozen(world: World, _load: Load, _random: Random) -> Iterator[None]:
    assert world.server.projector
    with frozen(family(world.server.projector.pid)):
        yield


def rebuild(world: World) -> Process:
    """Start a rebuild."""
    return Process(
        "rebuild",
        "--yes",
        "--processes",
        "2",
        settings=world.server.settings,
        output=world.folder / "rebuild.log",
    )


def pause(world: World, seconds: float) -> None:
    """Let a rebuild go on for some seconds, whatever it does in them."""
    del world
    time.sleep(seconds)


@fault("rebuild-killed")
def _rebuild_killed(world: World, _load: Load, random: Random) -> Iterator[None]:
    started = rebuild(world)
    pause(world, random.uniform(0.5, 4.0))
    started.kill()
    yield
    if random.random() < 0.5:
        code = rebuild(world).wait(120)
        assert code == 0, f"the rebuild after a killed one ended with {code}"


@fault("rebuild-terminated")
def _rebuild_terminated(world: World, _load: Load, random: Random) -> Iterator[None]:
    started = rebuild(world)
    pause(world, random.uniform(0.5, 4.0))
    started.terminate()
    yield


@fault("rebuild-frozen")
def _rebuild_frozen(world: World, _load: Load, random: Random) -> Iterator[None]:
    started = rebuild(world)
    pause(world, random.uniform(0.5, 4.0))
    with frozen(family(started.pid)):
        yield
    code = started.wait(120)
    assert code == 0, f"the rebuild ended with {code}"


def drain(world: World, load: Load) -> None:
    """Let deliveries gather on disk, then begin to drain them."""
    with world.owner() as owner, owner.transaction():
        owner.execute("SELECT pg_advisory_xact_lock(7402, 1)")
        load.wait_for(WAITING, SPOOLED)


def _begun(world: World, before: int) -> Callable[[], bool]:
    return lambda: waiting_in(world.spool).deliveries < before


def _in_drain(world: World, load: Load, random: Random) -> None:
    """Return in the middle of a drain."""
    drain(world, load)
    before = waiting_in(world.spool).deliveries
    wait_until(_begun(world, before), "the spool drains", seconds=60)
    time.sleep(random.uniform(0, 0.1))


@fault("drain-killed")
def _drain_killed(world: World, load: Load, random: Random) -> Iterator[None]:
    _in_drain(world, load, random)
    world.server.kill_server()
    yield
    world.server.start_server()


@fault("drain-terminated")
def _drain_terminated(world: World, load: Load, random: Random) -> Iterator[None]:
    _in_drain(world, load, random)
    world.server.serve.terminate()
    yield
    world.server.start_server()


@fault("drain-frozen")
def _drain_frozen(world: World, load: Load, random: Random) -> Iterator[None]:
    _in_drain(world, load, random)
    with frozen(family(world.server.serve.pid)):
        yield


@fault("drain-of-the-killed-killed")
def _second_drain_killed(world: World, load: Load, random: Random) -> Iterator[None]:
    """The server that drains what a killed one left is killed, too."""
    with world.owner() as owner, owner.transaction():
        owner.execute("SELECT pg_advisory_xact_lock(7402, 1)")
        load.wait_for(WAITING, SPOOLED)
        world.server.kill_server()
    world.server.start_server()
    time.sleep(random.uniform(0, 1.0))
    world.server.kill_server()
    yield
    world.server.start_server()


@fault("drain-without-database")
def _drain_without_database(world: World, load: Load, random: Random) -> Iterator[None]:
    """PostgreSQL crashes in the middle of a drain."""
    _in_drain(world, load, random)
    world.postgres.kill()
    yield
    world.postgres.start()


@fault("spooling-killed")
def _spooling_killed(world: World, load: Load, _random: Random) -> Iterator[None]:
    """The server is killed while it writes to disk, and starts without the database."""
    world.postgres.kill()
    load.wait_for(WAITING, SPOOLED)
    world.server.kill_server()
    world.server.start_server()
    load.wait_for(WAITING, SPOOLED)
    yield
    world.postgres.start()


@fault("spool-full", refuses=True)
def _spool_full(world: World, load: Load, _random: Random) -> Iterator[None]:
    """Long bodies come without the database until the spool is full and deliveries are refused."""
    world.postgres.kill()
    load.filler = 60_000
    load.wait_for(8, 503)
    yield
    load.filler = 0
    world.postgres.start()
