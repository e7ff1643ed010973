"""`ledger rebuild`, beside readers, of one bill, and interrupted."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.support.answers import answers_of
from tests.support.commands import assert_sentence
from tests.support.payloads import event, history
from tests.support.server import (
    LedgerServer,
    Process,
    wait_until,
)


@contextmanager
def reading(server: LedgerServer, lab: str) -> Iterator[list[tuple[int, int]]]:
    """Read all the time; give the status and position of each answer."""
    seen: list[tuple[int, int]] = []
    stop = threading.Event()
    paths = ("/v1/bills", "/v1/projection", f"/v1/labs/{lab}/bills/b00001", "/v1/reports")

    def read() -> None:
        while not stop.is_set():
            for path in paths:
                answer = server.get(path)
                seen.append((answer.status_code, int(answer.headers.get("ledger-position", -1))))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def test_readers_are_served_throughout_rebuilds_and_the_position_never_goes_back(
    own_server: LedgerServer, lab: str
) -> None:
    assert own_server.run("import", "-", stdin=history(lab, 100)).returncode == 0
    own_server.settle()
    before = answers_of(own_server)
    with reading(own_server, lab) as seen:
        for number in range(2):
            done = own_server.run("rebuild", "--yes", "--processes", "1")
            assert done.returncode == 0, done.stderr
            own_server.record(event(f"{lab}_other", f"b{number}"))
            own_server.settle()
    assert {status for status, _ in seen} == {200}
    positions = [position for _, position in seen]
    assert positions == sorted(positions)
    assert len(positions) > 20
    after = answers_of(own_server)
    assert [item for item in after[0] if item["lab_id"] == lab] == before[0]
    assert own_server.run("verify").returncode == 0


def test_rebuild_says_what_it_would_do_and_does_not(server: LedgerServer) -> None:
    done = server.run("rebuild", "--dry-run")
    assert done.returncode == 0
    assert b"events" in done.stderr
    assert b"Nothing was changed" in done.stderr


def test_rebuild_of_one_bill_mends_it_alone(
    server: LedgerServer, module_database_url: str, lab: str
) -> None:
    server.record(event(lab, "b1", integrator="x"), event(lab, "b2", integrator="x"))
    server.settle()
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE state.bill SET state = 'deleted' WHERE lab_id = %s",
            [lab],
        )
    done = server.run("rebuild", "--bill", lab, "b1")
    assert done.returncode == 0, done.stderr
    states = [server.get(f"/v1/labs/{lab}/bills/{bill}").json()["state"] for bill in ("b1", "b2")]
    assert states == ["open", "deleted"]
    assert server.run("rebuild", "--bill", lab, "b2").returncode == 0


def test_rebuild_refuses_options_that_it_would_ignore(server: LedgerServer) -> None:
    for words in (("--bill", "L", "B", "--dry-run"), ("--bill", "L", "B", "--anew")):
        done = server.run("rebuild", *words)
        assert done.returncode == 2
        assert b"--bill folds one bill" in done.stderr
    done = server.run("rebuild", "--join", "--dry-run")
    assert done.returncode == 2
    assert b"--processes alone" in done.stderr


def test_there_is_nothing_to_join(server: LedgerServer) -> None:
    assert_sentence(server.run("rebuild", "--join"), "start one with `ledger rebuild`")


def test_rebuild_of_a_bill_that_does_not_exist_is_a_sentence(
    server: LedgerServer, lab: str
) -> None:
    assert_sentence(server.run("rebuild", "--bill", lab, "none"), "none", lab)


@contextmanager
def blocked_rebuild(server: LedgerServer, url: str, output: Path) -> Iterator[Process]:
    """Start a rebuild and hold it up in its middle, at its first look at the log's content."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(7402, 2)")  # no swap while this is held
        process = Process(
            "rebuild", "--yes", "--processes", "1", settings=server.settings, output=output
        )

        def holds_tables() -> bool:
            found = connection.execute(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory'"
                " AND classid = 7402 AND objid = 2 AND NOT granted)"
                " AND to_regclass('state_next.bill') IS NOT NULL"
            ).fetchone()
            return bool(found and found[0])

        wait_until(lambda: holds_tables() or not process.running, "the rebuild is in its middle")
        assert process.running, process.output
        yield process


def test_an_interrupted_rebuild_leaves_the_state_untouched_and_the_next_succeeds(
    own_server: LedgerServer, database_url: str, tmp_path: Path, lab: str
) -> None:
    own_server.run("import", "-", stdin=history(lab, 100))
    own_server.settle()
    before = answers_of(own_server)
    for number in (signal.SIGINT, signal.SIGKILL):
        own_server.kill_projector()  # which would wait for the same lock
        with blocked_rebuild(own_server, database_url, tmp_path / "rebuild.log") as process:
            assert own_server.get("/v1/projection").json()["rebuild"] is not None
            assert_sentence(own_server.run("rebuild", "--yes"), "another rebuild")
            assert_sentence(own_server.run("verify"), "rebuild runs")
            process.send_signal(number)
            assert process.wait() != 0
        assert "Traceback" not in process.output
        assert answers_of(own_server) == before
    own_server.start_projector()
    wait_until(
        lambda: own_server.get("/v1/projection").json()["rebuild"] is None, "its end is seen"
    )
    done = own_server.run("rebuild", "--yes", "--processes", "1")
    assert done.returncode == 0, done.stderr
    assert answers_of(own_server) == before
    assert own_server.run("verify").returncode == 0
