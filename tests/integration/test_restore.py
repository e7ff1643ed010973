"""The drill: a dump restored into another cluster, which has none of Ledger's roles."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import Connection

from ledger import embedded
from ledger.embedded.home import find_programs
from ledger.errors import EmbeddedPostgresError
from ledger.eventlog.append import append
from ledger.eventlog.read import head
from ledger.postgres.connect import connect
from tests.support.histories import mixed_history
from tests.support.payloads import event
from tests.support.postgres import THROW_AWAY, folder_for_postgres
from tests.support.server import LedgerServer, run_ledger
from tests.support.sessions import drain, log_rows, one, state_rows

pytestmark = pytest.mark.slow

RESTORER = "restorer"


def program(name: str, server: Connection) -> str:
    """Return the path of a program of the server's own version, or skip the test."""
    version = server.info.server_version // 10_000
    places = [f"/usr/lib/postgresql/{version}/bin", f"/usr/local/opt/postgresql@{version}/bin"]
    with suppress(EmbeddedPostgresError):  # no such version is embedded
        places.insert(0, str(find_programs(version)))
    found = shutil.which(name, path=":".join(places))
    if found is None:
        pytest.skip(f"{name} of PostgreSQL {version} is not installed")
    return found


@pytest.fixture(scope="module")
def other_cluster() -> Iterator[str]:
    """Give the URL of a superuser in a cluster that knows nothing of Ledger."""
    with (
        folder_for_postgres() as folder,
        embedded.start(folder / "postgres", settings=THROW_AWAY) as server,
    ):
        yield server.dsn("postgres")


@pytest.fixture
def restored(other_cluster: str) -> Iterator[str]:
    """Give the URL of an empty database there, whose owner may create roles and no more."""
    with psycopg.connect(other_cluster, autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE {RESTORER} LOGIN CREATEROLE PASSWORD 'secret'".encode())
        superuser.execute(f"CREATE DATABASE restored OWNER {RESTORER}".encode())
        place = urlsplit(other_cluster)
        at = f"{RESTORER}:secret@{place.hostname}:{place.port}"
        yield urlunsplit(place._replace(netloc=at, path="/restored"))
        superuser.execute("DROP DATABASE restored WITH (FORCE)")
        for role in ("ledger_service", "ledger_intake", "ledger_reader", RESTORER):
            superuser.execute(f"DROP ROLE IF EXISTS {role}".encode())


@pytest.mark.parametrize("options", [(), ("--no-owner", "--no-acl")], ids=["plain", "no owner"])
def test_a_restored_log_is_migrated_verified_and_goes_on(
    database_url: str, service: Connection, restored: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    append(service, mixed_history(200))
    drain(service)
    before = (log_rows(service), state_rows(service))
    dump = tmp_path / "ledger.dump"
    subprocess.run(
        [program("pg_dump", service), "-Fc", *options, "-f", dump, database_url], check=True
    )
    # Says what it could not do, such as owners that do not exist, and goes on.
    subprocess.run(
        [program("pg_restore", service), *options, "-d", restored, dump],
        check=False,
        stderr=subprocess.DEVNULL,
    )
    settings = {"LEDGER_DATABASE_URL": restored}
    for command in (["migrate", "--yes"], ["rebuild", "--yes"], ["verify"]):
        done = run_ledger(*command, settings=settings)
        assert done.returncode == 0, (command, done.stderr.decode())
    with connect(restored, "test") as connection:
        assert (log_rows(connection), state_rows(connection)) == before
        assert one(connection, "SELECT current_user") == "ledger_service"
        last = head(connection)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM ledger.event_log")
    with LedgerServer(restored, tmp_path) as server:
        assert server.record(event("lab", "new")) == [last + 1]
        server.settle()
        assert server.get("/v1/labs/lab/bills/new").status_code == 200
        assert server.run("reconcile").returncode == 0
    with psycopg.connect(restored) as owner:
        reads = "SELECT has_table_privilege('ledger_reader', 'ledger.bill', 'SELECT')"
        assert one(owner, reads) is True
        with pytest.raises(psycopg.errors.RestrictViolation):  # the second wall stands, too
            owner.execute("DELETE FROM ledger.event_log")
