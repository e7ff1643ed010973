"""Events in files: out of one log, and equal into another."""

import gzip
import io
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from ledger.errors import ImportFileError, UnknownSubjectError
from ledger.eventlog.append import Delivery, append
from ledger.eventlog.export_lines import export_lines
from ledger.eventlog.import_counts import Imported
from ledger.eventlog.import_events import import_events, preview_import
from ledger.eventlog.import_files import ImportFile, Limits, open_import_file
from ledger.eventlog.import_values import Options, events_of
from ledger.model.operators import Operator
from ledger.postgres.connect import connect
from tests.support.addresses import database_of
from tests.support.decisions import decided, waived
from tests.support.histories import HOSTILE, RECEIVED, body, deliveries, delivery, mixed_history
from tests.support.postgres import new_database
from tests.support.sessions import drain, log_rows, one, state_rows

pytestmark = pytest.mark.slow


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


def options(*, exports: bool = True, keep: bool = False) -> Options:
    return Options(by=Operator("ann"), exports=exports, keep_unreadable=keep)


def import_bytes(
    connection: Connection,
    content: bytes,
    *,
    exports: bool = True,
    keep: bool = False,
    limits: Limits | None = None,
) -> Imported:
    file = ImportFile(io.BytesIO(content), limits=limits)
    chosen = options(exports=exports, keep=keep)
    return import_events(connection, file, chosen, on_progress=ignore)


def import_file(connection: Connection, path: Path) -> Imported:
    with open_import_file(str(path), io.BytesIO(), limits=Limits()) as file:
        return import_events(connection, file, options(), on_progress=ignore)


def stored(connection: Connection) -> list[bytes]:
    query = "SELECT body FROM ledger.logged_event ORDER BY position"
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
    # A second log would cost a database.
    [made] = events_of(line.strip(), options())
    assert isinstance(made, Delivery)
    assert (made.body, made.received_at, made.source) == (HOSTILE[name], row[0][1], "webhook")
    assert made.columns.digest == row[0][-2]


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
    rows = undone.execute("SELECT source, received_at FROM ledger.event_log").fetchall()
    assert {letter for letter, _ in rows} == {"import"}
    assert all(before <= moment <= datetime.now(UTC) for _, moment in rows)


def test_an_import_that_is_repeated_records_nothing(service: Connection) -> None:
    content = b"\n".join([*payloads(3), b"broken", payloads(1)[0]])
    first = import_bytes(service, content, keep=True)
    assert (first.recorded, first.duplicate, first.unreadable) == (3, 1, 1)
    again = import_bytes(service, content, keep=True)
    assert (again.recorded, again.duplicate, again.unreadable) == (0, 5, 0)
    assert len(stored(service)) == 4


BROKEN_LINES = [payloads(1)[0], b"", b"broken", b"   ", b'{"labID":"L"}', b"5\r", b"\xff\xfe"]


def test_values_that_are_no_webhook_are_reported_with_their_numbers_and_not_recorded(
    undone: Connection,
) -> None:
    imported = import_bytes(undone, b"\n".join(BROKEN_LINES))
    assert (imported.recorded, imported.unreadable, imported.unreadable_recorded) == (1, 4, 0)
    assert [(line.number, line.unreadable.reason) for line in imported.unreadable_lines] == [
        (3, "not_json"),
        (5, "missing_field"),
        (6, "not_an_object"),
        (7, "not_json"),
    ]
    line = imported.unreadable_lines[0]
    assert (line.number, line.unreadable.reason, line.unreadable.path) == (3, "not_json", "$")
    assert stored(undone) == payloads(1)


def test_values_that_are_no_webhook_are_recorded_on_request(undone: Connection) -> None:
    imported = import_bytes(undone, b"\n".join(BROKEN_LINES), keep=True)
    assert (imported.recorded, imported.unreadable, imported.unreadable_recorded) == (1, 4, 4)
    assert stored(undone)[1:] == [b"broken", b'{"labID":"L"}', b"5", b"\xff\xfe"]


def test_a_line_of_our_own_export_is_recorded_even_if_it_is_no_webhook(
    service: Connection, other: Connection
) -> None:
    append(service, deliveries([b"broken", *payloads(1)]))
    imported = import_bytes(other, b"".join(export_lines(service)))
    assert (imported.recorded, imported.unreadable, imported.unreadable_recorded) == (1, 1, 1)
    assert stored(other) == [b"broken", *payloads(1)]


def test_an_export_of_somebody_else_is_imported_as_payloads(
    service: Connection, other: Connection
) -> None:
    """Neither times nor sources nor decisions of operators are believed."""
    spaced = b" \n%b\r\n" % payloads(2)[1]
    append(service, deliveries([b"broken", payloads(1)[0], spaced]))
    append(service, [decided(waived())])
    before = datetime.now(UTC)
    imported = import_bytes(other, b"".join(export_lines(service)), exports=False)
    assert (imported.recorded, imported.unreadable, imported.unreadable_recorded) == (2, 2, 0)
    rows = other.execute("SELECT source, received_at, body FROM ledger.logged_event").fetchall()
    assert {letter for letter, _, _ in rows} == {"import"}
    assert all(before <= moment for _, moment, _ in rows)
    assert sorted(found for _, _, found in rows) == [spaced, payloads(1)[0]]


@pytest.mark.parametrize(
    "line",
    [
        b'{"position":1,"received_at":"2024-01-01T00:00:00","source":"webhook","body":{}}',
        b'{"position":1,"received_at":"0001-01-01T00:00:00+14:00","source":"webhook","body":{}}',
        b'{"position":1,"received_at":"9999-12-31T23:59:59-14:00","source":"webhook","body":{}}',
        b'{"position":1,"received_at":"2024-01-01T00:00:00+16:00","source":"webhook","body":{}}',
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
    assert [shown.number for shown in imported.unreadable_lines] == [2]
    assert stored(undone) == [first, last]
    assert drain(undone) == 2


def test_the_first_hundred_values_that_are_no_webhook_are_listed(undone: Connection) -> None:
    lines = [*payloads(1), *(b'{"broken":%d}' % number for number in range(150))]
    imported = import_bytes(undone, b"\n".join(lines))
    assert imported.unreadable == 150
    assert [line.number for line in imported.unreadable_lines] == list(range(2, 102))


def test_progress_is_shown_in_values(undone: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.eventlog.import_events.BATCH", 4)
    shown: list[int] = []
    file = ImportFile(io.BytesIO(b"\n".join(payloads(10))))
    import_events(undone, file, options(), on_progress=shown.append)
    assert shown == [4, 8, 10]


def test_batches_are_limited_by_bytes_too(
    service: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.eventlog.import_events.BATCH_BYTES", 1000)
    import_bytes(service, b"\n".join(body(bill=f"B{n}", reportURL="x" * 600) for n in range(6)))
    assert one(service, "SELECT count(DISTINCT xmin::text) FROM ledger.event_log") == 3


# --- wrappings --------------------------------------------------------------------------------


def wrapped(events: list[bytes]) -> dict[str, bytes]:
    """Write events in each way in which their bytes survive."""
    array = b"[" + b", ".join(events) + b"]"
    return {
        "lines": b"\n".join(events),
        "lines with trailing commas": b",\r\n".join([*events, b""]),
        "one line": b"".join(events),
        "array": array,
        "wrapper": b'{"success": true, "count": 2, "events": %b}' % array,
        "array of strings": json.dumps([event.decode() for event in events]).encode(),
        "strings in a wrapper": json.dumps({"data": [event.decode() for event in events]}).encode(),
        "lines of strings": b"\n".join(json.dumps(event.decode()).encode() for event in events),
        "lines of wrappers": b"\n".join(b'{"event": [%b]}' % event for event in events),
    }


WRAPPINGS = list(wrapped(payloads(2)))


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrapped_payloads_are_recorded_byte_for_byte(undone: Connection, wrapping: str) -> None:
    spaced = (
        b'{ "labID" : "L", "eventType":"bill.created", "eventTime":1705747800,'
        b'"data":{"billID":"B", "x":1.500, "y":[1e2 , "\\u0041"]} }'
    )
    events = [body(bill='{"\\}]', reportURL="\u2028 漢字"), spaced]
    imported = import_bytes(undone, wrapped(events)[wrapping])
    assert (imported.recorded, imported.unreadable, imported.complete) == (2, 0, True)
    assert stored(undone) == events


@pytest.mark.parametrize(
    "content",
    [
        b'{"events": [], "more": [{}]}',
        b'{"events": [1, 2]}',
        b'{"labID": "L", "events": [%b]}',
        b'{"a": [%b], "b": [%b]}',
        b'{"events": {"list": [%b]}}',
        b'["{\\"labID\\": \\"\\ud800\\"}"]',
    ],
)
def test_a_value_that_is_no_wrapper_of_payloads_is_one_value(
    undone: Connection, content: bytes
) -> None:
    """A payload of which an array is a part must not fall to pieces."""
    first, second = payloads(2)
    lines = [first, content.replace(b"%b", second), first]
    imported = import_bytes(undone, b"\n".join(lines))
    assert (imported.recorded, imported.duplicate) == (1, 1)
    assert imported.unreadable == 1
    assert stored(undone) == [first]


@pytest.mark.parametrize("keep", [False, True])
def test_an_element_of_a_wrapper_that_is_no_webhook_is_reported(
    undone: Connection,
    keep: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    [event] = payloads(1)
    imported = import_bytes(undone, b'{"events": [5, %b]}' % event, keep=keep)
    assert (imported.recorded, imported.unreadable, imported.unreadable_recorded) == (1, 1, keep)
    assert stored(undone) == ([b"5", event] if keep else [event])


# --- the import itself ------------------------------------------------------------------------


def runs(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT import_id, imported_by, name, recorded, duplicate, unreadable, positions::text"
        " FROM ledger.import_run ORDER BY import_id"
    ).fetchall()


def test_what_an_import_recorded_is_found_by_its_number(
    service: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("ledger.eventlog.import_events.BATCH", 2)
    append(service, deliveries([payloads(1)[0]]))
    path = tmp_path / "answer.jsonl"
    path.write_bytes(b"\n".join([*payloads(6), b"broken"]))
    first = import_file(service, path)
    append(service, deliveries([body(bill="between")]))
    second = import_bytes(service, body(bill="more"))
    assert runs(service) == [
        (first.import_id, "ann", str(path), 5, 1, 1, "{[2,7)}"),
        (second.import_id, "ann", None, 1, 0, 0, "{[8,9)}"),
    ]

    def exported(**part: Any) -> list[int]:  # noqa: ANN401 -- as the function under test
        return [json.loads(line)["position"] for line in export_lines(service, **part)]

    assert exported(import_id=first.import_id) == [2, 3, 4, 5, 6]
    assert exported(import_id=first.import_id, after=3, upto=5) == [4, 5]
    assert exported(import_id=second.import_id) == [8]
    with pytest.raises(UnknownSubjectError, match="99"):
        exported(import_id=99)


def test_an_import_that_recorded_nothing_leaves_no_trace(service: Connection) -> None:
    append(service, deliveries(payloads(1)))
    imported = import_bytes(service, b"\n".join([*payloads(1), b"broken"]))
    assert imported.import_id is None
    assert runs(service) == []


def test_an_import_that_fails_half_way_is_found_with_what_it_recorded(
    service: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.eventlog.import_events.BATCH", 2)

    def fail(done: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    file = ImportFile(io.BytesIO(b"\n".join(payloads(6))))
    with pytest.raises(KeyboardInterrupt):
        import_events(service, file, options(), on_progress=fail)
    assert [run[-1] for run in runs(service)] == ["{[1,5)}"]
    assert len(stored(service)) == 4


@pytest.mark.parametrize("keep", [False, True])
def test_a_preview_counts_what_the_import_then_does_and_records_nothing(
    service: Connection,
    monkeypatch: pytest.MonkeyPatch,
    keep: bool,  # noqa: FBT001 -- a parameter of the test
) -> None:
    monkeypatch.setattr("ledger.eventlog.import_events.BATCH", 3)
    append(service, deliveries(payloads(2)))
    first, *_ = payloads(1)
    again = json.dumps(dict(reversed(json.loads(first).items()))).encode()
    content = b"\n".join([*payloads(5), again, b"broken", b"{}", b"broken", payloads(4)[-1]])
    file = ImportFile(io.BytesIO(content))
    previewed = Imported()
    for _ in range(2):
        previewed = preview_import(service, file, options(keep=keep))
        assert len(stored(service)) == 2
        assert (previewed.import_id, runs(service)) == (None, [])
    imported = import_events(service, file, options(keep=keep), on_progress=ignore)

    def counts(found: Imported) -> tuple[int, ...]:
        return (found.recorded, found.duplicate, found.unreadable, found.unreadable_recorded)

    assert counts(previewed) == counts(imported)
    assert counts(imported) == ((3, 5, 2, 2) if keep else (3, 4, 3, 0))


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


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\t", b"\xef\xbb\xbf", b"[]", b"[ ]\n"])
def test_a_file_with_nothing_in_it_is_no_error(undone: Connection, content: bytes) -> None:
    imported = import_bytes(undone, content)
    assert (imported.recorded, imported.unreadable, imported.complete) == (0, 0, True)


def test_standard_input_is_read_to_its_end(undone: Connection) -> None:
    source = io.BytesIO(gzip.compress(b"\n".join(payloads(3))))
    with open_import_file("-", source, limits=Limits()) as file:
        assert import_events(undone, file, options(), on_progress=ignore).recorded == 3


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with (
        pytest.raises(ImportFileError, match="No such file"),
        open_import_file(str(missing), io.BytesIO(), limits=Limits()),
    ):
        pass


def _packed() -> bytes:
    """Pack lines that hardly shrink, so that a part of the file holds whole lines."""
    chance = random.Random(9)
    lines = [body(bill=f"B{n}", reportURL=chance.randbytes(200).hex()) for n in range(700)]
    return gzip.compress(b"\n".join(lines))


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:5],
        lambda packed: packed[:60_000],
        lambda packed: packed[:-4],
        lambda packed: packed[:10] + b"\xff" * 500,
        lambda packed: packed[:60_000] + b"\xff" * 500 + packed[60_500:],
        lambda packed: packed[:-8] + bytes(8),
        lambda packed: packed + b"rubbish",
    ],
    ids=[
        "cut in its header",
        "cut inside",
        "cut in its checksum",
        "overwritten from the beginning",
        "overwritten inside",
        "wrong checksum",
        "followed by other bytes",
    ],
)
def test_a_damaged_packed_file_is_refused_as_a_whole(
    undone: Connection, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "events.gz"
    path.write_bytes(damage(_packed()))
    with pytest.raises(ImportFileError, match=r"not a complete gzip .* Nothing of it was recorded"):
        import_file(undone, path)
    assert stored(undone) == []


def test_a_time_before_the_epoch_of_any_webhook_is_not_believed(undone: Connection) -> None:
    """A log takes only times that all its readers can hold."""
    far = RECEIVED - timedelta(days=700_000)
    line = json.dumps(
        {"position": 1, "received_at": far.isoformat(), "source": "webhook", "body": {}}
    )
    assert import_bytes(undone, line.encode(), keep=True).unreadable == 1
    assert drain(undone) == 1
