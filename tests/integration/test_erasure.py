"""Bodies that the fold does not need: kept apart, erased by a decision, and all else stays true."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256

import psycopg
import pytest
from psycopg import Connection

from ledger.errors import QuestionError, UnknownSubjectError
from ledger.eventlog.append import append
from ledger.eventlog.erase import carry_out
from ledger.eventlog.export_lines import export_lines
from ledger.eventlog.import_events import import_events
from ledger.eventlog.import_files import ImportFile
from ledger.eventlog.import_values import Options
from ledger.model.operators import Operator
from ledger.operations.bill_details import read_bill
from ledger.operations.erasure import erase
from ledger.postgres.connect import connect
from ledger.projection import rebuild, verify
from tests.support.addresses import database_of
from tests.support.decisions import POLICY
from tests.support.histories import HOSTILE, body, deliveries, delivery, mixed_history
from tests.support.postgres import new_database
from tests.support.sessions import drain, log_rows, one, state_rows

pytestmark = pytest.mark.slow

SECRET = "9876543210"
LEAD = body("lead.created", phone=SECRET)
BOOKING = b'{"labID":"L","eventType":"booking.created","eventTime":1705747800,"phone":"9876543210"}'
CUT_OFF = LEAD[:-5]
WRONG_TIME = LEAD.replace(b'"eventTime": 1705747800', b'"eventTime": "today"')
WRONG_BILL = (
    body(bill="W", integratorID=SECRET)
    .replace(b'"testData"', b'"x"')
    .replace(b'"billData": {', b'"billData": 5, "y": {')
)
APART = {
    "of another type": LEAD,
    "without a bill": BOOKING,
    "cut off": CUT_OFF,
    "unreadable, of another type": WRONG_TIME,
    "unreadable, of a type that is folded": WRONG_BILL,
    **{name: HOSTILE[name] for name in ("empty", "NUL", "each byte", "too deep")},
}
ANN = Operator("ann")


def erased(url: str, position: int, by: Operator = ANN) -> int:
    made, _ = erase(url, position, reason="asked by the person", by=by, dry_run=False)
    assert made.decision
    return made.decision


def everything(owner: Connection) -> bytes:
    """Return all tables, as COPY writes them in binary: bodies stand in it as they are."""
    query = """
        SELECT n.nspname || '.' || c.relname
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('ledger', 'state') AND c.relkind = 'r'
    """
    parts: list[bytes] = []
    for (table,) in owner.execute(query).fetchall():
        with owner.cursor().copy(f"COPY {table} TO STDOUT (FORMAT binary)".encode()) as copy:
            parts += map(bytes, copy)
    return b"".join(parts)


def difference(url: str) -> str | None:
    found = verify.verify(url, processes=1, on_progress=lambda *_: None).difference
    return found.words if found else None


def rebuilt(url: str) -> None:
    rebuild.rebuild(url, processes=1, started_at=datetime.now(UTC), on_progress=lambda *_: None)


@pytest.fixture
def other(postgres_url: str, migrated_template: str) -> Iterator[Connection]:
    """Give a connection to a second, empty log."""
    with (
        new_database(postgres_url, template=migrated_template) as name,
        connect(database_of(postgres_url, name), "test") as connection,
    ):
        yield connection


def take_in(connection: Connection, content: bytes, *, exports: bool = True) -> int:
    """Import an export; return how many events were recorded."""
    imported = import_events(
        connection,
        ImportFile(io.BytesIO(content)),
        Options(by=ANN, exports=exports),
        on_progress=lambda _: None,
    )
    return imported.recorded + imported.unreadable_recorded


@pytest.mark.parametrize("name", APART)
def test_a_body_that_is_not_folded_is_kept_apart(undone: Connection, name: str) -> None:
    given = APART[name]
    append(undone, [delivery(body()), delivery(given), delivery(body(at=1))])
    assert undone.execute("SELECT position, body IS NULL FROM ledger.event_log").fetchall() == [
        (1, False),
        (2, True),
        (3, False),
    ]
    rows = undone.execute("SELECT position, body, body_sha256 FROM ledger.erasable_body")
    assert rows.fetchall() == [(2, given, sha256(given).digest())]
    assert one(undone, "SELECT body FROM ledger.logged_event WHERE position = 2") == given


def test_a_repeat_among_them_is_kept_once(undone: Connection) -> None:
    """The other way through the append, where something of a batch is a duplicate."""
    append(undone, [delivery(LEAD)])
    append(undone, [delivery(body()), delivery(LEAD, received=1), delivery(CUT_OFF, received=2)])
    rows = undone.execute("SELECT position, body FROM ledger.erasable_body ORDER BY 1").fetchall()
    assert rows == [(1, LEAD), (3, CUT_OFF)]


@pytest.mark.parametrize("name", APART)
def test_an_erased_body_is_nowhere_and_all_else_is_as_before(
    database_url: str, service: Connection, owner: Connection, name: str
) -> None:
    given = APART[name]
    append(service, deliveries([body(), given, body("bill.completed", at=9)]))
    drain(service)
    assert (SECRET.encode() in everything(owner)) == (SECRET.encode() in given)
    before = owner.execute("SELECT * FROM ledger.event_log ORDER BY position").fetchall()
    state = state_rows(owner)
    decision = erased(database_url, 2)
    assert decision == 4
    now = owner.execute("SELECT * FROM ledger.event_log ORDER BY position").fetchall()
    assert now[:3] == before
    row = owner.execute("SELECT body, body_sha256, erased_at FROM ledger.erasable_body").fetchone()
    assert row
    assert row[:2] == (None, sha256(given).digest())
    assert row[2] == now[3][1]  # when the decision was received
    drain(service)
    after = state_rows(owner)
    assert after["unreadable_event"] == []
    state.pop("unreadable_event"), state.pop("checkpoint")
    assert {table: after[table] for table in state} == state
    assert difference(database_url) is None
    live = state_rows(owner)
    rebuilt(database_url)
    assert state_rows(owner) == live
    assert difference(database_url) is None
    assert SECRET.encode() not in everything(owner)


def test_the_decision_says_who_why_and_what(database_url: str, service: Connection) -> None:
    append(service, [delivery(LEAD)])
    erased(database_url, 1, Operator("bob", "key1"))
    said = json.loads(one(service, "SELECT body FROM ledger.event_log WHERE position = 2"))
    digest = one(service, "SELECT encode(digest, 'hex') FROM ledger.event_log WHERE position = 1")
    assert said == {
        "decision": "body.erased",
        "at": said["at"],
        "by": "bob",
        "by_key": "key1",
        "position": 1,
        "lab_id": "L",
        "bill_id": "B",
        "event_type": "lead.created",
        "digest": digest,
        "body_sha256": sha256(LEAD).hexdigest(),
        "reason": "asked by the person",
    }
    details = read_bill(service, POLICY, "L", "B", datetime.now(UTC))
    assert [(event.event_type, event.says) for event in details.events] == [
        ("lead.created", "not folded; the body was erased"),
        ("body.erased", "by bob (key key1): asked by the person"),
    ]


def test_an_erased_event_that_is_sent_again_is_a_repeat(
    database_url: str, service: Connection
) -> None:
    append(service, [delivery(CUT_OFF)])
    erased(database_url, 1)
    (outcome,) = append(service, [delivery(CUT_OFF, received=60)])
    assert (outcome.position, outcome.recorded) == (1, False)
    assert one(service, "SELECT body FROM ledger.logged_event WHERE position = 1") is None


@pytest.mark.parametrize(
    ("position", "words"),
    [
        (1, "readable bill.created"),
        (2, "operator's decision"),
        (4, "erased already"),
    ],
)
def test_what_cannot_be_erased_is_refused(
    database_url: str, service: Connection, position: int, words: str
) -> None:
    append(service, [delivery(body()), delivery(LEAD)])
    erased(database_url, 2)  # a decision at 3
    append(service, [delivery(CUT_OFF)])
    erased(database_url, 4)
    before = log_rows(service)
    asked = {2: 3}.get(position, position)
    with pytest.raises(QuestionError, match=words):
        erased(database_url, asked)
    assert log_rows(service) == before


def test_an_event_that_is_not_there_or_of_another_lab_is_unknown(
    database_url: str, service: Connection
) -> None:
    append(service, [delivery(LEAD), delivery(CUT_OFF)])
    of_m = Operator("ann", "key", ("M",))
    for position, by in ((3, ANN), (1, of_m), (2, of_m)):
        with pytest.raises(UnknownSubjectError, match=f"no event at position {position}"):
            erased(database_url, position, by)
    erased(database_url, 1, Operator("ann", "key", ("L",)))


def test_an_erasure_before_the_projector_saw_the_body(
    database_url: str, service: Connection, owner: Connection
) -> None:
    append(service, deliveries([CUT_OFF, body()]))
    erased(database_url, 1)
    drain(service)
    assert state_rows(owner)["unreadable_event"] == []
    assert difference(database_url) is None


def test_nothing_but_a_decision_in_the_log_empties_a_body(
    service: Connection, owner: Connection
) -> None:
    append(service, deliveries([LEAD, body()]))
    for statement in (
        "UPDATE ledger.erasable_body SET body = NULL, erased_at = now()",
        "UPDATE ledger.erasable_body SET body = 'other'",
        "DELETE FROM ledger.erasable_body",
        "TRUNCATE ledger.erasable_body",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            service.execute(statement.encode())
        with pytest.raises(psycopg.errors.RestrictViolation):
            owner.execute(statement.encode())
    for position in (1, 2, 9):  # none of them is a decision
        with pytest.raises(psycopg.errors.RestrictViolation, match="no decision"):
            service.execute("SELECT ledger.erase_body(%s)", (position,))
    with owner.transaction():  # whoever finds the switch can still not exchange a body
        owner.execute("SELECT set_config('ledger.erasing', 'on', true)")
        for change in ("body = 'other'", "body_sha256 = sha256('x'), body = 'x'", "lab_id = 'M'"):
            with pytest.raises(psycopg.errors.RestrictViolation), owner.transaction():
                owner.execute(f"UPDATE ledger.erasable_body SET {change}".encode())
    assert one(owner, "SELECT body FROM ledger.erasable_body") == LEAD


def test_the_function_spares_what_the_fold_needs_even_if_a_decision_names_it(
    database_url: str, service: Connection
) -> None:
    append(service, deliveries([body(), LEAD]))
    erased(database_url, 2)
    said = json.loads(one(service, "SELECT body FROM ledger.event_log WHERE position = 3"))
    digest = one(service, "SELECT encode(digest, 'hex') FROM ledger.event_log WHERE position = 1")
    forged = {**said, "position": 1, "digest": digest}
    append(service, [delivery(json.dumps(forged).encode(), source="operator")])
    assert carry_out(service, [4]) == []
    assert one(service, "SELECT body FROM ledger.logged_event WHERE position = 1") == body()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (
            (
                "SELECT set_config('ledger.erasing', 'on', true);"
                "UPDATE ledger.erasable_body SET body = NULL, erased_at = now() WHERE position = 1"
            ),
            "position 1 is erased, and no decision",
        ),
        ("DELETE FROM ledger.erasable_body WHERE position = 1", "body of position 1 is missing"),
        (
            (
                "UPDATE ledger.erasable_body SET body = 'x', body_sha256 = sha256('x')"
                " WHERE position = 1"
            ),
            "the digest of position 1",
        ),
        (
            (
                "UPDATE ledger.erasable_body SET body = body || ' ',"
                " body_sha256 = sha256(body || ' ') WHERE position = 1"
            ),
            None,  # the same JSON value: for the seals to find
        ),
        (
            "INSERT INTO ledger.erasable_body VALUES ('L', 2, sha256('x'), 'x')",
            "a body of position 2, whose place is in the log",
        ),
        (
            (
                "UPDATE ledger.erasable_body SET body = 'x', erased_at = NULL, body_sha256 ="
                " sha256('x') WHERE position = 3"
            ),
            "the digest of position 3",
        ),
    ],
)
def test_verify_finds_what_a_superuser_did(
    database_url: str, service: Connection, owner: Connection, statement: str, words: str | None
) -> None:
    append(service, deliveries([LEAD, body(), CUT_OFF]))
    erased(database_url, 3)
    drain(service)
    assert difference(database_url) is None
    with owner.transaction():
        if "set_config" not in statement:
            owner.execute("ALTER TABLE ledger.erasable_body DISABLE TRIGGER ALL")
        owner.execute(statement.encode())
        if "set_config" not in statement:
            for name in ("erasable_body_is_append_only", "erasable_body_is_only_emptied"):
                owner.execute(
                    f"ALTER TABLE ledger.erasable_body ENABLE ALWAYS TRIGGER {name}".encode()
                )
    found = difference(database_url)
    assert found is None if words is None else words in (found or "")


def test_an_export_carries_the_erasure_and_gives_an_equal_log(
    database_url: str, service: Connection, other: Connection
) -> None:
    append(service, mixed_history(150))
    others = service.execute("SELECT position FROM ledger.logged_event WHERE is_erasable")
    chosen = [position for (position,) in others.fetchall()][::2]
    for position in chosen:
        erased(database_url, position)
    content = b"".join(export_lines(service))
    assert take_in(other, content) == 150 + len(chosen)
    query = "SELECT * FROM ledger.erasable_body ORDER BY position"
    assert log_rows(other) == log_rows(service)
    assert other.execute(query.encode()).fetchall() == service.execute(query.encode()).fetchall()
    assert b"".join(export_lines(other)) == content
    assert take_in(other, content) == 0  # once more
    drain(service)
    drain(other)
    assert state_rows(other) == state_rows(service)


def test_a_copy_from_before_obeys_the_decision_that_it_imports(
    database_url: str, service: Connection, other: Connection
) -> None:
    append(service, deliveries([CUT_OFF, body()]))
    take_in(other, b"".join(export_lines(service)))
    drain(other)
    assert one(other, "SELECT count(*) FROM state.unreadable_event") == 1
    erased(database_url, 1)
    assert take_in(other, b"".join(export_lines(service))) == 1
    assert one(other, "SELECT body FROM ledger.logged_event WHERE position = 1") is None
    drain(other)
    assert one(other, "SELECT count(*) FROM state.unreadable_event") == 0
    assert state_rows(other)["bill"] == [*state_rows(other)["bill"]]


def test_a_decision_that_was_not_carried_out_is_told(
    database_url: str, service: Connection, other: Connection
) -> None:
    append(service, deliveries([LEAD, body()]))
    append(other, deliveries([LEAD, body()]))
    erased(database_url, 1)
    said = one(service, "SELECT body FROM ledger.event_log WHERE position = 3")
    append(other, [delivery(said, source="operator")])
    drain(other)
    url = other.info.dsn
    with psycopg.connect(f"{url} password={other.info.password}") as owner:
        name = owner.info.dbname
    assert name == other.info.dbname
    found = difference(database_url.replace(service.info.dbname, name))
    assert found
    assert "position 3 says that the body of position 1 was erased" in found
    erased(database_url.replace(service.info.dbname, name), 1)
    drain(other)
    assert difference(database_url.replace(service.info.dbname, name)) is None


def test_what_is_erased_is_nothing_to_somebody_who_imports_payloads(
    database_url: str, service: Connection, other: Connection
) -> None:
    append(service, deliveries([LEAD, body()]))
    erased(database_url, 1)
    assert take_in(other, b"".join(export_lines(service)), exports=False) == 1
    assert one(other, "SELECT body FROM ledger.logged_event") == body()


def test_a_line_of_an_erased_decision_is_refused(other: Connection) -> None:
    """An export cannot bring a decision without its body, nor texts that the log cannot hold."""
    line = {
        "position": 1,
        "received_at": "2024-01-01T00:00:00Z",
        "source": "webhook",
        "erased": {
            "at": "2024-01-02T00:00:00Z",
            "lab_id": "L",
            "bill_id": "",
            "event_type": "lead.created",
            "event_time": None,
            "digest": "00" * 32,
            "body_sha256": "11" * 32,
        },
    }
    bad = [
        {**line, "source": "operator"},
        *(
            {**line, "erased": {**line["erased"], **change}}  # type: ignore[dict-item]
            for change in (
                {"lab_id": "\x00"}, {"digest": "?"}, {"at": "0001-01-01T00:00:00Z"}, {"x": 1},
            )
        ),
    ]  # fmt: skip
    content = b"".join(json.dumps(value).encode() + b"\n" for value in [*bad, line])
    assert take_in(other, content) == 1
    assert one(other, "SELECT erased_at FROM ledger.logged_event") == datetime(
        2024, 1, 2, tzinfo=UTC
    )
