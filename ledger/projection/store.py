"""Makes the state tables, replaces rows in them, and moves the checkpoint."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files

import psycopg
from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from ledger.errors import CheckpointError, FoldVersionError, StateError
from ledger.eventlog.read import Key
from ledger.model.bill import FOLD_VERSION
from ledger.postgres.binary import COPY_BEGIN, COPY_END, copy_rows, text_array
from ledger.postgres.connect import SERVICE_ROLE
from ledger.projection.rows import COLUMNS, Row, Rows

LIVE = "state"
NEXT = "state_next"

BILL_TABLES = (
    "bill", "missing_event", "parked_bill", "request_line", "former_integrator",
)  # fmt: skip
"""The tables whose rows of a bill are replaced when it is folded again. The others' rows are of one
event each, and never change while the code does not."""

TABLES = (*COLUMNS, "expected_bill", "lab", "delay")
"""All that hold what the log says."""


class Checkpoint(Struct, frozen=True):
    """Up to which position the state is true, and which version of the fold made it."""

    position: int
    fold_version: int


def make_if_absent(connection: Connection) -> None:
    """Make the live state's tables, empty, in a database that has none; as whoever logs in."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(7402, 3)")
        if schema_exists(connection, LIVE):
            return
        connection.execute(SQL("SET LOCAL ROLE {}").format(Identifier(SERVICE_ROLE)))
        make(connection, LIVE)
        make_indexes(connection, LIVE)


def schema_exists(connection: Connection, schema: str) -> bool:
    """Tell whether there is such a schema, whatever it holds."""
    row = connection.execute("SELECT to_regnamespace(%s)", (schema,)).fetchone()
    return bool(row and row[0])


def make(connection: Connection, schema: str) -> None:
    """Make the tables without their indexes, and a checkpoint at the log's beginning."""
    connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
    _run(connection, schema, "tables.sql")
    connection.execute(
        SQL("INSERT INTO {}.checkpoint (position, fold_version) VALUES (0, %s)").format(
            Identifier(schema)
        ),
        (FOLD_VERSION,),
    )


def make_indexes(connection: Connection, schema: str) -> None:
    """Make the keys and indexes."""
    _run(connection, schema, "indexes.sql")


def read_checkpoint(connection: Connection, schema: str = LIVE) -> Checkpoint:
    """Return the checkpoint. Raises `StateError` if there is none."""
    query = SQL("SELECT position, fold_version FROM {}.checkpoint").format(Identifier(schema))
    try:
        with connection.transaction():  # so that a missing table does not end the caller's
            row = connection.execute(query).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        row = None
    if not row:
        raise StateError(f"{schema}.checkpoint is missing or empty: run `ledger rebuild`")
    return Checkpoint(*row)


def check_version(checkpoint: Checkpoint) -> None:
    """Raise `FoldVersionError` if the state is of another version than this code's."""
    if checkpoint.fold_version != FOLD_VERSION:
        raise FoldVersionError(
            f"the state was made by version {checkpoint.fold_version} of the fold and this is "
            f"version {FOLD_VERSION}: run `ledger rebuild`. Until then the old state is served as "
            f"it was at position {checkpoint.position}"
        )


def move_checkpoint(connection: Connection, schema: str, before: Checkpoint, position: int) -> None:
    """Move the checkpoint, in the caller's transaction, if it is still where the caller saw it."""
    moved = connection.execute(
        SQL(
            "UPDATE {}.checkpoint SET position = %s WHERE position = %s AND fold_version = %s"
        ).format(Identifier(schema)),
        (position, before.position, before.fold_version),
    ).rowcount
    if moved != 1:
        raise CheckpointError(
            f"the checkpoint is no longer at {before.position}: another projector moved it"
        )


def replace_bills(connection: Connection, schema: str, known: Sequence[Key], rows: Rows) -> None:
    """Put rows in, some perhaps in the place of the rows of bills that are `known` already."""
    if known:
        _delete_bills(connection, schema, known)
    copy_in(connection, schema, rows)


def _delete_bills(connection: Connection, schema: str, keys: Sequence[Key]) -> None:
    labs, bills = text_array(lab for lab, _ in keys), text_array(bill for _, bill in keys)
    for table in BILL_TABLES:
        connection.execute(
            SQL(
                "DELETE FROM {}.{} t USING unnest(%s, %s) AS k (lab_id, bill_id)"
                " WHERE t.lab_id = k.lab_id AND t.bill_id = k.bill_id"
            ).format(Identifier(schema), Identifier(table)),
            (labs, bills),
        )


def copy_in(connection: Connection, schema: str, rows: Rows) -> None:
    """Add rows to their tables."""
    for table, some in rows.items():
        if some:
            with adding(connection, schema, table) as add:
                add(some)


@contextmanager
def adding(
    connection: Connection, schema: str, table: str
) -> Iterator[Callable[[Sequence[Row]], None]]:
    """Yield what adds rows to a table, until the block ends: by one COPY."""
    columns = SQL(", ").join(map(Identifier, COLUMNS[table]))
    statement = SQL("COPY {}.{} ({}) FROM STDIN (FORMAT binary)").format(
        Identifier(schema), Identifier(table), columns
    )
    with connection.cursor().copy(statement) as copy:
        copy.write(COPY_BEGIN)
        yield lambda rows: copy.write(copy_rows(rows))
        copy.write(COPY_END)


def _run(connection: Connection, schema: str, script: str) -> None:
    with connection.transaction():
        connection.execute(SQL("SET LOCAL search_path = {}").format(Identifier(schema)))
        connection.execute(files("ledger.projection").joinpath(script).read_bytes())
        connection.execute("SET LOCAL search_path TO DEFAULT")
