"""Expected bills: bills that integrators announced, and those of them that were never seen."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import islice
from typing import IO, Annotated, Any, LiteralString

import msgspec
from msgspec import Meta, Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.errors import DecisionError, ImportFileError, UnknownSubjectError
from ledger.model.event import Identifier
from ledger.model.operator_events import BillExpected, Moment, is_storable
from ledger.operations.decisions import catch_up, deciding, record, see
from ledger.operations.read_models import ExpectedState
from ledger.postgres.connect import connect
from ledger.projection import store

COLUMNS = ("integrator_id", "expected_by", "lab_id")

BATCH = 2_000
"""Expectations recorded in one transaction."""


class Expectation(Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a file: what `PUT /v1/expected-bills/{integrator_id}` takes, and the id."""

    integrator_id: Identifier
    expected_by: Moment
    lab_id: Annotated[Identifier | None, Meta(description="The lab, where it is known.")] = None


class ExpectedItem(Struct, frozen=True):
    """A bill that is or was expected.

    It is `awaited` until `expected_by`, `unseen` after that, and `seen` as soon as an event with
    its integrator id has been received, at whatever time.
    """

    integrator_id: str
    lab_id: str | None
    expected_by: datetime
    state: ExpectedState


class Refused(Struct, frozen=True):
    """A line of a file that says nothing that could be expected, and why."""

    line: int
    detail: str


class ExpectedBillsReport(Struct, frozen=True):
    """The result of reading a file: how many lines were accepted, and which were refused."""

    expected: int
    refused: list[Refused]


LIST: LiteralString = """
SELECT c.position, e.integrator_id, e.lab_id, e.expected_by, e.is_seen
FROM state.checkpoint c
LEFT JOIN LATERAL (
    SELECT e.*
    FROM state.expected_bill e
    WHERE e.expected_by IS NOT NULL AND {where}
    ORDER BY e.expected_by, e.integrator_id
    LIMIT %(limit)s
) e ON true
ORDER BY e.expected_by, e.integrator_id
"""
"""A page of the list; an empty page is one row of nulls except for the position."""

IN_STATE: dict[ExpectedState, LiteralString] = {
    "awaited": "NOT e.is_seen AND e.expected_by > %(now)s",
    "unseen": "NOT e.is_seen AND e.expected_by <= %(now)s",
    "seen": "e.is_seen",
}


def item_of(row: Sequence[Any], now: datetime) -> ExpectedItem:
    """Return the item of a row of `LIST`."""
    _, integrator_id, lab_id, expected_by, is_seen = row
    state: ExpectedState = "awaited" if expected_by > now else "unseen"
    return ExpectedItem(
        integrator_id, lab_id or None, expected_by.astimezone(UTC), "seen" if is_seen else state
    )


def expect_one(url: str, one: Expectation, *, by: str, patience: float) -> tuple[ExpectedItem, int]:
    """Record one expectation; return it as it is then, and the position for which that is true.

    Raises `DecisionError`, which says whether it was recorded.
    """
    _, position = expect(url, iter([one]), by=by, patience=patience)
    with closing(connect(url, "desk")) as connection:
        see(url, connection, patience=0, position=position)
        row = connection.execute(
            SQL(LIST).format(where=SQL("e.integrator_id = %(integrator_id)s")),
            {"integrator_id": one.integrator_id, "limit": 1},
        ).fetchone()
    assert row  # noqa: S101 -- `see` has waited until the state holds it
    return item_of(row, datetime.now(UTC)), row[0]


def stop_expecting(url: str, integrator_id: str, *, by: str, patience: float) -> int:
    """Record that a bill is not expected any more; return the position for which that is true.

    Raises `UnknownSubjectError` if it was not expected; `DecisionError`.
    """
    with deciding(url, patience=patience) as connection:
        row = connection.execute(
            "SELECT lab_id FROM state.expected_bill"
            " WHERE integrator_id = %s AND expected_by IS NOT NULL",
            (integrator_id,),
        ).fetchone()
        if row is None:
            raise UnknownSubjectError(
                f"no bill with the integrator id {integrator_id!r} is expected; "
                "GET /v1/expected-bills lists those that are"
            )
        decision = BillExpected(
            at=datetime.now(UTC),
            by=by,
            integrator_id=integrator_id,
            lab_id=row[0] or None,
            expected_by=None,
        )
        position = record(connection, [decision])
        return see(url, connection, patience=patience, position=position)


def expect(
    url: str, expectations: Iterator[Expectation | Refused], *, by: str, patience: float
) -> tuple[ExpectedBillsReport, int]:
    """Record expectations, thousands in a transaction; those before a failure stay recorded.

    The last expectation of an integrator id counts, so a file may be read again. Returns the
    position for which they are true, after waiting for it for at most `patience` seconds. Raises
    `ImportFileError`; `DecisionError`.
    """
    taken = 0
    refused: list[Refused] = []
    earlier: set[str] = set()
    with deciding(url, patience=patience) as connection:
        position = store.read_checkpoint(connection).position
        while some := list(islice(expectations, BATCH)):
            refused += [one for one in some if isinstance(one, Refused)]
            batch = [one for one in some if isinstance(one, Expectation)]
            taken += len(batch)
            now = datetime.now(UTC)
            decisions = [
                BillExpected(
                    at=now,
                    by=by,
                    integrator_id=one.integrator_id,
                    lab_id=one.lab_id,
                    expected_by=one.expected_by,
                )
                for one in _news(connection, batch, earlier)
            ]
            earlier.update(one.integrator_id for one in batch)
            if decisions:
                position = record(connection, decisions)
        with suppress(DecisionError):  # they are recorded all the same
            catch_up(url, connection, patience=patience, upto=position)
    return ExpectedBillsReport(taken, refused), position


def _news(connection: Connection, batch: list[Expectation], earlier: set[str]) -> list[Expectation]:
    """Return the expectations that differ from the state: a nightly file repeats most of them.

    `earlier` holds the ids that the file named before. The state may not yet know their last
    expectation.
    """
    times = Counter(one.integrator_id for one in batch)
    known = set(connection.execute(_KNOWN, (list(times),)))
    return [
        one
        for one in batch
        if times[one.integrator_id] > 1
        or one.integrator_id in earlier
        or (one.integrator_id, one.lab_id or "", one.expected_by) not in known
    ]


_KNOWN = """
SELECT integrator_id, lab_id, expected_by
FROM state.expected_bill
WHERE integrator_id = ANY(%s)
"""


def read_expectations(file: IO[bytes]) -> Iterator[Expectation | Refused]:
    """Read JSON Lines, or CSV whose first line names `integrator_id` and `expected_by`.

    Raises `ImportFileError` if it is neither.
    """
    text = io.TextIOWrapper(file, "utf-8-sig", errors="strict", newline="")
    try:
        first = text.readline()
        if first.lstrip().startswith(("{", "[")):
            yield from _from_json(first, text)
        else:
            yield from _from_csv(first, text)
    except UnicodeDecodeError as error:
        raise ImportFileError(f"the file is not UTF-8: {error}") from error
    finally:
        text.detach()


def _from_json(first: str, rest: io.TextIOWrapper) -> Iterator[Expectation | Refused]:
    for number, line in enumerate(_chained(first, rest), start=1):
        if line.strip():
            yield _read(number, lambda text=line: msgspec.json.decode(text, type=Expectation))


def _from_csv(first: str, rest: io.TextIOWrapper) -> Iterator[Expectation | Refused]:
    header = [name.strip() for name in next(csv.reader([first]), [])]
    if not {"integrator_id", "expected_by"} <= set(header) <= set(COLUMNS):
        raise ImportFileError(
            "the file is neither JSON Lines nor CSV whose first line names integrator_id, "
            "expected_by and, where it is known, lab_id, and nothing else; it names "
            f"{', '.join(header)[:200]!r}"
        )
    for number, cells in enumerate(csv.reader(rest), start=2):
        if len(cells) > len(header):
            yield Refused(number, f"it has {len(cells)} cells, and the first line names fewer")
        elif any(cells):
            row = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if cell}
            yield _read(number, lambda row=row: msgspec.convert(row, Expectation, strict=False))


def _chained(first: str, rest: io.TextIOWrapper) -> Iterator[str]:
    yield first
    yield from rest


def _read(number: int, decode: Any) -> Expectation | Refused:  # noqa: ANN401 -- a call without arguments
    try:
        one: Expectation = decode()
    except msgspec.DecodeError as error:
        return Refused(number, str(error))
    if "\x00" in one.integrator_id + (one.lab_id or ""):
        return Refused(number, "an id holds NUL")
    if not is_storable(one.expected_by):
        return Refused(number, "expected_by is not of this millennium")
    return one
