"""A deploy: the schema is newer than the code that runs, and the code goes on receiving."""

from pathlib import Path

import psycopg
import pytest
from psycopg import Connection

from ledger import schema
from tests.support.payloads import event
from tests.support.server import LedgerServer, wait_until
from tests.support.sessions import one

pytestmark = pytest.mark.slow

NEWER = "9999"


def expand(owner: Connection) -> None:
    """Do what a migration of a next version may: add, and replace a function by its equal."""
    function = "ledger.append_events"
    definition = one(owner, f"SELECT pg_get_functiondef('{function}'::regproc)")
    with owner.transaction():
        owner.execute("ALTER TABLE ledger.event_log ADD COLUMN note text")
        owner.execute("ALTER TABLE ledger.liveness ADD COLUMN note text NOT NULL DEFAULT ''")
        owner.execute("ALTER TABLE state.bill ADD COLUMN note text")
        owner.execute("CREATE TABLE ledger.note (position bigint PRIMARY KEY)")
        owner.execute(definition)
        owner.execute("UPDATE ledger.schema_version SET version_num = %s", (NEWER,))


@pytest.mark.one_server("the newer schema is made by statements for one server")
def test_a_server_goes_on_receiving_on_a_newer_schema_also_after_a_restart(
    database_url: str, tmp_path: Path
) -> None:
    with LedgerServer(database_url, tmp_path) as server:
        assert server.record(event("lab", "before")) == [1]
        server.settle()
        with psycopg.connect(database_url, autocommit=True) as owner:
            expand(owner)
        assert server.record(event("lab", "after"), event("lab", "more")) == [2, 3]
        assert server.anonymous.get("/health/ready").status_code == 200
        server.settle()
        assert server.get("/v1/labs/lab/bills/after").status_code == 200
        assert server.items("/v1/events")[-1]["bill_id"] == "more"
        assert server.serve.terminate() == 0
        server.start_server()
        assert server.record(event("lab", "restarted")) == [4]
        server.settle()
        assert "the schema is newer than this version of Ledger" in server.output
        done = server.run("verify")
        assert done.returncode == 1
        assert f"schema is {NEWER}, newer than the {schema.SCHEMA_VERSION}".encode() in done.stderr


def test_a_server_whose_deliveries_a_newer_schema_does_not_take_is_not_ready(
    database_url: str, tmp_path: Path
) -> None:
    with LedgerServer(database_url, tmp_path, project=False) as server:
        with psycopg.connect(database_url, autocommit=True) as owner:
            owner.execute("ALTER FUNCTION ledger.append_events RENAME TO append_all_events")
            owner.execute("UPDATE ledger.schema_version SET version_num = %s", (NEWER,))
        assert server.send(event("lab", "b")).status_code == 503
        wait_until(
            lambda: server.anonymous.get("/health/ready").status_code == 503, "it is not ready"
        )
