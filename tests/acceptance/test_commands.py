"""The commands of `ledger`, as a person or a cron job runs them."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from ledger.cli import ledger
from ledger.errors import SettingsError
from ledger.flabs import read_truth
from ledger.settings import Settings
from tests.acceptance.conftest import ready_database
from tests.acceptance.payloads import BASE, Payload, distinct, event
from tests.support.server import (
    KEY,
    TOKEN,
    LedgerServer,
    Process,
    environment,
    run_ledger,
    wait_until,
)

COMMANDS = (
    "up", "serve", "project", "migrate", "rebuild", "verify", "import", "export", "status",
    "simulate", "openapi",
)  # fmt: skip


def lines(*payloads: Payload) -> bytes:
    return b"".join(json.dumps(payload).encode() + b"\n" for payload in payloads)


def settings_of(url: str) -> dict[str, str]:
    return {
        "LEDGER_DATABASE_URL": url,
        "LEDGER_WEBHOOK_TOKENS": TOKEN,
        "LEDGER_ADMIN_KEY": KEY,
    }


def assert_sentence(done: subprocess.CompletedProcess[bytes], *words: str, code: int = 1) -> str:
    """Check that a command ended with a sentence and not with a traceback."""
    said = done.stderr.decode()
    assert done.returncode == code, said
    assert "Traceback" not in said
    for word in words:
        assert word in said
    return said


# --- help -------------------------------------------------------------------------------------


def test_help_lists_every_command() -> None:
    done = run_ledger("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout.decode()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = CliRunner().invoke(ledger, [command, "--help"], prog_name="ledger")
    assert done.exit_code == 0
    assert f"ledger {command}" in done.stdout
    assert not done.stderr


def test_an_unknown_command_is_wrong_usage() -> None:
    assert run_ledger("nonsense").returncode == 2


def test_an_unknown_option_is_wrong_usage() -> None:
    assert CliRunner().invoke(ledger, ["verify", "--nonsense"]).exit_code == 2


# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LEDGER_DATABASE_ULR", "x", "did you mean LEDGER_DATABASE_URL"),
        ("LEDGER_WEBHOOK_TOKEN", "x", "did you mean LEDGER_WEBHOOK_TOKENS"),
        ("LEDGER_PORT", "eighty", "eighty"),
        ("LEDGER_PORT", "9" * 5000, "65535"),
        ("LEDGER_MAX_BODY", "1M", "1M"),
        ("LEDGER_EVENTS", "bill.created,bill.exploded", "bill.exploded"),
        ("LEDGER_WEBHOOK_HEADER", "two words", "header"),
        ("LEDGER_WEBHOOK_TOKENS", "sec ret", "LEDGER_WEBHOOK_TOKENS"),
        ("LEDGER_DATABASE_URL", "mysql://u:sec_ret@h/d", "postgresql://"),
    ],
)
def test_a_bad_setting_stops_the_start_with_a_sentence_that_names_it(
    name: str, value: str, words: str
) -> None:
    settings = {**settings_of("postgresql://u@127.0.0.1:1/x"), name: value}
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment(settings)
    said = str(raised.value)
    assert name in said
    assert words in said
    assert "sec ret" not in said
    assert "sec_ret" not in said


def test_a_bad_setting_stops_every_command_with_exit_code_1() -> None:
    settings = {**settings_of("postgresql://u@127.0.0.1:1/x"), "LEDGER_PROT": "80"}
    for command in ("serve", "project", "status"):
        done = run_ledger(command, settings=settings, timeout=20)
        assert_sentence(done, "LEDGER_PROT", "did you mean LEDGER_PORT")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:geheim wort@127.0.0.1:1/x",
        "postgresql://u:geheim%zzwort@127.0.0.1:1/x",
        "host=127.0.0.1 password=geheim wort",
        "host=127.0.0.1 password='geheim",
    ],
)
def test_a_malformed_database_url_stops_the_start_and_is_not_shown(url: str) -> None:
    done = run_ledger("serve", settings=settings_of(url), timeout=20)
    said = assert_sentence(done, "LEDGER_DATABASE_URL")
    assert "geheim" not in said
    assert "wort" not in said


@pytest.mark.parametrize("missing", ["LEDGER_DATABASE_URL", "LEDGER_WEBHOOK_TOKENS"])
def test_serve_needs_a_database_and_a_token(missing: str) -> None:
    settings = settings_of("postgresql://u@127.0.0.1:1/x")
    del settings[missing]
    assert_sentence(run_ledger("serve", settings=settings, timeout=20), missing)


@pytest.mark.parametrize("host", ["256.1.1.1", "two words"])
def test_an_address_to_listen_on_that_is_none_is_a_sentence(
    module_database_url: str, host: str
) -> None:
    settings = {**settings_of(module_database_url), "LEDGER_HOST": host}
    assert_sentence(run_ledger("serve", settings=settings, timeout=20), "LEDGER_HOST")


def test_a_taken_port_is_a_sentence(server: LedgerServer) -> None:
    assert_sentence(run_ledger("serve", settings=server.settings, timeout=20), str(server.port))


def test_settings_for_tests_are_ignored(module_database_url: str) -> None:
    settings = {**settings_of(module_database_url), "LEDGER_TEST_ANYTHING": "x"}
    assert run_ledger("status", settings=settings).returncode == 0


# --- schema -----------------------------------------------------------------------------------

NEEDS_SCHEMA = ("serve", "project", "rebuild", "verify")


@pytest.mark.parametrize("command", NEEDS_SCHEMA)
def test_a_database_that_was_not_prepared_is_a_sentence(
    empty_database_url: str, command: str
) -> None:
    done = run_ledger(command, settings=settings_of(empty_database_url), timeout=20)
    assert_sentence(done, "ledger migrate")


def test_an_old_schema_is_a_sentence(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    for command in ("serve", "project"):
        done = run_ledger(command, settings=settings_of(database_url), timeout=20)
        assert_sentence(done, "ledger migrate")


def test_a_newer_schema_is_a_sentence(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for command in ("serve", "project"):
        done = run_ledger(command, settings=settings_of(database_url), timeout=20)
        assert_sentence(done, "newer")


def test_migrate_prepares_an_empty_database_and_may_run_twice(empty_database_url: str) -> None:
    settings = settings_of(empty_database_url)
    for _ in range(2):
        done = run_ledger("migrate", settings=settings)
        assert done.returncode == 0, done.stderr
    status = json.loads(run_ledger("status", "--json", settings=settings).stdout)
    assert (status["head"], status["position"], status["parked"]) == (0, 0, 0)


def test_migrate_tells_what_it_would_do_and_does_not(empty_database_url: str) -> None:
    settings = settings_of(empty_database_url)
    assert run_ledger("migrate", "--dry-run", settings=settings).returncode == 0
    assert_sentence(run_ledger("status", settings=settings), "ledger migrate")


def test_a_database_that_is_away_is_a_sentence() -> None:
    settings = settings_of("postgresql://u:geheim@127.0.0.1:1/x")
    for command in ("migrate", "verify"):
        assert "geheim" not in assert_sentence(run_ledger(command, settings=settings))


# --- secrets ----------------------------------------------------------------------------------


def test_secrets_appear_in_no_output_and_no_session(
    server: LedgerServer, module_database_url: str, lab: str
) -> None:
    server.record(event(lab, "b"))
    server.send(event(lab, "c"), token="wrong")
    server.send(event(lab, "c"), token="", path=f"/webhooks/flabs/{TOKEN}")
    server.send(event(lab, "c"), token="", path=f"/webhooks/flabsx/{TOKEN}")
    server.settle()
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        password = connection.info.password
        sessions = connection.execute(
            "SELECT application_name, query FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        ).fetchall()
    shown = server.output + str(sessions) + server.anonymous.get("/metrics").text
    done = server.run("status")
    shown += (done.stdout + done.stderr).decode()
    for secret in (TOKEN, KEY, password):
        assert secret
        assert secret not in shown
    assert "'password'" not in shown


# --- rebuild and verify -----------------------------------------------------------------------


def history(lab: str, count: int) -> bytes:
    """Make events of bills, of which some are open, some complete, some lack events."""
    tests: dict[str, str | None] = {"t1": "completed", "t2": "completed"}
    payloads: list[Payload] = []
    for number in range(count):
        bill = f"b{number:05}"
        payloads.append(event(lab, bill, tests={"t1": None, "t2": None}, integrator=f"i{number}"))
        if number % 2:
            payloads.append(event(lab, bill, "report.completed", at=BASE + 5, tests={"t1": "x"}))
        if number % 3:
            payloads.append(event(lab, bill, "bill.completed", at=BASE + 9, tests=tests))
    return lines(*payloads)


def answers_of(server: LedgerServer) -> list[Any]:
    """Return all that the state says, but for what depends on the time of the question."""
    bills = server.items("/v1/bills", limit=1000)
    missing = server.items("/v1/missing-events", limit=1000)
    unreadable = server.items("/v1/events/unreadable", limit=1000)
    for item in missing:
        del item["state"]
    reports = server.items("/v1/reports", limit=1000)
    return [bills, reports, missing, unreadable]


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
    assert b"Nothing was done" in done.stderr


def test_rebuild_of_one_bill_mends_it_alone(
    server: LedgerServer, module_database_url: str, lab: str
) -> None:
    server.record(event(lab, "b1", integrator="x"), event(lab, "b2", integrator="x"))
    server.settle()
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE state.bill SET summary = replace(summary::text, 'open', 'deleted')::json"
            " WHERE lab_id = %s",
            [lab],
        )
    done = server.run("rebuild", "--bill", lab, "b1")
    assert done.returncode == 0, done.stderr
    states = [server.get(f"/v1/labs/{lab}/bills/{bill}").json()["state"] for bill in ("b1", "b2")]
    assert states == ["open", "deleted"]
    assert server.run("rebuild", "--bill", lab, "b2").returncode == 0


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


def test_verify_proves_an_empty_log(database_url: str) -> None:
    assert run_ledger("verify", settings=settings_of(database_url)).returncode == 0


def tampered(url: str, statement: str) -> None:
    """Change what only a superuser who takes the walls down can change."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER TABLE event_log DISABLE TRIGGER event_log_is_append_only")
        connection.execute(statement.encode())
        connection.execute("ALTER TABLE event_log ENABLE ALWAYS TRIGGER event_log_is_append_only")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (
            "UPDATE state.bill SET state = 'deleted' WHERE bill_id IN ('b00004', 'b00002')",
            ["b00002", "state"],
        ),
        ("DELETE FROM state.report WHERE bill_id = 'b00003'", ["b00003", "missing"]),
        (
            (
                "INSERT INTO state.missing_event SELECT lab_id, 'ghost', event_type, test_id,"
                " certainty, count, integrator_id, evidence_position, evidence_event_type,"
                " evidence_event_time, evidence_received_at FROM state.missing_event LIMIT 1"
            ),
            ["ghost", "should not be there"],
        ),
        (
            (
                "UPDATE event_log SET body = convert_to(replace(convert_from(body, 'UTF8'),"
                " 'b00001', 'b00009'), 'UTF8') WHERE position IN (3, 4)"
            ),
            ["digest", "position 3"],
        ),
        (
            "UPDATE event_log SET event_time = event_time + interval '1 s' WHERE position = 5",
            ["event_time", "position 5"],
        ),
        ("DELETE FROM event_log WHERE position IN (7, 9)", ["position 7", "missing"]),
        ("UPDATE event_log SET position = 8 WHERE position = 9", ["position 8", "twice"]),
        (
            "DELETE FROM event_log WHERE position = (SELECT max(position) FROM event_log)",
            ["position 65", "64"],
        ),
    ],
)
def test_verify_names_the_first_difference_and_exits_with_3(
    postgres_url: str, prepared_database: str, statement: str, words: list[str]
) -> None:
    with ready_database(postgres_url, prepared_database) as url:
        tampered(url, statement)
        done = run_ledger("verify", "--processes", "1", settings=settings_of(url))
    assert done.returncode == 3, done.stdout + done.stderr
    for word in words:
        assert word in done.stdout.decode()


@pytest.fixture(scope="module")
def prepared_database(postgres_url: str, migrated_template: str) -> Iterator[str]:
    """Name of a database with 30 bills, folded, to be cloned."""
    with ready_database(postgres_url, migrated_template) as url:
        settings = settings_of(url)
        run_ledger("import", "-", settings=settings, stdin=history("lab", 30))
        done = run_ledger("rebuild", "--yes", "--processes", "1", settings=settings)
        assert done.returncode == 0, done.stderr
        yield url.rpartition("/")[2]


# --- import and export ------------------------------------------------------------------------


def test_import_tells_what_became_of_each_line(
    server: LedgerServer, tmp_path: Path, lab: str
) -> None:
    first, second = distinct(lab, 2)
    file = tmp_path / "day.jsonl"
    file.write_bytes(b"\n\n" + lines(first) + b"  \r\n{broken\n" + lines(first, second) + b"\n")
    done = server.run("import", str(file))
    assert done.returncode == 0
    assert done.stdout == b"recorded 2, duplicate 1, unreadable 1\n"
    assert b"line 5:" in done.stderr
    again = server.run("import", str(file))
    assert again.stdout == b"recorded 0, duplicate 4, unreadable 0\n"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("by_name", [False, True])
def test_import_reads_files_and_standard_input_packed_or_not(
    server: LedgerServer, tmp_path: Path, lab: str, *, packed: bool, by_name: bool
) -> None:
    content = lines(*distinct(lab, 3))
    content = gzip.compress(content) if packed else content
    file = tmp_path / "day"
    file.write_bytes(content)
    done = server.run("import", str(file)) if by_name else server.run("import", "-", stdin=content)
    assert done.stdout == b"recorded 3, duplicate 0, unreadable 0\n"
    server.settle()
    bills = server.items("/v1/bills", lab_id=lab)
    assert len(bills) == 3
    (item,) = server.items(f"/v1/labs/{lab}/bills/{bills[0]['bill_id']}/events")
    assert (item["source"], item["attempt"]) == ("import", None)


def test_an_imported_event_is_a_duplicate_of_the_one_that_was_delivered(
    server: LedgerServer, lab: str
) -> None:
    payload = event(lab, "b")
    (position,) = server.record(payload)
    assert server.run("import", "-", stdin=lines(payload)).stdout.startswith(b"recorded 0, dup")
    assert server.send(payload).json() == {"outcome": "duplicate", "position": position}


@pytest.mark.parametrize("name", ["does/not/exist.jsonl", "/"])
def test_a_file_that_cannot_be_read_is_a_sentence(server: LedgerServer, name: str) -> None:
    assert_sentence(server.run("import", name), name)


def broken_gzip() -> bytes:
    packed = bytearray(gzip.compress(os.urandom(4000).hex().encode()))
    packed[500:560] = bytes(60)
    return bytes(packed)


@pytest.mark.parametrize(
    "content", [gzip.compress(b"{}\n" * 999)[:-9], broken_gzip()], ids=["cut off", "corrupt"]
)
def test_a_broken_gzip_file_is_a_sentence(
    server: LedgerServer, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "day.gz"
    file.write_bytes(content)
    assert_sentence(server.run("import", str(file)), "gzip")


def test_a_line_of_an_export_with_an_absurd_time_hurts_nobody(
    server: LedgerServer, lab: str
) -> None:
    absurd = ("2024-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", 5)
    made = [
        {"position": 1, "received_at": received, "source": "webhook", "body": event(lab, "bad")}
        for received in absurd
    ]
    done = server.run("import", "-", stdin=lines(*made, event(lab, "good")))
    assert done.returncode == 0
    assert done.stdout == b"recorded 1, duplicate 0, unreadable 4\n"
    server.settle()
    assert server.get(f"/v1/labs/{lab}/bills/good").status_code == 200
    assert server.run("verify").returncode == 0


def test_an_import_that_was_killed_is_simply_repeated(
    own_server: LedgerServer, lab: str, tmp_path: Path
) -> None:
    content = lines(*distinct(lab, 3000))
    fifo = tmp_path / "lines"
    os.mkfifo(fifo)
    process = Process(
        "import", str(fifo), settings=own_server.settings, output=tmp_path / "import.log"
    )
    with fifo.open("wb", buffering=0) as writer:
        writer.write(content[: len(content) // 2])
        wait_until(lambda: own_server.head() > 0, "a part is in the log")
        process.kill()
    taken = own_server.head()
    assert 0 < taken < 3000
    done = own_server.run("import", "-", stdin=content)
    # What was under way when it was killed may have been committed a moment later.
    told = re.fullmatch(r"recorded (\d+), duplicate (\d+), unreadable 0\n", done.stdout.decode())
    assert told
    assert int(told[1]) + int(told[2]) == 3000
    assert int(told[2]) >= taken
    assert own_server.settle() == 3000
    assert len(own_server.items("/v1/bills", limit=1000)) == 3000
    assert own_server.run("verify").returncode == 0


def strange_bodies(lab: str) -> list[bytes]:
    whole = json.dumps(event(lab, "b")).encode()
    return [
        b"\x00\xff broken " + lab.encode(),
        b" \n" + json.dumps([lab]).encode() + b"\r\n",
        json.dumps(event(lab, "b"), indent=2).encode(),
        json.dumps({**event(lab, "surrogate"), "x": "\ud800"}).encode(),
        whole[:-1] + b', "more": 1e999}',
        whole[:-1] + b', "more": ' + b"7" * 5000 + b"}",
        whole[:-1] + b', "line": "\xe2\x80\xa8"}',
        json.dumps({"position": 1, "received_at": "x", "source": lab, "body": 1}).encode(),
        json.dumps(
            {"position": 1, "received_at": "2024-01-01T00:00:00Z", "source": "webhook", "body": lab}
        ).encode(),
    ]


def test_an_export_imported_into_an_empty_database_gives_an_equal_state(
    own_server: LedgerServer, postgres_url: str, migrated_template: str, tmp_path: Path, lab: str
) -> None:
    for payload in [*strange_bodies(lab), *distinct(lab, 5)]:
        assert own_server.send(payload).status_code == 200
    own_server.run("import", "-", stdin=history(lab, 60))
    own_server.settle()
    file = tmp_path / "log.jsonl.gz"
    done = own_server.run("export", "--output", str(file))
    assert done.returncode == 0, done.stderr
    other_folder = tmp_path / "other"
    other_folder.mkdir()
    with (
        ready_database(postgres_url, migrated_template) as url,
        LedgerServer(url, other_folder) as other,
    ):
        assert other.run("import", str(file)).returncode == 0
        assert other.settle() == own_server.head()
        assert answers_of(other) == answers_of(own_server)
        for after in range(0, own_server.head(), 50):
            asked = {"after": after, "limit": 50}
            assert other.get("/v1/events", **asked).content == own_server.get(
                "/v1/events", **asked
            ).content  # fmt: skip
        assert other.run("export").stdout == gzip.decompress(file.read_bytes())


def test_a_part_of_the_log_can_be_exported(server: LedgerServer, lab: str) -> None:
    first, *_, last = server.record(*(event(lab, f"b{number}") for number in range(4)))

    def exported(*arguments: str) -> list[int]:
        done = server.run("export", *arguments)
        assert done.returncode == 0
        return [json.loads(line)["position"] for line in done.stdout.splitlines()]

    assert exported("--lab", lab) == list(range(first, last + 1))
    assert exported("--lab", lab, "--bill", "b2") == [first + 2]
    assert exported("--after", str(first), "--upto", str(last - 1)) == [first + 1, first + 2]


def test_an_export_that_cannot_be_written_is_a_sentence(server: LedgerServer) -> None:
    assert_sentence(server.run("export", "--output", "/no/such/folder/x"), "/no/such/folder")


# --- status, simulate, openapi ----------------------------------------------------------------


def test_status_says_how_far_the_state_is(server: LedgerServer, lab: str) -> None:
    server.record(event(lab, "b"))
    head = server.settle()
    status = json.loads(server.run("status", "--json").stdout)
    assert (status["head"], status["position"], status["lag_events"]) == (head, head, 0)
    text = server.run("status").stdout.decode()
    assert f"{head:,}" in text
    assert "up to date" in text
    with server.without_projector():
        server.record(event(lab, "c"))
        assert json.loads(server.run("status", "--json").stdout)["lag_events"] == 1


def test_a_simulated_day_is_found_as_the_truth_file_tells_it(
    own_server: LedgerServer, tmp_path: Path
) -> None:
    truth_file = tmp_path / "truth.jsonl"
    done = run_ledger(
        "simulate", "--bills", "60", "--labs", "2", "--seed", "7", "--delta", "--drop", "0.06",
        "--duplicate", "0.1", "--reorder", "0.2", "--late", "0.1", "--retry-interval", "0.05",
        "--url", f"{own_server.url}/webhooks/flabs", "--token", own_server.token,
        "--truth", str(truth_file),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    own_server.settle()
    sent: dict[tuple[str, str], list[tuple[Payload, bool]]] = {}
    for one in read_truth(truth_file):
        payload = json.loads(bytes(one.payload))
        key = (payload["labID"], payload["data"]["billID"])
        sent.setdefault(key, []).append((payload, one.delivered))
    bills = {
        (item["lab_id"], item["bill_id"]): item
        for item in own_server.items("/v1/bills", limit=1000)
    }
    delivered = {
        key: sum(came for _, came in events)
        for key, events in sent.items()
        if any(came for _, came in events)
    }
    assert {key: bill["events"] for key, bill in bills.items()} == delivered
    assert sum(delivered.values()) == own_server.head()
    assert sum(map(len, sent.values())) > own_server.head()
    certain = own_server.items("/v1/missing-events", certainty="certain", limit=1000)
    assert certain
    for missing in certain:
        lost = [
            payload
            for payload, came in sent[missing["lab_id"], missing["bill_id"]]
            if not came and payload["eventType"] == missing["event_type"]
        ]
        assert lost, missing
    for (lab_id, bill_id), events in sent.items():
        created_lost = any(
            not came and payload["eventType"] == "bill.created" for payload, came in events
        )
        deleted = any(came and payload["eventType"] == "bill.deleted" for payload, came in events)
        if created_lost and not deleted and (lab_id, bill_id) in bills:
            assert ("bill.created", lab_id, bill_id) in {
                (item["event_type"], item["lab_id"], item["bill_id"]) for item in certain
            }
    assert own_server.run("verify").returncode == 0


def test_simulate_with_a_wrong_token_says_so_and_fails(server: LedgerServer) -> None:
    done = run_ledger(
        "simulate", "--bills", "2", "--retry-interval", "0.01", "--token", "wrong",
        "--url", f"{server.url}/webhooks/flabs",
    )  # fmt: skip
    assert_sentence(done, "401")


def test_openapi_check_finds_a_drift(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert run_ledger("openapi", "--output", folder).returncode == 0
    assert run_ledger("openapi", "--output", folder, "--check").returncode == 0
    file = tmp_path / "webhook.json"
    file.write_bytes(file.read_bytes().replace(b"billID", b"billId"))
    done = run_ledger("openapi", "--output", folder, "--check")
    assert done.returncode == 3
    assert b"webhook.json" in done.stdout


def test_openapi_prints_the_document() -> None:
    done = run_ledger("openapi")
    assert json.loads(done.stdout)["openapi"].startswith("3.1")


def test_a_reader_that_goes_away_is_no_error(server: LedgerServer, lab: str) -> None:
    server.run("import", "-", stdin=history(lab, 2000))
    began = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m ledger export | head -n 1"],  # noqa: S607
        env=environment(server.settings),
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert json.loads(done.stdout)["position"] == 1
    assert b"Traceback" not in done.stderr
    assert time.monotonic() - began < 20
