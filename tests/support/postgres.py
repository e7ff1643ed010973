"""PostgreSQL for tests: one server for all, a clone of a migrated database for each test."""

import atexit
import functools
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from ledger import embedded, schema
from ledger.processes import temporary_folder
from tests.support.addresses import database_of
from tests.support.cluster import has_nodes, new_cluster_database
from tests.support.server import free_port

# What a test loses in a crash of the machine it can make again.
THROW_AWAY = MappingProxyType(
    {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
)


# Memory that is a file system. A new database is a copy of 300 files, for which a disk takes 20
# times as long.
_MEMORY = Path("/dev/shm")  # noqa: S108 -- the system's name of it
_ENOUGH_MEMORY = 4 * 1024**3


@contextmanager
def folder_for_postgres() -> Iterator[Path]:
    """Give a folder with a short path (sockets need one), removed afterwards; in memory if any."""
    with temporary_folder("ledger-test-", _MEMORY if _memory_is_free() else Path("/tmp")) as folder:  # noqa: S108
        yield folder


def _memory_is_free() -> bool:
    try:
        return shutil.disk_usage(_MEMORY).free >= _ENOUGH_MEMORY
    except OSError:
        return False


@contextmanager
def running_server() -> Iterator[str]:
    """Give the URL of a server where databases may be made.

    `LEDGER_TEST_DATABASE_URL` names a running one, `LEDGER_TEST_IMAGE` an image to start in a
    container; without either it is the embedded one.
    """
    if url := os.environ.get("LEDGER_TEST_DATABASE_URL"):
        yield url
    elif image := os.environ.get("LEDGER_TEST_IMAGE"):
        # Only here, because the import looks for a container engine's settings.
        from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415

        container = PostgresContainer(image, driver=None)
        settings = [part for item in THROW_AWAY.items() for part in ("-c", "=".join(item))]
        container.with_command(["postgres", *settings])
        if _memory_is_free():
            container.with_tmpfs_mount("/scratch").with_env("PGDATA", "/scratch/data")
        with container:
            yield container.get_connection_url()
    else:
        with (
            folder_for_postgres() as folder,
            embedded.start(folder / "postgres", settings=THROW_AWAY) as server,
        ):
            url = server.dsn("postgres")
            _shorten_logins(url)
            yield url


def _shorten_logins(server: str) -> None:
    """Store the password so that a login computes one hash instead of 4,096, half of its time."""
    user, password = urlsplit(server).username or "", urlsplit(server).password
    with psycopg.connect(server) as connection:
        connection.execute("SET scram_iterations = 1")
        command = sql.SQL("ALTER ROLE {} PASSWORD {}")
        connection.execute(command.format(sql.Identifier(user), sql.Literal(password)))


@contextmanager
def new_database(server: str, *, template: str | None = None) -> Iterator[str]:
    """Give the name of a new database, dropped afterwards whoever is still connected.

    On a cluster's coordinator it is on all nodes, unless it is a clone.
    """
    if template is None and has_nodes(server):
        with new_cluster_database(server) as name:
            yield name
        return
    with new_plain_database(server, template=template or "template1") as name:
        yield name


@contextmanager
def new_plain_database(server: str, *, template: str = "template1") -> Iterator[str]:
    """Give the name of a new database of this server alone, dropped afterwards."""
    name = f"ledger_test_{uuid.uuid4().hex}"
    # Copied by file: by default every page goes through the shared buffers and the WAL.
    _execute(server, "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, template)
    try:
        yield name
    finally:
        _execute(server, "DROP DATABASE {} WITH (FORCE)", name)


@contextmanager
def ready_database(server: str, template: str) -> Iterator[str]:
    """Give the URL of a clone of a migrated database, with the right that a clone loses.

    What lies on a cluster's nodes is not cloned: there it is a new database that is migrated.
    """
    if has_nodes(server):
        with new_cluster_database(server) as name:
            schema.migrate(database_of(server, name))
            yield database_of(server, name)
        return
    with plain_database(server, template) as url:
        yield url


@contextmanager
def plain_database(server: str, template: str) -> Iterator[str]:
    """Give the URL of a clone of a migrated database that is on this server alone."""
    with new_plain_database(server, template=template) as name:
        _execute(server, "GRANT CREATE ON DATABASE {} TO ledger_service", name)
        yield database_of(server, name)


_connections: dict[str, psycopg.Connection] = {}
"""To each server on which databases were made."""


@atexit.register
def _close_connections() -> None:
    for connection in _connections.values():
        connection.close()


def _execute(server: str, statement: LiteralString, *names: str) -> None:
    command = sql.SQL(statement).format(*map(sql.Identifier, names))
    if server not in _connections:
        _connections[server] = psycopg.connect(server, autocommit=True)
    try:
        _connections[server].execute(command)
    except psycopg.OperationalError:
        if not _connections[server].closed:
            raise
        del _connections[server]
        _execute(server, statement, *names)  # the server was started again


_cleanup = ExitStack()
atexit.register(_cleanup.close)


@functools.cache
def _cluster() -> Path:
    """Return a folder with a new cluster that has a database; to be copied, which is faster."""
    folder = _cleanup.enter_context(folder_for_postgres()) / "postgres"
    with embedded.start(folder, settings=THROW_AWAY) as server:
        server.ensure_database("ledger")
        _shorten_logins(server.dsn("postgres"))
    (folder / "port").unlink()
    return folder


def _copy_cluster(folder: Path) -> None:
    folder.mkdir(parents=True)
    # With owners and access control lists, which the standard library does not copy.
    subprocess.run(["cp", "-a", f"{_cluster()}/.", str(folder)], check=True)  # noqa: S607


class PrivateServer:
    """An embedded server for one test, which may kill it and start it again on the same port."""

    def __init__(self, folder: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._settings = settings
        if not folder.exists():
            _copy_cluster(folder)
        self._server = embedded.start(folder, port=free_port(), settings=settings)

    @property
    def pid(self) -> int:
        """Id of the postmaster."""
        return self._server.pid

    @property
    def running(self) -> bool:
        """Whether the postmaster has not ended."""
        return self._server.running

    def dsn(self, dbname: str = "ledger") -> str:
        """Give the URL of a database, the same after each start."""
        return self._server.dsn(dbname)

    def kill(self) -> None:
        """Let the server crash."""
        self._server.kill()

    def stop(self) -> None:
        """Shut the server down."""
        self._server.stop()

    def start(self) -> None:
        """Start the stopped or killed server again."""
        self._server = embedded.start(self.folder, port=self._server.port, settings=self._settings)


def lane_waits(connection: psycopg.Connection) -> bool:
    """Tell whether somebody waits for an advisory lock in the connection's database."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))"
    ).fetchone()
    return bool(row and row[0])
