"""A database on a Citus cluster, if LEDGER_TEST_DATABASE_URL names the coordinator of one."""

import functools
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
from psycopg.sql import SQL, Identifier

from tests.support.addresses import database_of, server_at

WITHOUT = (
    "did not run: LEDGER_TEST_DATABASE_URL names no coordinator of a Citus cluster (with worker "
    "nodes, and a login that may create databases on all of them)"
)

_NODES = """
SELECT nodename, nodeport
FROM pg_dist_node
WHERE noderole = 'primary' AND isactive AND groupid <> 0
ORDER BY nodeid
"""


def coordinator() -> str | None:
    """Return the URL of the cluster's coordinator, None if there is none."""
    url = os.environ.get("LEDGER_TEST_DATABASE_URL")
    return url if url and has_nodes(url) else None


@functools.cache
def has_nodes(server: str) -> bool:
    """Return whether a server is the coordinator of a cluster."""
    return bool(_nodes(server))


def node_urls(url: str) -> list[str]:
    """Return the URLs of a database on the worker nodes."""
    return [server_at(url, host, port) for host, port in _nodes(url)]


@contextmanager
def new_cluster_database(server: str) -> Iterator[str]:
    """Give the name of a new database with the same nodes, dropped afterwards."""
    name = f"ledger_test_{uuid.uuid4().hex}"
    nodes = _nodes(server)
    servers = [server, *node_urls(server)]
    with psycopg.connect(server, autocommit=True) as connection:
        row = connection.execute(
            "SELECT nodename, nodeport FROM pg_dist_node WHERE groupid = 0"
        ).fetchone()
    own = row or (urlsplit(server).hostname, urlsplit(server).port or 5432)
    try:
        for url in servers:
            _execute(url, SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0"), name)
            with psycopg.connect(database_of(url, name), autocommit=True) as connection:
                connection.execute("CREATE EXTENSION citus")
        with psycopg.connect(database_of(server, name), autocommit=True) as connection:
            connection.execute("SELECT citus_set_coordinator_host(%s, %s)", own)
            for node in nodes:
                connection.execute("SELECT citus_add_node(%s, %s)", node)
        yield name
    finally:
        for url in servers:
            _execute(url, SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)"), name)


def _nodes(url: str) -> list[tuple[str, int]]:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT to_regclass('pg_catalog.pg_dist_node')").fetchone()
        if row is None or row[0] is None:
            return []
        return connection.execute(_NODES).fetchall()


def _execute(url: str, statement: SQL, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.format(Identifier(name)))
