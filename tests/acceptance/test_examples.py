"""The files of examples/ do what they say, against a running server."""

import asyncio
import importlib.util
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.addresses import database_of
from tests.support.payloads import BASE, event, whole_day
from tests.support.postgres import new_database
from tests.support.server import KEY, ROOT, LedgerServer, environment, wait_until

EXAMPLES = ROOT / "examples"
FOLLOW = (sys.executable, str(EXAMPLES / "follow_changes.py"))
DONE = {"test_1": "completed"}

BARRIER = """
CREATE TABLE followed_position (only_row boolean PRIMARY KEY DEFAULT true, position bigint);
INSERT INTO followed_position (position) VALUES (0);
CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(1);
    RETURN new;
END $$;
CREATE TRIGGER hold BEFORE UPDATE ON followed_position FOR EACH ROW EXECUTE FUNCTION hold();
"""
"""Lets a test stop the consumer where its rows are written and its position is not."""

WAITERS = """
FROM pg_locks
JOIN pg_database ON pg_database.oid = pg_locks.database
WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()
"""
WAITING = f"SELECT count(*) {WAITERS}"
END_WAITING = f"SELECT pg_terminate_backend(pid) {WAITERS}".encode()


@pytest.fixture
def own(postgres_url: str) -> Iterator[str]:
    """Give the URL of a database of the consumer's own."""
    with new_database(postgres_url) as name:
        yield database_of(postgres_url, name)


@contextmanager
def consumer(server: LedgerServer, own: str, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("ab") as file:
        process = subprocess.Popen(
            [*FOLLOW, "--page", "7", "--ledger", server.url, "--database", own],
            env=environment({"KEY": KEY}),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def completed(server: LedgerServer, lab: str, *bills: str) -> None:
    """Send bills that are created and completed, and wait until they are folded."""
    payloads = [
        event(lab, bill, kind, tests=DONE, at=BASE + at)
        for bill in bills
        for at, kind in enumerate(("bill.created", "report.completed", "bill.completed"))
    ]
    server.record(*payloads)
    server.settle()


def test_a_consumer_that_is_killed_takes_each_change_once(
    server: LedgerServer, own: str, lab: str, tmp_path: Path
) -> None:
    bills = [f"bill_{number:02}" for number in range(20)]
    completed(server, lab, *bills[:10])
    output = tmp_path / "consumer.log"
    with psycopg.connect(own, autocommit=True) as watcher:
        watcher.execute(BARRIER)
        watcher.execute("SELECT pg_advisory_lock(1)")

        def seen(query: str) -> Any:  # noqa: ANN401 -- whatever the column holds
            row = watcher.execute(query.encode()).fetchone()
            assert row is not None
            return row[0]

        for _ in range(2):
            with consumer(server, own, output):  # killed after its rows, before its position
                wait_until(lambda: seen(WAITING) == 1, "the consumer is at the barrier")
            # While a session waits, PostgreSQL does not look whether its client is still there.
            watcher.execute(END_WAITING)
            wait_until(lambda: seen(WAITING) == 0, "its session has ended")
            assert seen("SELECT count(*) FROM bill_notice") == 0
        watcher.execute("SELECT pg_advisory_unlock(1)")
        with consumer(server, own, output):
            taken = "SELECT count(DISTINCT bill_id) FROM bill_notice"
            wait_until(lambda: seen(taken) == 10, "the bills are taken")
        completed(server, lab, *bills[10:])
        with consumer(server, own, output), consumer(server, own, output):  # one at a time works
            wait_until(lambda: seen(taken) == 20, "all bills are taken")
            head = server.head()
            wait_until(
                lambda: seen("SELECT position FROM followed_position") == head,
                "the consumer is at the head",
            )
        notices = watcher.execute("SELECT bill_id FROM bill_notice ORDER BY bill_id").fetchall()
        assert notices == [(bill,) for bill in bills]
        copies = watcher.execute(
            "SELECT bill_id, position FROM followed_bill ORDER BY position"
        ).fetchall()
    items = server.items("/v1/changes", lab_id=lab)
    assert copies == [(item["bill_id"], item["position"]) for item in items]


def test_a_consumer_that_is_ahead_of_a_restored_log_stops_with_a_sentence(
    server: LedgerServer, own: str, tmp_path: Path
) -> None:
    with psycopg.connect(own, autocommit=True) as watcher:
        watcher.execute(BARRIER)
        watcher.execute("UPDATE followed_position SET position = 1000000")
    output = tmp_path / "consumer.log"
    with consumer(server, own, output) as process:
        assert process.wait(60) == 1
    assert "before the position 1000000" in output.read_text()


def test_a_consumer_with_a_wrong_key_stops_with_a_sentence(server: LedgerServer, own: str) -> None:
    done = subprocess.run(
        [*FOLLOW, "--ledger", server.url, "--database", own],
        env=environment({"KEY": "wrong"}),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert b"Ledger refuses" in done.stderr


@pytest.mark.one_server("the reader's role sees no log")
def test_each_question_of_the_report_tool_runs_for_a_reader(server: LedgerServer, lab: str) -> None:
    server.record(*whole_day(lab))
    server.settle()
    text = (EXAMPLES / "bi.sql").read_text(encoding="utf-8")
    queries = [query for query in text.split(";\n\n") if "SELECT" in query]
    assert len(queries) > 5
    with psycopg.connect(server.settings["LEDGER_DATABASE_URL"]) as connection:
        connection.execute("SET ROLE ledger_reader")
        answers = [connection.execute(query.encode()).fetchall() for query in queries]
    assert all(
        answers[place] for place, query in enumerate(queries) if "How late events come" in query
    )


def loaded(name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import an example as an application server does, with its settings in the environment."""
    monkeypatch.setenv("URL", url)
    monkeypatch.setenv("KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def proxy_url() -> Iterator[str]:
    """Give the URL of a proxy that answers with a page of its own, as if Ledger were away."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as proxy:  # 501 to any request
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{proxy.server_port}"
        proxy.shutdown()
        thread.join()


ORDER = {
    "state": "completed",
    "reports": "2 of 2",
    "report_url": "https://reports.example/bill_12345",
    "complete": True,
}


def test_the_flask_application_shows_a_bill(
    server: LedgerServer, lab: str, proxy_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.record(*whole_day(lab))
    server.settle()
    module = loaded("flask_app", server.url, monkeypatch)
    client = module.app.test_client()
    assert client.get(f"/orders/{lab}/bill_12345").json == ORDER
    assert client.get(f"/orders/{lab}/other").status_code == 404
    module.ledger.headers["Authorization"] = "Bearer wrong"
    assert client.get(f"/orders/{lab}/bill_12345").status_code == 503
    for away in (proxy_url, "http://127.0.0.1:1"):
        module.ledger.base_url = away
        assert client.get(f"/orders/{lab}/bill_12345").status_code == 503
    module.ledger.close()


def test_the_fastapi_application_shows_a_bill(
    server: LedgerServer, lab: str, proxy_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.record(*whole_day(lab))
    server.settle()
    module = loaded("fastapi_app", server.url, monkeypatch)

    async def use() -> None:
        inside = httpx.ASGITransport(app=module.app)
        async with (
            module.ledger,
            httpx.AsyncClient(transport=inside, base_url="http://application") as client,
        ):
            assert (await client.get(f"/orders/{lab}/bill_12345")).json() == ORDER
            assert (await client.get(f"/orders/{lab}/other")).status_code == 404
            module.ledger.headers["Authorization"] = "Bearer wrong"
            assert (await client.get(f"/orders/{lab}/bill_12345")).status_code == 503
            for away in (proxy_url, "http://127.0.0.1:1"):
                module.ledger.base_url = away
                assert (await client.get(f"/orders/{lab}/bill_12345")).status_code == 503

    asyncio.run(use())
