"""Faults of PostgreSQL: gone, restarted, read-only, locked, crowded, full."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random

import psutil
import psycopg
from psycopg import Connection

from faults.fault import fault
from faults.load import Load
from faults.processes import family, frozen, rebuild
from faults.world import APPLICATION, POSTGRES, World, rows
from tests.support.server import wait_until

LOCKED = (
    "LOCK TABLE ledger.event_log IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE ledger.repeat_delivery IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE ledger.liveness IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE ledger.refusal IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE state.bill IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE state.checkpoint IN ACCESS EXCLUSIVE MODE",
    "SELECT pg_advisory_xact_lock(7402, 1)",
    "SELECT pg_advisory_xact_lock(7402, 2)",
)
OURS = "application_name LIKE 'ledger %%' AND pid <> pg_backend_pid()"


def terminate_sessions(owner: Connection) -> None:
    """End all of Ledger's sessions."""
    query = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}"
    owner.execute(query.replace("%%", "%").encode())


def _execute(world: World, *statements: str, terminate: bool = False) -> None:
    with world.owner() as owner:
        for statement in statements:
            owner.execute(statement.encode())
        if terminate:
            terminate_sessions(owner)


@fault("postgres-killed")
def _postgres_killed(world: World, _load: Load, _random: Random) -> Iterator[None]:
    world.postgres.kill()
    yield
    world.postgres.start()


@fault("postgres-immediate-stop")
def _postgres_immediate(world: World, _load: Load, _random: Random) -> Iterator[None]:
    os.kill(world.postgres.pid, signal.SIGQUIT)
    wait_until(lambda: not world.postgres.running, "PostgreSQL ends")
    yield
    world.postgres.start()


@fault("postgres-restarted")
def _postgres_restarted(world: World, _load: Load, _random: Random) -> Iterator[None]:
    world.postgres.stop()
    world.postgres.start()
    yield


@fault("postgres-frozen")
def _postgres_frozen(world: World, _load: Load, _random: Random) -> Iterator[None]:
    with frozen(family(world.postgres.pid)):
        yield


@fault("backend-crashed")
def _backend_crashed(world: World, _load: Load, _random: Random) -> Iterator[None]:
    """The process of the session that appends is killed, so that PostgreSQL recovers."""
    with world.owner() as owner:
        lanes = rows(owner, "SELECT pid FROM pg_stat_activity WHERE application_name='ledger lane'")
    for (pid,) in lanes[:1]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    yield


@fault("sessions-terminated")
def _sessions_terminated(world: World, _load: Load, random: Random) -> Iterator[None]:
    for _ in range(random.randint(1, 5)):
        _execute(world, terminate=True)
        time.sleep(random.uniform(0, 0.5))
    yield


@fault("read-only")
def _read_only(world: World, _load: Load, random: Random) -> Iterator[None]:
    terminate = random.random() < 0.5
    _execute(
        world,
        "ALTER SYSTEM SET default_transaction_read_only = on",
        "SELECT pg_reload_conf()",
        terminate=terminate,
    )
    yield
    _execute(
        world,
        "ALTER SYSTEM RESET default_transaction_read_only",
        "SELECT pg_reload_conf()",
    )


@fault("locked")
def _locked(world: World, _load: Load, random: Random) -> Iterator[None]:
    with world.owner() as owner, owner.transaction():
        owner.execute(random.choice(LOCKED).encode())
        yield


@fault("idle-transaction")
def _idle_transaction(world: World, _load: Load, _random: Random) -> Iterator[None]:
    """A forgotten transaction has read everything, and a rebuild wants to swap the state."""
    with world.owner() as owner:
        with owner.transaction():
            for table in ("ledger.event_log", "state.bill", "state.report", "ledger.liveness"):
                owner.execute(f"SELECT count(*) FROM {table}".encode())
            started = rebuild(world)
            yield
        code = started.wait(180)
    assert code == 0, f"the rebuild ended with {code}"


@fault("connection-storm")
def _connection_storm(world: World, _load: Load, _random: Random) -> Iterator[None]:
    """Another program takes every connection that is free, also those that Ledger loses."""
    stop = threading.Event()
    with ExitStack() as stack, world.owner() as owner:
        place = world.postgres.dsn().rpartition("@")[2]

        def take() -> None:
            while not stop.is_set():
                try:
                    taken = psycopg.connect(f"postgresql://{APPLICATION}:secret@{place}")
                except psycopg.OperationalError:
                    stop.wait(0.001)
                else:
                    stack.enter_context(taken)

        threads = [threading.Thread(target=take) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            full = int(POSTGRES["max_connections"]) - 6
            query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            wait_until(lambda: rows(owner, query)[0][0] > full, "all connections are taken")
            for _ in range(3):
                terminate_sessions(owner)
                time.sleep(0.2)
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()


@fault("timeouts-set")
def _timeouts_set(world: World, _load: Load, random: Random) -> Iterator[None]:
    """Somebody limits statements, waits for locks and idle sessions of the whole database."""
    names = ("statement_timeout", "lock_timeout", "idle_session_timeout", "transaction_timeout")
    name = random.choice(names)
    _execute(world, f"ALTER DATABASE ledger SET {name} = '1ms'", terminate=True)
    yield
    with psycopg.connect(world.postgres.dsn("postgres"), autocommit=True) as owner:
        owner.execute(f"ALTER DATABASE ledger RESET {name}".encode())
        terminate_sessions(owner)


@fault("deadlock")
def _deadlock(world: World, _load: Load, random: Random) -> Iterator[None]:
    """Another session locks what appends and folds lock, in the other order, again and again."""
    pairs = [
        ("ledger.repeat_delivery", "ledger.event_log"),
        ("ledger.refusal", "ledger.liveness"),
        ("state.checkpoint", "state.bill"),
        ("state.report", "state.bill"),
    ]
    stop = threading.Event()

    def quarrel() -> None:
        while not stop.is_set():
            with suppress(psycopg.Error), world.owner() as owner, owner.transaction():
                for table in random.choice(pairs):
                    owner.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
                    stop.wait(0.05)
            stop.wait(0.1)

    thread = threading.Thread(target=quarrel)
    thread.start()
    yield
    stop.set()
    thread.join()


def _no_disk(disk: Path) -> str | None:
    return None if disk.is_mount() else "PostgreSQL has no file system of its own"


@contextmanager
def _filled(disk: Path) -> Iterator[None]:
    path = disk / "filler"
    try:
        with suppress(OSError), path.open("wb") as file:
            while True:
                file.write(bytes(1_000_000))
        with suppress(OSError), path.open("ab") as file:
            while True:
                file.write(bytes(4_096))
                file.flush()
        yield
    finally:
        path.unlink()


@fault("disk-full", reason=_no_disk)
def _disk_full(world: World, _load: Load, _random: Random) -> Iterator[None]:
    with _filled(world.disk):
        yield


@fault("notify-queue-full")
def _notify_queue_full(world: World, _load: Load, _random: Random) -> Iterator[None]:
    with world.owner() as listener, world.owner() as notifier:
        listener.execute("LISTEN nobody_reads")
        with listener.transaction():
            listener.execute("SELECT 1")
            with suppress(psycopg.Error):
                while True:
                    notifier.execute(
                        "SELECT pg_notify('nobody_reads', repeat('x', 7000) || n)"
                        " FROM generate_series(1, 100) n"
                    )
            yield


@fault("network-cut")
def _network_cut(world: World, _load: Load, random: Random) -> Iterator[None]:
    if random.random() < 0.3:
        world.relay.drop()
    else:
        world.relay.cut()
    yield
    world.relay.mend()


@fault("network-silent")
def _network_silent(world: World, _load: Load, _random: Random) -> Iterator[None]:
    world.relay.silence()
    yield
    world.relay.mend()


def backends(world: World) -> list[int]:
    """Return the ids of PostgreSQL's processes apart from the first."""
    return [pid for pid in family(world.postgres.pid)[1:] if psutil.pid_exists(pid)]


@fault("one-session-frozen")
def _one_session_frozen(world: World, _load: Load, _random: Random) -> Iterator[None]:
    """The session that appends stands still with the lane's lock, if it has it."""
    with world.owner() as owner:
        lanes = rows(owner, "SELECT pid FROM pg_stat_activity WHERE application_name='ledger lane'")
    with frozen([pid for (pid,) in lanes[:1]]):
        yield
