"""What is damaged: a PostgreSQL, a server with two workers and a spool, and a projector."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
from psycopg import Connection

from faults.container import Container
from faults.network import Relay
from ledger import schema
from ledger.spool.folder import worker_folders
from ledger.spool.records import scan
from tests.support.postgres import PrivateServer, folder_for_postgres
from tests.support.server import LedgerServer, is_worker

WORKERS = 2
DISK_BYTES = 700_000_000
SPOOL_BYTES = 16_000_000
LONGEST_BODY = 65_536
APPLICATION = "application"

ANY_POSTGRES = {
    "max_connections": "60",
    "shared_buffers": "32MB",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
}
POSTGRES = {**ANY_POSTGRES, "max_notify_queue_pages": "64"}
"""Of the embedded server. A container's may be too old for all of them."""


class Postgres(Protocol):
    """A server that a fault may end and start again; its URL stays the same."""

    @property
    def pid(self) -> int:
        """Id of the postmaster."""

    @property
    def running(self) -> bool:
        """Whether the postmaster has not ended."""

    def dsn(self, dbname: str = "ledger") -> str:
        """Give the URL of a database."""

    def kill(self) -> None:
        """Let the server crash."""

    def stop(self) -> None:
        """Shut the server down."""

    def start(self) -> None:
        """Start the stopped or killed server again."""


class World:
    """Everything, started by entering its `with` block.

    `disk` holds PostgreSQL's folder; without one, PostgreSQL runs in a container.
    """

    def __init__(self, folder: Path, disk: Path | None) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self._disk = disk
        self._relay: Relay | None = None
        self._container: Container | None = None
        self.postgres: Postgres
        if disk:
            self.postgres = PrivateServer(disk / "postgres", settings=POSTGRES)
            self._relay = Relay(_port(self.postgres.dsn()))
            place = f"127.0.0.1:{self._relay.port}"
        else:
            self.postgres = self._container = Container(folder, ANY_POSTGRES)
            place = self.postgres.dsn().rpartition("@")[2].partition("/")[0]
        try:
            self._prepare(place)
        except BaseException:
            self._end()
            raise

    def _prepare(self, place: str) -> None:
        schema.migrate(self.postgres.dsn())
        with self.owner() as owner:
            owner.execute(f"CREATE ROLE {APPLICATION} LOGIN PASSWORD 'secret'".encode())
            owner.execute(f"GRANT ledger_service TO {APPLICATION}".encode())
        self.url = f"postgresql://{APPLICATION}:secret@{place}/ledger"
        settings = {
            "LEDGER_SPOOL_DIR": str(self.spool),
            "LEDGER_SPOOL_AFTER": "1",
            "LEDGER_SPOOL_MAX_BYTES": str(SPOOL_BYTES),
            "LEDGER_MAX_BODY": str(LONGEST_BODY),
            "LEDGER_WORKERS": str(WORKERS),
        }
        self.server = LedgerServer(self.url, self.folder, settings=settings)

    def _end(self) -> None:
        if self._relay:
            self.postgres.stop()
            self._relay.close()
        if self._container:
            self._container.remove()

    @property
    def disk(self) -> Path:
        """The folder of PostgreSQL's folder, where it runs in no container."""
        assert self._disk
        return self._disk

    @property
    def relay(self) -> Relay:
        """What stands between Ledger and a PostgreSQL that runs in no container."""
        assert self._relay
        return self._relay

    @property
    def container(self) -> Container:
        """What PostgreSQL runs in, if it runs in a container."""
        assert self._container
        return self._container

    def __enter__(self) -> Self:
        self.server.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.server.__exit__(kind, error, at)
        self._end()

    @contextmanager
    def owner(self) -> Iterator[Connection]:
        """Give a session of the superuser, past the relay."""
        with psycopg.connect(self.postgres.dsn(), autocommit=True) as connection:
            connection.execute("SET statement_timeout = 0")
            connection.execute("SET default_transaction_read_only = off")
            yield connection

    def workers(self) -> list[int]:
        """Return the ids of the processes that take deliveries."""
        try:
            children = psutil.Process(self.server.serve.pid).children()
        except psutil.Error:
            return []
        return [child.pid for child in children if is_worker(child.pid)]

    def start_what_is_missing(self) -> None:
        """Start what a fault ended."""
        if not self.postgres.running:
            self.postgres.start()
        if not self.server.serve.running:
            self.server.start_server()
        if self.server.projector is None or not self.server.projector.running:
            self.server.start_projector()

    def spooled(self) -> int:
        """Return how many records are on disk, by reading them all."""
        found = 0
        for folder in worker_folders(self.spool):
            for path in folder.glob("*.segment"):
                with suppress(FileNotFoundError):
                    found += sum(1 for _ in scan(path.read_bytes()))
        return found


def rows(connection: Connection, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Return all rows of a query."""
    return connection.execute(query.encode(), parameters or None).fetchall()


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port
    return port


def at_port(url: str, port: int) -> str:
    """Return the URL with another port on 127.0.0.1."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}"))


@contextmanager
def small_disk() -> Iterator[tuple[Path, str | None]]:
    """Give a folder on a file system of its own; or on any, and why it is on any."""
    with folder_for_postgres() as parent:
        # Below a folder that is held: nobody holds the root of what is mounted.
        folder = parent / "disk"
        folder.mkdir()
        image = Path(tempfile.mkstemp(prefix="ledger-disk-")[1])
        try:
            reason = _mount(image, folder)
            yield folder, reason
        finally:
            if folder.is_mount():
                subprocess.run(["umount", "--lazy", folder], check=False)  # noqa: S607
            image.unlink(missing_ok=True)


def _mount(image: Path, folder: Path) -> str | None:
    if os.geteuid() != 0:
        return "only root can mount a file system"
    if not shutil.which("mkfs.ext4"):
        return "mkfs.ext4 is not installed"
    os.truncate(image, DISK_BYTES)
    commands = [
        ["mkfs.ext4", "-q", "-F", str(image)],
        ["mount", "-o", "loop", str(image), str(folder)],
    ]
    for command in commands:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            return f"{command[0]} failed: {done.stderr.strip()}"
    folder.chmod(0o755)
    return None
