"""Starts and stops an embedded server, and returns its addresses."""

import logging
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from ledger.embedded import child
from ledger.embedded.failure import PORT_IN_USE, SURVIVORS, failure
from ledger.embedded.home import USER, Home, find_programs

_START_SECONDS: Final = 120.0
"""Long enough to replay the WAL after a crash, at most max_wal_size (1 GB)."""

_STOP_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class EmbeddedPostgres:
    """A running server; leaving its `with` block stops it."""

    def __init__(self, process: child.Child, *, port: int, password: str, socket_dir: Path) -> None:
        self.port: Final = port
        self.socket_dir: Final = socket_dir
        self._process: Final = process
        self._password: Final = password

    def dsn(self, dbname: str = "ledger", *, over_socket: bool = False) -> str:
        """Return the URL of a database, on 127.0.0.1 or over the socket."""
        name = quote(dbname, safe="")
        if over_socket:
            folder = quote(str(self.socket_dir), safe="")
            return f"postgresql://{USER}:{self._password}@/{name}?host={folder}&port={self.port}"
        return f"postgresql://{USER}:{self._password}@127.0.0.1:{self.port}/{name}"

    @property
    def pid(self) -> int:
        """Id of the postmaster, the server's first process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the postmaster has not ended."""
        return not self._process.ended.is_set()

    def ensure_database(self, name: str) -> None:
        """Create the database unless it exists."""
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [name])
            if found.fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def stop(self) -> None:
        """End all sessions, write everything to disk, and return when the server has ended."""
        self._process.send(signal.SIGINT)
        if not self._process.ended.wait(_STOP_SECONDS):
            # As safe as a crash: the next start replays the WAL.
            self._process.send(signal.SIGQUIT)
            self._process.ended.wait()
        shutil.rmtree(self.socket_dir, ignore_errors=True)

    def kill(self) -> None:
        """Kill the postmaster, as a crash would, and return when it has ended; for tests."""
        self._process.send(signal.SIGKILL)
        self._process.ended.wait()
        shutil.rmtree(self.socket_dir, ignore_errors=True)

    def __enter__(self) -> Self:
        """Give the server itself."""
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()


def start(
    data_dir: Path,
    *,
    port: int | None = None,
    version: int = 18,
    settings: Mapping[str, str] | None = None,
    say: Callable[[str], None] = _log.info,
) -> EmbeddedPostgres:
    """Start PostgreSQL in a folder, create the folder if needed, and return when it answers.

    `port` is on 127.0.0.1; None stands for the port of the last start, or for a free one if that is
    taken. `version` is PostgreSQL's major version. `settings` are the server's, and override those
    chosen here. `say` gets sentences for the user: a permission was changed, an earlier server has
    to end first.

    On Linux the server ends cleanly however this process ends; elsewhere it must be stopped. As
    root it runs as the user postgres, or nobody, because PostgreSQL refuses to run as root.

    Raises `EmbeddedPostgresError` with the last lines of the server's log and what to do.
    """
    settings = settings or {}
    home = Home(
        folder=data_dir.absolute(),
        programs=find_programs(version),
        user=child.server_user(),
        say=say,
    )
    home.prepare(version, durable=settings.get("fsync") != "off")
    home.wait_for_left_over()
    deadline = time.monotonic() + _START_SECONDS
    while True:
        begin = home.log.stat().st_size if home.log.exists() else 0
        server = _launch(home, port or _kept_or_free_port(home), settings)
        try:
            answers = _wait_for_answer(server, deadline)
        except BaseException:
            server.stop()
            raise
        if answers:
            if port is None:
                home.keep_port(server.port)
            return server
        in_time = not server.running
        server.stop()
        said = _text_after(home.log, begin)
        if not in_time:
            what = f"PostgreSQL did not answer within {_START_SECONDS:.0f} s in {home.folder}"
            raise failure(what, said, home.log)
        # Both pass by themselves: after a crash the server's other processes need a moment to
        # notice it, and a port may be taken between choosing it and using it.
        passing = SURVIVORS in said or (port is None and PORT_IN_USE in said)
        if not passing or time.monotonic() > deadline:
            what = f"PostgreSQL could not start in {home.folder} on port {server.port}"
            raise failure(what, said, home.log)
        time.sleep(0.05)


def _launch(home: Home, port: int, settings: Mapping[str, str]) -> EmbeddedPostgres:
    socket_dir = home.make_socket_dir(port)
    quoted_socket_dir = str(socket_dir).replace('"', '""')
    chosen = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": f'"{quoted_socket_dir}"',
        "unix_socket_permissions": "0700",
        "timezone": "UTC",
        "log_timezone": "UTC",
        **settings,
    }
    command = [str(home.programs / "postgres"), "-D", str(home.cluster)]
    command += [f"--{name}={value}" for name, value in chosen.items()]
    return EmbeddedPostgres(
        child.Child(command, home.user, home.log),
        port=port,
        password=home.password_file.read_text(encoding="ascii").strip(),
        socket_dir=socket_dir,
    )


def _wait_for_answer(server: EmbeddedPostgres, deadline: float) -> bool:
    """Wait until the server accepts a connection; return False if it ended or time is up."""
    # Over the socket, which is in a folder of our own: on the port, another program could answer or
    # keep us waiting while our server fails to get the port.
    while server.running and time.monotonic() < deadline:
        try:
            psycopg.connect(server.dsn("postgres", over_socket=True), connect_timeout=5).close()
        except psycopg.OperationalError:
            time.sleep(0.02)
        else:
            return True
    return False


def _kept_or_free_port(home: Home) -> int:
    kept = home.kept_port()
    return (kept and _port_if_free(kept)) or _port_if_free(0) or 0


def _port_if_free(port: int) -> int | None:
    """Return the port if nobody listens on it, else None; 0 stands for any."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return None
        free: int = probe.getsockname()[1]
        return free


def _text_after(log: Path, begin: int) -> str:
    with log.open("rb") as file:
        file.seek(begin)
        return file.read().decode(errors="replace")
