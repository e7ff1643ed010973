"""A publication of all tables, as Debezium makes one: it refuses changes that name no row."""

from pathlib import Path

import pytest
from psycopg import Connection

from tests.support.histories import body
from tests.support.operations import AT_ONCE
from tests.support.payloads import event
from tests.support.server import LedgerServer

pytestmark = pytest.mark.slow

WITHOUT_IDENTITY = """
    SELECT n.nspname || '.' || c.relname
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE
        n.nspname IN ('ledger', 'state')
        AND c.relkind = 'r'
        AND c.relname <> ALL (%s)
        AND NOT EXISTS (
            SELECT FROM pg_index i
            WHERE
                i.indrelid = c.oid
                AND (
                    i.indisprimary AND c.relreplident = 'd'
                    OR i.indisreplident AND c.relreplident = 'i'
                )
        )
    ORDER BY 1
"""
APPEND_ONLY = ["event_log", "repeat_delivery"]


def test_every_table_that_is_updated_names_its_rows(owner: Connection) -> None:
    assert owner.execute(WITHOUT_IDENTITY, [APPEND_ONLY]).fetchall() == []


def test_all_goes_on_under_a_publication_of_all_tables(
    database_url: str, owner: Connection, tmp_path: Path
) -> None:
    owner.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    with LedgerServer(database_url, tmp_path, settings=AT_ONCE) as server:
        completed = body("bill.completed", tests={"T1": "completed"})
        server.record(completed, completed, event("lab", "b"), b"broken")
        server.settle()
        server.record(body("report.completed", at=1, tests={"T1": "completed"}))  # replaces rows
        server.settle()
        put = server.api.put("/v1/expected-bills/x", json={"expected_by": "2024-01-01T00:00:00Z"})
        assert put.status_code == 200, put.text
        waiver = {"lab_id": "L", "bill_id": "B", "event_type": "bill.created", "reason": "known"}
        assert server.api.post("/v1/missing-events/waive", json=waiver).status_code == 200
        unwaiver = {**waiver, "reason": "not known"}
        assert server.api.post("/v1/missing-events/unwaive", json=unwaiver).status_code == 200
        assert server.api.delete("/v1/expected-bills/x").status_code == 204
        made = server.api.post("/v1/support-requests", json={"include_possible": True})
        assert made.status_code == 201, made.text
        for command in (
            ("migrate", "--yes"),
            ("rebuild", "--yes"),
            ("verify",),
            ("reconcile", "--since-last"),
            ("reconcile", "--since-last"),
        ):
            done = server.run(*command)
            assert done.returncode == 0, (command, done.stderr.decode())
        server.record(event("lab", "after the swap"))
        server.settle()
        assert "publish" not in server.output, server.output
