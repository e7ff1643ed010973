"""Expected bills: bills that integrators announced, and those of them that were never seen."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from typing import IO, Annotated

import msgspec
from msgspec import Meta, Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.errors import (
    DecisionError,
    ForbiddenError,
    ImportFileError,
    QuestionError,
    UnknownSubjectError,
)
from ledger.eventlog import file_kinds
from ledger.eventlog.import_files import ImportFile
from ledger.model.event import Identifier
from ledger.model.operator_events import BillExpected, Moment, what_is_unstorable
from ledger.model.operators import Operator, as_array
from ledger.operations.decisions import catch_up, deciding, record, see
from ledger.operations.expected_bill_list import LIST, ExpectedItem, item_of
from ledger.operations.spreadsheet_cells import original
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


class Refused(Struct, frozen=True):
    """A line of a file that is no expectation, and why."""

    line: int
    detail: str


class ExpectedBillsReport(Struct, frozen=True):
    """The result of reading a file: how many lines were accepted, and which were refused."""

    expected: int
    refused: list[Refused]


def expect_one(
    url: str, one: Expectation, *, by: Operator, patience: float
) -> tuple[ExpectedItem, int]:
    """Record one expectation; return it as it is then, and the position for which that is true.

    Raises `DecisionError`, which says whether it was recorded; `ForbiddenError` or `QuestionError`
    for a lab that `by` may not decide for.
    """
    one = _of_own_lab(one, by)
    _, position = expect(url, iter([one]), by=by, patience=patience)
    with closing(connect(url, "desk")) as connection:
        see(url, connection, patience=0, position=position)
        row = connection.execute(
            SQL(LIST).format(
                where=SQL("e.integrator_id = %(integrator_id)s AND e.lab_id = %(lab_id)s")
            ),
            {"integrator_id": one.integrator_id, "lab_id": one.lab_id or "", "limit": 1},
        ).fetchone()
    assert row  # noqa: S101 -- `see` has waited until the state holds it
    return item_of(row, datetime.now(UTC)), row[0]


def stop_expecting(url: str, integrator_id: str, *, by: Operator, patience: float) -> int:
    """Record that a bill is not expected any more, from any lab that `by` may decide for.

    Returns the position for which that is true. Raises `UnknownSubjectError` if it was not
    expected; `DecisionError`.
    """
    with deciding(url, patience=patience) as connection:
        labs = connection.execute(_EXPECTED_FROM, (integrator_id, *[as_array(by.labs)] * 2))
        decisions = [
            BillExpected(
                at=datetime.now(UTC),
                by=by.name,
                by_key=by.key,
                integrator_id=integrator_id,
                lab_id=lab_id or None,
                expected_by=None,
            )
            for (lab_id,) in labs
        ]
        if not decisions:
            raise UnknownSubjectError(
                f"no bill with the integrator id {integrator_id!r} is expected; "
                "GET /v1/expected-bills lists those that are"
            )
        position = record(connection, decisions)
        return see(url, connection, patience=patience, position=position)


_EXPECTED_FROM = """
SELECT lab_id
FROM state.expected_bill
WHERE
    integrator_id = %s
    AND expected_by IS NOT NULL
    AND (%s::text[] IS NULL OR lab_id = ANY(%s::text[]))
ORDER BY lab_id
"""


def _of_own_lab(one: Expectation, by: Operator) -> Expectation:
    """Return an expectation with its lab: an operator who decides for one lab need not name it."""
    if by.labs is None:
        return one
    if one.lab_id is None and len(by.labs) == 1:
        return msgspec.structs.replace(one, lab_id=by.labs[0])
    if one.lab_id is None:
        raise QuestionError(
            f"the bill {one.integrator_id!r} has no lab_id: name one, of {', '.join(by.labs)}"
        )
    if one.lab_id not in by.labs:
        raise ForbiddenError(
            f"the bill {one.integrator_id!r} is of lab {one.lab_id!r}, which the API key {by.key} "
            "is not for; nothing was recorded"
        )
    return one


def expect(
    url: str, expectations: Iterator[Expectation | Refused], *, by: Operator, patience: float
) -> tuple[ExpectedBillsReport, int]:
    """Record expectations, thousands in a transaction; those before a failure stay recorded.

    The last expectation of an integrator id from a lab counts, so a file may be read again. Returns
    the position for which they are true, after waiting for it for at most `patience` seconds.
    Raises `ImportFileError`; `DecisionError`; what `check_labs` raises.
    """
    taken = 0
    refused: list[Refused] = []
    earlier: set[Key] = set()
    with deciding(url, patience=patience) as connection:
        position = store.read_checkpoint(connection).position
        while some := list(islice(expectations, BATCH)):
            refused += [one for one in some if isinstance(one, Refused)]
            batch = [_of_own_lab(one, by) for one in some if isinstance(one, Expectation)]
            taken += len(batch)
            now = datetime.now(UTC)
            decisions = [
                BillExpected(
                    at=now,
                    by=by.name,
                    by_key=by.key,
                    integrator_id=one.integrator_id,
                    lab_id=one.lab_id,
                    expected_by=one.expected_by,
                )
                for one in _news(connection, batch, earlier)
            ]
            earlier.update(map(_key, batch))
            if decisions:
                position = record(connection, decisions)
        with suppress(DecisionError):  # they are recorded all the same
            catch_up(url, connection, patience=patience, upto=position)
    return ExpectedBillsReport(taken, refused), position


def check_labs(expectations: Iterable[Expectation | Refused], *, by: Operator) -> None:
    """Raise `ForbiddenError` or `QuestionError` if `by` may not record all of a file."""
    if by.labs is not None:
        for one in expectations:
            if isinstance(one, Expectation):
                _of_own_lab(one, by)


Key = tuple[str, str]


def _key(one: Expectation) -> Key:
    return (one.lab_id or "", one.integrator_id)


def _news(connection: Connection, batch: list[Expectation], earlier: set[Key]) -> list[Expectation]:
    """Return the expectations that differ from the state: a nightly file repeats most of them.

    `earlier` holds the bills that the file named before. The state may not yet know their last
    expectation.
    """
    times = Counter(map(_key, batch))
    known = set(connection.execute(_KNOWN, (sorted({one.integrator_id for one in batch}),)))
    return [
        one
        for one in batch
        if times[_key(one)] > 1
        or _key(one) in earlier
        or (one.integrator_id, one.lab_id or "", one.expected_by) not in known
    ]


_KNOWN = """
SELECT integrator_id, lab_id, expected_by
FROM state.expected_bill
WHERE integrator_id = ANY(%s)
"""


def read_expectations(file: ImportFile) -> Iterator[Expectation | Refused]:
    """Read JSON, as `ImportFile` splits it, or CSV that names its columns in the first line.

    CSV may be separated by commas, semicolons or tabs. Raises `ImportFileError` if it is neither.
    """
    try:
        begin = file.begin().lstrip()
    except ImportFileError as error:
        raise ImportFileError(f"{error}. Expected bills may also be CSV") from error
    if begin[:1] in _JSON:
        for number, text in file.read(_is_expectation).values():
            yield _read_json(number, text)
    else:
        yield from _read_csv(file, file_kinds.of_text(begin))


_JSON = (b"{", b"[")


def _is_expectation(text: bytes) -> bool:
    return isinstance(_read_json(0, text), Expectation)


def _read_json(number: int, text: bytes) -> Expectation | Refused:
    return _read(number, lambda: msgspec.json.decode(text, type=Expectation))


def _read_csv(file: ImportFile, kind: str) -> Iterator[Expectation | Refused]:
    with file.open() as content, _as_text(content) as text:
        first, number = text.readline(LONGEST_LINE), 1
        if first.startswith("sep="):  # Excel's own way to name the separator
            first, number = text.readline(LONGEST_LINE), 2
        separator = max(",;\t", key=first.count)
        header = [name.strip() for name in next(csv.reader([first], delimiter=separator), [])]
        if not {"integrator_id", "expected_by"} <= set(header) <= set(COLUMNS):
            raise ImportFileError(
                f"the file seems to be {kind}, and is neither JSON Lines nor CSV whose first line "
                "names integrator_id, expected_by and, where it is known, lab_id, and nothing "
                f"else; its first line is {first.strip()[:200]!r}"
            )
        rows = csv.reader(_bounded_lines(text), delimiter=separator)
        try:
            for cells in rows:
                yield from _read_row(number + rows.line_num, header, cells)
        except csv.Error as error:
            raise ImportFileError(f"line {number + rows.line_num} is no CSV: {error}") from error


def _read_row(number: int, header: list[str], cells: list[str]) -> Iterator[Expectation | Refused]:
    if any(cell.strip() for cell in cells[len(header) :]):
        yield Refused(number, f"it has {len(cells)} cells, and the first line names fewer")
    elif any(cell.strip() for cell in cells):
        row = {
            name: original(cell.strip())
            for name, cell in zip(header, cells, strict=False)
            if cell.strip()
        }
        yield _read(number, lambda: msgspec.convert(row, Expectation))


@contextmanager
def _as_text(content: IO[bytes]) -> Iterator[io.TextIOWrapper]:
    text = io.TextIOWrapper(content, "utf-8", errors="strict", newline="")
    try:
        yield text
    except UnicodeDecodeError as error:
        raise ImportFileError(
            f'the file is not UTF-8: {error}; in Excel, save it as "CSV UTF-8"'
        ) from error
    finally:
        text.detach()


def _bounded_lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(LONGEST_LINE):
        yield line


def _read(number: int, decode: Callable[[], Expectation]) -> Expectation | Refused:
    try:
        one = decode()
    except msgspec.DecodeError as error:
        return Refused(number, _explain(str(error)))
    if "\x00" in one.integrator_id + (one.lab_id or ""):
        return Refused(number, "an id holds NUL")
    if words := what_is_unstorable(one.expected_by):
        return Refused(number, f"expected_by {words}")
    return one


def _explain(detail: str) -> str:
    if "`$.expected_by`" in detail:
        return f"expected_by takes a date, a time and a time zone like {EXAMPLE} ({detail})"
    return detail


EXAMPLE = "2026-02-01T10:00:00Z or 2026-02-01T15:30:00+05:30"
LONGEST_LINE = 1024 * 1024
"""Characters. A longer line is read as several, which say nothing that could be expected."""
