"""Distributes the log by lab over the nodes of a Citus cluster, in one transaction."""

from importlib.resources import files

from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal

from ledger.errors import SchemaError
from ledger.postgres.cluster import IS_DISTRIBUTED, one_shard_after_the_other, worker_nodes
from ledger.postgres.connect import INTAKE_ROLE, SERVICE_ROLE
from ledger.postgres.locks import Lock, lock_transaction

SHARDS = 32
"""Shards of the log: as many nodes may hold it at the most."""

TABLES = ("event_log", "erasable_body", "repeat_delivery")
"""What is distributed, by lab, so that the rows of a lab lie on one node."""

_FUNCTIONS = ("append_events", "event_log_head", "last_position")


def is_distributed(connection: Connection) -> bool:
    """Return whether the log is distributed now, whatever this process knew of it."""
    row = connection.execute(IS_DISTRIBUTED.encode()).fetchone()
    return bool(row and row[0])


def let_roles_log_in(connection: Connection) -> None:
    """Let the coordinator log in to the nodes as the roles that Ledger's processes act as."""
    if worker_nodes(connection):
        for role in (SERVICE_ROLE, INTAKE_ROLE):
            connection.execute(SQL("ALTER ROLE {} LOGIN").format(Identifier(role)))


def is_empty(connection: Connection) -> bool:
    """Return whether the log has no event."""
    return connection.execute("SELECT FROM ledger.event_log LIMIT 1").fetchone() is None


def distribute(connection: Connection) -> int:
    """Distribute the log and all that is in it; return its last position.

    Appends wait until it is done: they go to the spool, or the sender retries. Killed at any
    moment, nothing has happened. Raises `SchemaError` without nodes, and `psycopg.Error`.
    """
    require_nodes(worker_nodes(connection))
    with connection.transaction():
        lock_transaction(connection, Lock.MIGRATION)
        lock_transaction(connection, Lock.APPEND)
        if is_distributed(connection):
            raise SchemaError("the log is distributed already")
        head = _head(connection)
        # Triggers on shards refuse changes as on one server: they touch no other table.
        connection.execute("SET LOCAL citus.enable_unsafe_triggers = on")
        one_shard_after_the_other(connection)
        for table in TABLES:
            _distribute(connection, table)
        connection.execute("SET LOCAL citus.enable_ddl_propagation = off")  # only we call these
        for name in ("log_head", *_FUNCTIONS):
            sql = files("ledger.eventlog").joinpath("sql", "cluster", f"{name}.sql")
            connection.execute(sql.read_bytes())
        connection.execute("INSERT INTO ledger.log_head (position) VALUES (%s)", (head,))
    return head


def require_nodes(nodes: int) -> None:
    """Raise `SchemaError` if there is no node to distribute to."""
    if not nodes:
        raise SchemaError(
            "the database has no worker nodes: create the extension citus in it and add nodes by "
            "citus_add_node, then run it again"
        )


def _distribute(connection: Connection, table: str) -> None:
    first = table == TABLES[0]
    place = SQL("colocate_with => {}").format(Literal(f"ledger.{TABLES[0]}"))
    if first:
        place = SQL("shard_count => {}, colocate_with => 'none'").format(Literal(SHARDS))
    connection.execute(
        SQL("SELECT create_distributed_table({}, 'lab_id', {})").format(
            Literal(f"ledger.{table}"), place
        )
    )


def _head(connection: Connection) -> int:
    row = connection.execute("SELECT coalesce(max(position), 0) FROM ledger.event_log").fetchone()
    assert row  # noqa: S101 -- an aggregate gives one row
    return int(row[0])
