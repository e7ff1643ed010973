"""`ledger import` and `ledger export`."""

import gzip
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.answers import answers_of
from tests.support.commands import assert_sentence
from tests.support.payloads import distinct, event, history, lines
from tests.support.postgres import ready_database
from tests.support.server import (
    LedgerServer,
    Process,
    environment,
    wait_until,
)

# --- import -----------------------------------------------------------------------------------


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
    assert again.stdout == b"recorded 0, duplicate 3, unreadable 1\n"


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


def test_import_records_what_is_no_webhook_only_on_request(server: LedgerServer, lab: str) -> None:
    content = lines(*distinct(lab, 1)) + b'{"labID": "%b"}\n' % lab.encode()
    head = server.head()
    done = server.run("import", "-", stdin=content)
    assert done.stdout == b"recorded 1, duplicate 0, unreadable 1\n"
    assert b"--keep-unreadable" in done.stderr
    assert server.head() == head + 1
    done = server.run("import", "--keep-unreadable", "-", stdin=content)
    assert done.stdout == b"recorded 0, duplicate 1, unreadable 1\n"
    assert b"--keep-unreadable" not in done.stderr
    assert server.head() == head + 2


def test_a_dry_run_counts_and_records_nothing(server: LedgerServer, lab: str) -> None:
    first, second = distinct(lab, 2)
    server.record(first)
    head = server.head()
    content = lines(first, second, second) + b"{}\n"
    done = server.run("import", "--dry-run", "-", stdin=content)
    assert done.returncode == 0
    assert done.stdout == b"recorded 1, duplicate 2, unreadable 1\n"
    assert b"Nothing was recorded" in done.stderr
    assert server.head() == head


def test_what_an_import_recorded_can_be_exported_by_its_number(
    server: LedgerServer, lab: str
) -> None:
    server.run("import", "-", stdin=lines(*distinct(f"{lab}-other", 2)))
    done = server.run("import", "--by", "ann", "-", stdin=lines(*distinct(lab, 3)))
    found = re.search(r"This is import (\d+)", done.stderr.decode())
    assert found
    exported = server.run("export", "--import", found[1])
    assert [json.loads(line)["body"]["labID"] for line in exported.stdout.splitlines()] == [lab] * 3
    assert_sentence(server.run("export", "--import", "999999999"), "999999999")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"id,payload\r\n1,{}\r\n", "CSV"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (b"%PDF-1.7\n", "PDF"),
        (b"Hello,\n\n> {}\n", "mail"),
        (b"Hello\n", "plain text"),
        (b'{"labID": "L", "ev', "cut off or broken"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_another_kind_is_refused_as_a_whole(
    server: LedgerServer, content: bytes, kind: str
) -> None:
    head = server.head()
    for arguments in (["-"], ["--keep-unreadable", "-"], ["--dry-run", "-"]):
        done = server.run("import", *arguments, stdin=content)
        assert_sentence(done, kind, "Nothing of it was recorded", "JSON Lines")
    assert server.head() == head


def test_a_file_without_any_webhook_fails(server: LedgerServer) -> None:
    head = server.head()
    done = server.run("import", "-", stdin=b'{"name": "ledger"}\n')
    assert done.stdout == b"recorded 0, duplicate 0, unreadable 1\n"
    assert_sentence(done, "missing_field")
    assert server.head() == head


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


EVENTS = 12_000
"""So many that an import of them can be killed half way."""


def test_an_import_that_was_killed_is_simply_repeated(
    own_server: LedgerServer, lab: str, tmp_path: Path
) -> None:
    content = lines(*distinct(lab, EVENTS))
    file = tmp_path / "lines"
    file.write_bytes(content)
    process = Process(
        "import", str(file), settings=own_server.settings, output=tmp_path / "import.log"
    )
    wait_until(lambda: own_server.head() > 0, "a part is in the log")
    process.kill()
    taken = own_server.head()
    assert 0 < taken < EVENTS
    done = own_server.run("import", "-", stdin=content)
    # What was under way when it was killed may have been committed a moment later.
    told = re.fullmatch(r"recorded (\d+), duplicate (\d+), unreadable 0\n", done.stdout.decode())
    assert told
    assert int(told[1]) + int(told[2]) == EVENTS
    assert int(told[2]) >= taken
    assert own_server.settle() == EVENTS
    first = own_server.run("export", "--import", "1").stdout.count(b"\n")
    second = own_server.run("export", "--import", "2").stdout.count(b"\n")
    assert (first, second) == (int(told[2]), int(told[1]))
    assert len(own_server.items("/v1/bills", limit=1000)) == EVENTS
    assert own_server.run("verify").returncode == 0


# --- export -----------------------------------------------------------------------------------


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


RECORD = b'{"instance"'


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
        content, again = gzip.decompress(file.read_bytes()), other.run("export").stdout
        # The other receiver has its own records of liveness.
        assert again[: again.index(RECORD)] == content[: content.index(RECORD)]


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


def test_a_reader_that_goes_away_is_no_error(server: LedgerServer, lab: str) -> None:
    server.run("import", "-", stdin=history(lab, 2000))
    began = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", f"'{sys.executable}' -m ledger export | head -n 1"],  # noqa: S607 -- whichever the PATH has
        env=environment(server.settings),
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert json.loads(done.stdout)["position"] == 1
    assert b"Traceback" not in done.stderr
    assert time.monotonic() - began < 20
