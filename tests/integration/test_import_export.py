"""Events in files: out of one log, and equal into another."""

import gzip
import io
import json
import random
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from ledger.errors import ImportFileError
from ledger.eventlog import import_export, import_files
from ledger.eventlog.append import Delivery, append
from ledger.eventlog.import_export import Imported, export_lines, import_lines
from ledger.eventlog.import_files import open_lines
from ledger.postgres.connect import connect
from tests.support.histories import HOSTILE, RECEIVED, body, deliveries, delivery, mixed_history
from tests.support.postgres import database_of, new_database
from tests.support.sessions import drain, log_rows, one, state_rows


@pytest.fixture
def other(postgres_url: str, migrated_template: str) -> Iterator[Connection]:
    """Give a connection to a second, empty log."""
    with (
        new_database(postgres_url, template=migrated_template) as name,
        connect(database_of(postgres_url, name), "test") as connection,
    ):
        yield connection


def ignore(lines: int) -> None:
    """Stand in for a listener."""


def import_bytes(connection: Connection, content: bytes) -> Imported:
    return import_lines(connection, io.BytesIO(content), exports=True, on_progress=ignore)


def import_file(connection: Connection, path: Path) -> Imported:
    with open_lines(str(path), io.BytesIO()) as lines:
        return import_lines(connection, lines, exports=True, on_progress=ignore)


def stored(connection: Connection) -> list[bytes]:
    query = "SELECT body FROM event_log ORDER BY position"
    return [found for (found,) in connection.execute(query)]


def payloads(count: int) -> list[bytes]:
    return [body(bill=f"B{number}") for number in range(count)]


# --- out and in again -------------------------------------------------------------------------


def test_an_exported_log_is_imported_as_an_equal_log(
    service: Connection, other: Connection
) -> None:
    """Times, sources, digests, bytes and order; and so the state is equal, too."""
    append(service, mixed_history(60))
    sources = ("import", "operator", "webhook")
    for number, source in enumerate(sources):
        moment = datetime(2024, 2, 3, 4, 5, 6, 100_000 + number, tzinfo=UTC)
        event = body(bill=f"of {source}")
        append(service, [Delivery.of(event, received_at=moment, source=source)])  # type: ignore[arg-type]  # the three sources
    lines = b"".join(export_lines(service))
    imported = import_bytes(other, lines)
    rows = log_rows(service)
    assert log_rows(other) == rows
    assert imported.recorded + imported.unreadable == len(rows)
    drain(service)
    drain(other)
    assert state_rows(other) == state_rows(service)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_goes_out_and_in_byte_for_byte(undone: Connection, name: str) -> None:
    append(undone, [delivery(HOSTILE[name], received=0.000001)])
    row = log_rows(undone)
    [line] = export_lines(undone)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    made = import_export._delivery(line.strip())  # noqa: SLF001 -- a second log would cost a database
    assert (made.body, made.received_at, made.source) == (row[0][-1], row[0][1], "webhook")
    assert made.examined.digest == row[0][-2]


def test_all_hostile_bodies_go_out_and_in_together(service: Connection, other: Connection) -> None:
    chance = random.Random(5)
    events = [*HOSTILE.values(), *(chance.randbytes(size) for size in range(1, 60))]
    append(service, deliveries(events))
    import_bytes(other, b"".join(export_lines(service)))
    assert log_rows(other) == log_rows(service)


@pytest.mark.parametrize(
    "event",
    [
        body(),
        b'{ "spaces" : [ 1 , 2 ] }',
        b'{"number":1.500,"big":123456789012345678901234567890}',
        b"null",
        b'{"position":1,"received_at":"2024-01-01T00:00:00Z","source":"webhook","body":{}}',
    ],
)
def test_a_body_that_is_json_in_a_line_is_exported_as_json(
    undone: Connection, event: bytes
) -> None:
    append(undone, [delivery(event)])
    [line] = export_lines(undone)
    assert b'"body":' + event + b"}" in line
    shown = json.loads(line)
    assert sorted(shown) == ["body", "position", "received_at", "source"]
    assert (shown["position"], shown["received_at"]) == (1, "2024-01-20T12:00:00Z")


def test_a_part_of_the_log_is_exported_by_position_lab_or_bill(undone: Connection) -> None:
    keys = [("L1", "B1"), ("L1", "B2"), ("L2", "B1"), ("L'", "B%s"), ("L1", "B1")]
    append(
        undone,
        deliveries(body(lab=lab, bill=bill, at=at) for at, (lab, bill) in enumerate(keys)),
    )

    def positions(**part: Any) -> list[int]:  # noqa: ANN401 -- as the function under test
        return [json.loads(line)["position"] for line in export_lines(undone, **part)]

    assert positions() == [1, 2, 3, 4, 5]
    assert positions(after=3) == [4, 5]
    assert positions(after=1, upto=3) == [2, 3]
    assert positions(lab_id="L1") == [1, 2, 5]
    assert positions(bill_id="B1") == [1, 3, 5]
    assert positions(lab_id="L1", bill_id="B1", after=1) == [5]
    assert positions(lab_id="L'", bill_id="B%s") == [4]
    assert positions(lab_id="nobody") == []


# --- in ---------------------------------------------------------------------------------------


def test_payloads_are_events_of_the_source_import(undone: Connection) -> None:
    before = datetime.now(UTC)
    imported = import_bytes(undone, b"\n".join(payloads(3)))
    assert (imported.recorded, imported.duplicate, imported.unreadable) == (3, 0, 0)
    assert stored(undone) == payloads(3)
    rows = undone.execute("SELECT source_letter, received_at FROM event_log").fetchall()
    assert {letter for letter, _ in rows} == {"i"}
    assert all(before <= moment <= datetime.now(UTC) for _, moment in rows)


def test_an_import_that_is_repeated_records_nothing(service: Connection) -> None:
    content = b"\n".join([*payloads(3), b"broken", payloads(1)[0]])
    first = import_bytes(service, content)
    assert (first.recorded, first.duplicate, first.unreadable) == (3, 1, 1)
    again = import_bytes(service, content)
    assert (again.recorded, again.duplicate, again.unreadable) == (0, 5, 0)
    assert len(stored(service)) == 4


def test_broken_lines_are_kept_and_told_with_their_numbers(undone: Connection) -> None:
    lines = [payloads(1)[0], b"", b"broken", b"   ", b'{"labID":"L"}', b"[1]\r", b"\xff\xfe"]
    imported = import_bytes(undone, b"\n".join(lines))
    assert (imported.recorded, imported.unreadable) == (1, 4)
    told = [(line.number, line.unreadable.reason) for line in imported.unreadable_lines]
    assert told == [
        (3, "not_json"),
        (5, "missing_field"),
        (6, "not_an_object"),
        (7, "not_json"),
    ]
    line = imported.unreadable_lines[0]
    assert (line.number, line.unreadable.reason, line.unreadable.path) == (3, "not_json", "$")
    assert stored(undone)[1:] == [b"broken", b'{"labID":"L"}', b"[1]", b"\xff\xfe"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"position":1,"received_at":"2024-01-01T00:00:00","source":"webhook","body":{}}',
        b'{"position":1,"received_at":"0001-01-01T00:00:00+14:00","source":"webhook","body":{}}',
        b'{"position":1,"received_at":"9999-12-31T23:59:59-14:00","source":"webhook","body":{}}',
        b'{"position":1,"received_at":"yesterday","source":"webhook","body":{}}',
        b'{"position":1,"received_at":"2024-01-01T00:00:00Z","source":"else","body":{}}',
        b'{"position":1,"received_at":"2024-01-01T00:00:00Z","source":"webhook","raw":"?"}',
        b'{"position":"1","received_at":"2024-01-01T00:00:00Z","source":"webhook","body":{}}',
        b'{"position":1,"received_at":"2024-01-01T00:00:00Z","source":"webhook","body":{}',
    ],
)
def test_a_line_of_an_export_that_was_tampered_with_harms_no_other(
    undone: Connection, line: bytes
) -> None:
    first, last = payloads(2)
    imported = import_bytes(undone, b"\n".join([first, line, last]))
    assert (imported.recorded, imported.unreadable) == (2, 1)
    assert [told.number for told in imported.unreadable_lines] == [2]
    assert stored(undone) == [first, line, last]
    assert drain(undone) == 3
    assert len(list(export_lines(undone))) == 3


def test_only_the_first_hundred_broken_lines_are_told(undone: Connection) -> None:
    imported = import_bytes(undone, b"\n".join(b"broken %d" % number for number in range(150)))
    assert imported.unreadable == 150
    assert [line.number for line in imported.unreadable_lines] == list(range(1, 101))


def test_progress_is_told_in_lines(undone: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_export, "BATCH", 4)
    told: list[int] = []
    import_lines(
        undone, io.BytesIO(b"\n".join(payloads(10))), exports=True, on_progress=told.append
    )
    assert told == [4, 8, 10]


def test_batches_are_limited_by_bytes_too(
    service: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_export, "BATCH_BYTES", 1000)
    import_bytes(service, b"\n".join(body(bill=f"B{n}", reportURL="x" * 600) for n in range(6)))
    assert one(service, "SELECT count(DISTINCT xmin::text) FROM event_log") == 3


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_read_packed_or_not(undone: Connection, tmp_path: Path, packed: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    path = tmp_path / "events"
    content = b"\n".join(payloads(1000))
    path.write_bytes(gzip.compress(content) if packed else content)
    assert import_file(undone, path).recorded == 1000
    assert stored(undone) == payloads(1000)


def test_packed_files_one_after_the_other_are_one(undone: Connection, tmp_path: Path) -> None:
    path = tmp_path / "events.gz"
    first, second = payloads(2)
    path.write_bytes(gzip.compress(first + b"\n") + gzip.compress(second + b"\n"))
    assert import_file(undone, path).recorded == 2


@pytest.mark.parametrize("content", [b"", b"\n", b"\x1f", b"{"])
def test_a_tiny_file_is_read(undone: Connection, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "events"
    path.write_bytes(content)
    imported = import_file(undone, path)
    assert (imported.recorded, imported.unreadable) == (0, len(content.strip()))


def test_standard_input_is_read_to_its_end(undone: Connection) -> None:
    source = io.BytesIO(gzip.compress(b"\n".join(payloads(3))))
    with open_lines("-", source) as lines:
        assert import_lines(undone, lines, exports=True, on_progress=ignore).recorded == 3


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with (
        pytest.raises(ImportFileError, match="No such file"),
        open_lines(str(missing), io.BytesIO()),
    ):
        pass


def test_a_too_long_line_is_a_sentence_and_the_lines_before_it_are_taken(
    undone: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_files, "MAX_LINE", 1 << 20)
    lines = [*payloads(3), b"x" * ((1 << 20) + 1), body(bill="after")]
    with pytest.raises(ImportFileError, match="line 4 is longer than 1 MiB"):
        import_bytes(undone, b"\n".join(lines))
    assert stored(undone) == payloads(3)


def test_a_line_of_the_greatest_length_is_taken(
    undone: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_files, "MAX_LINE", 1000)
    lines = [b"x" * 999, b"y" * 1000]
    assert import_bytes(undone, b"\n".join(lines)).unreadable == 2


def _packed() -> bytes:
    """Pack lines that hardly shrink, so that a part of the file holds whole lines."""
    chance = random.Random(9)
    lines = [body(bill=f"B{n}", reportURL=chance.randbytes(200).hex()) for n in range(700)]
    return gzip.compress(b"\n".join(lines))


@pytest.mark.parametrize("end", [5, 60_000, -4])
def test_a_packed_file_that_was_cut_is_a_sentence_and_what_came_before_is_taken(
    undone: Connection, tmp_path: Path, end: int
) -> None:
    path = tmp_path / "events.gz"
    packed = _packed()
    path.write_bytes(packed[:end])
    with pytest.raises(ImportFileError, match="no whole gzip file"):
        import_file(undone, path)
    unpacker = zlib.decompressobj(wbits=31)
    readable = unpacker.decompress(packed[:end])
    assert len(stored(undone)) in {readable.count(b"\n"), readable.count(b"\n") + 1}
    whole = gzip.decompress(packed).split(b"\n")
    assert stored(undone)[:-1] == whole[: len(stored(undone)) - 1 if stored(undone) else 0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:10] + b"\xff" * 500,
        lambda packed: packed[:60_000] + b"\xff" * 500 + packed[60_500:],
        lambda packed: packed[:-8] + bytes(8),
        lambda packed: packed + b"rubbish",
    ],
    ids=[
        "overwritten from the beginning",
        "overwritten inside",
        "wrong checksum",
        "followed by other bytes",
    ],
)
def test_a_damaged_packed_file_is_a_sentence(
    undone: Connection, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "events.gz"
    path.write_bytes(damage(_packed()))
    with pytest.raises(ImportFileError, match="no whole gzip file"):
        import_file(undone, path)


def test_a_time_before_the_epoch_of_any_webhook_is_not_believed(undone: Connection) -> None:
    """A log takes only times that all its readers can hold."""
    far = RECEIVED - timedelta(days=700_000)
    line = json.dumps(
        {"position": 1, "received_at": far.isoformat(), "source": "webhook", "body": {}}
    )
    assert import_bytes(undone, line.encode()).unreadable == 1
    assert drain(undone) == 1
