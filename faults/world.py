"""What is damaged: a PostgreSQL, a server with two workers and a spool, and a projector."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
from psycopg import Connection

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

POSTGRES = {
    "max_connections": "60",
    "max_notify_queue_pages": "64",
    "shared_buffers": "32MB",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
}


class World:
    """Everything, started by entering its `with` block. `disk` holds PostgreSQL's folder."""

    def __init__(self, folder: Path, disk: Path) -> None:
        self.folder = folder
        self.disk = disk
        self.spool = folder / "spool"
        self.postgres = PrivateServer(disk / "postgres", settings=POSTGRES)
        self.relay = Relay(_port(self.postgres.dsn()))
        schema.migrate(self.postgres.dsn())
        with self.owner() as owner:
            owner.execute(f"CREATE ROLE {APPLICATION} LOGIN PASSWORD 'secret'".encode())
            owner.execute(f"GRANT ledger_service TO {APPLICATION}".encode())
        place = f"{APPLICATION}:secret@127.0.0.1"
        self.url = f"postgresql://{place}:{self.relay.port}/ledger"
        settings = {
            "LEDGER_SPOOL_DIR": str(self.spool),
            "LEDGER_SPOOL_AFTER": "1",
            "LEDGER_SPOOL_MAX_BYTES": str(SPOOL_BYTES),
            "LEDGER_MAX_BODY": str(LONGEST_BODY),
            "LEDGER_WORKERS": str(WORKERS),
        }
        self.server = LedgerServer(self.url, folder, settings=settings)

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
        self.postgres.stop()
        self.relay.close()

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
