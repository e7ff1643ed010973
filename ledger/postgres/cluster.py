"""Where a database whose log is distributed by Citus differs from one server, and why.

The log alone is distributed, by lab, over the nodes: `ledger.event_log`, `ledger.erasable_body` and
`ledger.repeat_delivery`. It is what grows. The state and all else stay on the coordinator, so that
the transaction which folds a batch commits on one node, and reading a bill costs what it costs on
one server.

- Roles: after SET ROLE the coordinator logs in to the nodes as that role, so it may log in.
- `append_events`, `event_log_head`: a plan with unbound parameters cannot be distributed, and nodes
  commit one after the other. So plans hold their values, and the head is a row of the coordinator.
- Readers: while a node has not learned that its part of an append is committed, that part cannot
  be seen. The projector and the rebuild stop before such a gap: on one server it is corruption,
  here it may be a moment.
- Erasing: a function with its owner's rights has connections of its own to the nodes and does not
  see what the transaction appended. So no body can be erased there yet.
- `unnest` that is joined laterally, and EXISTS in a SELECT list next to local tables, are no
  distributed plans: `choose` returns the other form of such a query.
- DDL of local tables stays local: Citus would send every CREATE SCHEMA to the nodes.
"""

from collections.abc import Hashable
from typing import TypeVar

from psycopg import Connection

T = TypeVar("T")

IS_DISTRIBUTED = "SELECT to_regclass('ledger.log_head') IS NOT NULL"
"""The table exists where the log is distributed, and nowhere else."""

_HAS_NODES = """
SELECT count(*)
FROM pg_catalog.pg_dist_node
WHERE noderole = 'primary' AND isactive AND shouldhaveshards AND groupid <> 0
"""

_known: dict[Hashable, bool] = {}
"""Databases by their address. It does not change while a process runs: see docs/scaling.md."""


def is_distributed(connection: Connection) -> bool:
    """Return whether the log of a connection's database is distributed."""
    info = connection.info
    key = (info.host, info.hostaddr, info.port, info.dbname)
    if key not in _known:
        row = connection.execute(IS_DISTRIBUTED.encode()).fetchone()
        _known[key] = bool(row and row[0])
    return _known[key]


def choose(connection: Connection, one_server: T, cluster: T) -> T:
    """Return the form of a query that the connection's database can plan."""
    return cluster if is_distributed(connection) else one_server


def worker_nodes(connection: Connection) -> int:
    """Return how many nodes hold shards: 0 without the extension, or on a coordinator alone."""
    row = connection.execute("SELECT to_regclass('pg_catalog.pg_dist_node')").fetchone()
    if row is None or row[0] is None:
        return 0
    row = connection.execute(_HAS_NODES).fetchone()
    return int(row[0]) if row else 0


def one_shard_after_the_other(connection: Connection) -> None:
    """Let a transaction that changes rights of shards change functions and roles, too."""
    if worker_nodes(connection):
        connection.execute("SET LOCAL citus.multi_shard_modify_mode = 'sequential'")


def keep_ddl_local(connection: Connection) -> None:
    """Create tables and schemas of this session on the coordinator alone."""
    if worker_nodes(connection):
        connection.execute("SET citus.enable_ddl_propagation = off")
