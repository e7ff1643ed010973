"""Creates the state tables and public views, replaces rows in them, and moves the checkpoint."""

from collections.abc import Sequence
from importlib.resources import files

import psycopg
from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from ledger.errors import CheckpointError, FoldVersionError, StateError
from ledger.eventlog.read import Key
from ledger.model.bill import FOLD_VERSION
from ledger.model.operator_events import BodyErased
from ledger.postgres.connect import SERVICE_ROLE
from ledger.postgres.locks import Lock, lock_transaction
from ledger.projection.rows import COLUMNS, Row, Rows

LIVE = "state"
NEXT = "state_next"

READER_ROLE = "ledger_reader"

_TABLE_FILES = (
    "bill",
    "report",
    "missing_event",
    "request_line",
    "support_request",
    "former_integrator",
    "subscription",
    "flabs_subscription",
    "expected_bill",
    "delivery_stats",
    "unreadable_event",
    "parked_bill",
    "checkpoint",
)

VIEWS = (
    "missing_event",
    "bill",
    "report",
    "support_request",
    "support_request_line",
    "loss_window",
    "lab",
    "event",
    "delivery",
)
"""The public views, in the order in which they depend on each other."""

BILL_TABLES = (
    "bill",
    "report",
    "missing_event",
    "request_line",
    "former_integrator",
    "parked_bill",
)
"""The tables whose rows of a bill are replaced when it is folded again. Rows of the other tables
belong to one event each, and change only with the code."""

TABLES = (*COLUMNS, "expected_bill", "lab", "delay", "lab_hour")
"""All tables that hold what the log says."""


class Checkpoint(Struct, frozen=True):
    """The position that the state reflects, and the version of the fold that computed it."""

    position: int
    fold_version: int


def create_if_absent(connection: Connection) -> None:
    """Create the live state, empty, with the public views, in a database that has none."""
    with connection.transaction():
        lock_transaction(connection, Lock.MIGRATION)
        if schema_exists(connection, LIVE):
            return
        connection.execute(SQL("SET LOCAL ROLE {}").format(Identifier(SERVICE_ROLE)))
        create(connection, LIVE)
        create_indexes(connection, LIVE)
        replace_views(connection)


def schema_exists(connection: Connection, schema: str) -> bool:
    """Return whether there is such a schema, whatever it holds."""
    row = connection.execute("SELECT to_regnamespace(%s)", (schema,)).fetchone()
    return bool(row and row[0])


def create(connection: Connection, schema: str) -> None:
    """Create the tables without their indexes, and a checkpoint at the beginning of the log."""
    connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
    for name in _TABLE_FILES:
        run_file(connection, schema, name)
    connection.execute(
        SQL("INSERT INTO {}.checkpoint (position, fold_version) VALUES (0, %s)").format(
            Identifier(schema)
        ),
        (FOLD_VERSION,),
    )


def create_indexes(connection: Connection, schema: str) -> None:
    """Create the keys and indexes."""
    run_file(connection, schema, "indexes")


def replace_views(connection: Connection) -> None:
    """Point the public views at the live state.

    They are replaced and never dropped, so views that others built on them stay.
    """
    for name in VIEWS:
        connection.execute(_sql_file(f"views/{name}"))
    grant_views(connection)


def grant_views(connection: Connection) -> None:
    """Let the reader's role read the public views that exist, and nothing else."""
    for name in VIEWS:
        view = f"ledger.{name}"
        row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (view,)).fetchone()
        if row and row[0]:
            connection.execute(
                SQL("GRANT SELECT ON ledger.{} TO {}").format(
                    Identifier(name), Identifier(READER_ROLE)
                )
            )


def run_file(connection: Connection, schema: str, name: str) -> None:
    """Run an SQL file whose unqualified names are of a schema."""
    with connection.transaction():
        connection.execute(SQL("SET LOCAL search_path = {}").format(Identifier(schema)))
        connection.execute(_sql_file(name))
        connection.execute("SET LOCAL search_path = pg_catalog")


def _sql_file(name: str) -> bytes:
    return files("ledger.projection").joinpath("sql", f"{name}.sql").read_bytes()


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
            f"the state was computed by version {checkpoint.fold_version} of the fold and this is "
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
    """Add rows, having deleted the rows of the bills that are `known` already."""
    if known:
        _delete_bills(connection, schema, known)
    copy_in(connection, schema, rows)


def forget_erased(connection: Connection, schema: str, decisions: Sequence[BodyErased]) -> None:
    """Delete what is said of unreadable bodies that these decisions erase."""
    for decision in decisions:
        connection.execute(
            SQL(
                "DELETE FROM {}.unreadable_event u"
                " USING ledger.event_log e"
                " WHERE e.lab_id = %s AND e.bill_id = %s AND e.digest = decode(%s, 'hex')"
                " AND u.lab_id = e.lab_id AND u.bill_id = e.bill_id AND u.position = e.position"
            ).format(Identifier(schema)),
            (decision.lab_id or "", decision.bill_id or "", decision.digest),
        )


def _delete_bills(connection: Connection, schema: str, keys: Sequence[Key]) -> None:
    parameters = ([lab for lab, _ in keys], [bill for _, bill in keys])
    for table in BILL_TABLES:
        connection.execute(
            SQL(
                "DELETE FROM {}.{} t"
                " USING unnest(%s::text[], %s::text[]) AS k (lab_id, bill_id)"
                " WHERE t.lab_id = k.lab_id AND t.bill_id = k.bill_id"
            ).format(Identifier(schema), Identifier(table)),
            parameters,
        )


def copy_in(connection: Connection, schema: str, rows: Rows) -> None:
    """Add rows to their tables."""
    for table, some in rows.items():
        if some:
            _copy(connection, schema, table, some)


def _copy(connection: Connection, schema: str, table: str, rows: Sequence[Row]) -> None:
    columns = COLUMNS[table]
    statement = SQL("COPY {}.{} ({}) FROM STDIN (FORMAT binary)").format(
        Identifier(schema), Identifier(table), SQL(", ").join(map(Identifier, columns))
    )
    with connection.cursor().copy(statement) as copy:
        copy.set_types(list(columns.values()))
        write_row = copy.write_row
        for row in rows:
            write_row(row)
