"""The stage of a measurement: a durable PostgreSQL, databases on it, servers that use them."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
from psycopg.sql import SQL, Identifier

from ledger import embedded, schema
from ledger.settings import child_environment

TOKEN = "token-of-the-benchmark"  # noqa: S105 -- protects nothing
KEY = "key"
LEDGER = "ledger.app:create_app"
"""What a server runs to be Ledger: a factory."""

_SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
_TAIL = 2_000
"""Characters of what a server said that are shown when a measurement on it fails."""

_LARGE = 1024**3
"""Bytes from which a database is copied file by file, and not through the write-ahead log."""


class MeasureError(Exception):
    """A measurement could not be made, or what was measured did not do what it should."""


@contextmanager
def postgres() -> Iterator[embedded.EmbeddedPostgres]:
    """Run a server with fsync and synchronous_commit on, in a folder that is thrown away."""
    with (
        tempfile.TemporaryDirectory(prefix="ledger-bench-") as folder,
        start_postgres(Path(folder)) as server,
    ):
        yield server


def start_postgres(folder: Path, *, port: int | None = None) -> embedded.EmbeddedPostgres:
    """Start such a server in a folder, which may hold the data of one that was killed."""
    return embedded.start(folder / "postgres", port=port, settings=_SETTINGS)


def new_database(server: embedded.EmbeddedPostgres, name: str) -> str:
    """Make a migrated database and return its URL."""
    server.ensure_database(name)
    url = server.dsn(name)
    schema.migrate(url)
    return url


def copy_database(server: embedded.EmbeddedPostgres, source: str, name: str) -> str:
    """Make a database that equals another, which nobody may be using, and return its URL."""
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        row = connection.execute("SELECT pg_database_size(%s)", [source]).fetchone()
        strategy = SQL("file_copy" if row and row[0] > _LARGE else "wal_log")
        query = SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY {}")
        connection.execute(query.format(Identifier(name), Identifier(source), strategy))
    url = server.dsn(name)
    schema.migrate(url)  # for rights on the database itself, which are not copied
    return url


def drop_database(server: embedded.EmbeddedPostgres, name: str) -> None:
    """Drop a database, whoever may still be connected to it."""
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def settle(url: str) -> None:
    """Do now what autovacuum and the checkpointer would do in the midst of a measurement."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


@contextmanager
def served(url: str, target: str, *, factory: bool = True) -> Iterator[str]:
    """Serve an application as `ledger serve` does, with one worker; yield its address."""
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "--port", str(port)]
    command += [
        "--http",
        "ledger.intake.delivery_protocol:DeliveryProtocol",
        "--loop",
        "uvloop",
        "--ws",
        "none",
    ]
    command += ["--no-proxy-headers", "--no-server-header", "--no-access-log"]
    command += ["--log-level", "error", target]
    command += ["--factory"] if factory else []
    with _running(command, environment(url)) as process:
        yield _address(process, port)


@contextmanager
def ledger_serve(
    url: str, *, workers: int = 1, more: dict[str, str] | None = None
) -> Iterator[tuple[str, int]]:
    """Run `ledger serve`, with more settings; yield its address and the id of its first process."""
    port = _free_port()
    settings = {"LEDGER_PORT": str(port), "LEDGER_WORKERS": str(workers), **(more or {})}
    its = environment(url, settings)
    with _running([*_LEDGER_COMMAND, "serve", "--end-with-parent"], its) as it:
        yield _address(it, port), it.pid


@contextmanager
def ledger_project(url: str, *, more: dict[str, str] | None = None) -> Iterator[int]:
    """Run `ledger project`, with more settings; yield its process id."""
    its = environment(url, more)
    with _running([*_LEDGER_COMMAND, "project", "--end-with-parent"], its) as process:
        yield process.pid


def ledger_verify(url: str) -> str:
    """Run `ledger verify` and return what it says. Raises `MeasureError` if it found something."""
    done = subprocess.run(
        [*_LEDGER_COMMAND, "verify"],
        env=environment(url),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MeasureError(f"`ledger verify` ended with {done.returncode}: {done.stdout}")
    return done.stdout.strip().splitlines()[-1]


def environment(url: str, more: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a Ledger process that uses a database."""
    settings = {"LEDGER_DATABASE_URL": url, "LEDGER_WEBHOOK_TOKENS": TOKEN, "LEDGER_ADMIN_KEY": KEY}
    settings["LEDGER_READ_RATE"] = "0"
    return child_environment({**settings, **(more or {})})


_LEDGER_COMMAND = [sys.executable, "-m", "ledger"]


@contextmanager
def _running(
    command: list[str], its_environment: dict[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, env=its_environment, stdout=said, stderr=said)
        try:
            yield process
        except Exception as error:
            said.seek(0)
            error.add_note(said.read().decode(errors="replace")[-_TAIL:])
            raise
        finally:
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _address(process: "subprocess.Popen[bytes]", port: int) -> str:
    """Return the address when somebody answers there."""
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.HTTPError):
            httpx.post(f"{address}/webhooks/flabs", content=b"", trust_env=False)
            return address
        time.sleep(0.02)
    raise MeasureError("the server did not start")
