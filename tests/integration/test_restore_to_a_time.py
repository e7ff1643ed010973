"""The drill: a base backup and archived WAL, restored to a moment before a mistake."""

import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ledger import schema
from ledger.embedded import child
from ledger.postgres.connect import connect
from tests.support.payloads import event
from tests.support.postgres import PrivateServer, folder_for_postgres
from tests.support.replica import copy_cluster
from tests.support.server import LedgerServer, run_ledger, wait_until
from tests.support.sessions import log_rows, one, state_rows

pytestmark = pytest.mark.slow

# Nothing is tried again, so that the shortest outage is a loss window.
POLICY = {"LEDGER_RETRY_COUNT": "0"}
LAB = "lab_1"


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_for_postgres() as given:
        yield given


@pytest.fixture
def archive(folder: Path) -> Path:
    """Give a folder where the server may write."""
    made = folder / "archive"
    made.mkdir()
    if user := child.server_user():
        shutil.chown(made, user.uid, user.gid)
    return made


@pytest.fixture
def primary(folder: Path, archive: Path) -> Iterator[PrivateServer]:
    command = f"test ! -f {archive}/%f && cp %p {archive}/%f"
    settings = {"archive_mode": "on", "archive_command": command}
    server = PrivateServer(folder / "primary", settings=settings)
    try:
        schema.migrate(server.dsn())
        yield server
    finally:
        server.stop()


def asked(server: PrivateServer, query: str) -> Any:  # noqa: ANN401 -- whatever the column holds
    with psycopg.connect(server.dsn(), autocommit=True) as owner:
        return one(owner, query)


def rows(url: str) -> tuple[object, object]:
    with connect(url, "test") as connection:
        return log_rows(connection), state_rows(connection)


def archive_all(server: PrivateServer) -> None:
    """Return when everything that was committed so far is in the archive."""
    last = asked(server, "SELECT pg_walfile_name(pg_switch_wal())")
    archived = "SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver"
    wait_until(lambda: asked(server, archived) >= last, "the WAL is archived", seconds=60)


def restored(folder: Path, archive: Path, moment: datetime) -> PrivateServer:
    """Start a server on the copy, and return when it has recovered up to the moment."""
    (folder / "cluster" / "recovery.signal").touch()
    settings = {
        "restore_command": f"cp {archive}/%f %p",
        "recovery_target_time": moment.isoformat(),
        "recovery_target_action": "promote",
    }
    server = PrivateServer(folder, settings=settings)
    recovers = "SELECT pg_is_in_recovery()"
    wait_until(lambda: not asked(server, recovers), "the copy has recovered", seconds=60)
    return server


def test_a_base_backup_goes_back_to_a_moment_is_verified_and_goes_on(
    primary: PrivateServer, folder: Path, archive: Path, tmp_path: Path
) -> None:
    with LedgerServer(primary.dsn(), tmp_path, settings=POLICY) as server:
        server.record(*(event(LAB, f"before_{number}") for number in range(5)))
        copy_cluster(primary, folder / "copy", "--wal-method=stream")
        server.record(*(event(LAB, f"after_{number}") for number in range(5)))
        last = server.settle()
        kept = rows(primary.dsn())
        moment = asked(primary, "SELECT clock_timestamp()")
        server.record(event(LAB, "mistake"))
    archive_all(primary)
    primary.kill()

    copy = restored(folder / "copy", archive, moment)
    try:
        settings = {"LEDGER_DATABASE_URL": copy.dsn()}
        for command in (["migrate", "--yes"], ["verify"]):
            done = run_ledger(*command, settings=settings)
            assert done.returncode == 0, (command, done.stdout.decode(), done.stderr.decode())
        assert rows(copy.dsn()) == kept
        with LedgerServer(copy.dsn(), tmp_path) as server:
            assert server.record(event(LAB, "new")) == [last + 1]
            server.settle()
            assert server.get(f"/v1/labs/{LAB}/bills/mistake").status_code == 404
            assert server.get(f"/v1/labs/{LAB}/bills/new").status_code == 200
            # What was received after that moment is missing here, and its time is known.
            (window,) = wait_until(
                lambda: server.items("/v1/loss-windows"), "the time between is a loss window"
            )
            begin, end = (datetime.fromisoformat(window[name]) for name in ("from", "to"))
            assert begin <= moment < end
            assert window["labs"] == [LAB]
    finally:
        copy.stop()
