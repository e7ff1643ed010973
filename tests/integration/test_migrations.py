"""Migrations: up, down, at once, and by logins that may do little."""

import multiprocessing
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import LiteralString
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import Connection, sql

from ledger import schema
from ledger.errors import SchemaError
from ledger.eventlog import read
from ledger.eventlog.append import Delivery, append, from_unix
from ledger.postgres.connect import connect
from ledger.projection import rebuild
from tests.support.addresses import database_of
from tests.support.histories import RECEIVED, body, deliveries, delivery
from tests.support.postgres import (
    THROW_AWAY,
    PrivateServer,
    folder_for_postgres,
    new_database,
)
from tests.support.sessions import (
    drain,
    in_thread,
    one,
    sessions_named,
    wait_until,
    wait_until_blocked,
)

pytestmark = pytest.mark.slow


def objects(url: str) -> list[str]:
    """Describe all relations, functions and triggers of a database that are not PostgreSQL's."""
    query = """
        SELECT pg_describe_object(o.classid, o.objid, 0)
        FROM (
            SELECT 'pg_class'::regclass, oid, relnamespace FROM pg_class
            UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace FROM pg_proc
            UNION ALL SELECT 'pg_namespace'::regclass, oid, oid FROM pg_namespace
        ) AS o (classid, objid, namespace)
        WHERE namespace >= 16384 OR namespace = 'public'::regnamespace
    """
    with psycopg.connect(url) as connection:
        return sorted(
            name
            for (name,) in connection.execute(query)
            if "pg_toast" not in name and "ledger.schema_version" not in name
        )


def works(url: str) -> None:
    """Use the log and the state as a server and a projector do."""
    with connect(url, "test") as connection:
        schema.check(connection)
        first = append(connection, [delivery(body(bill=uuid.uuid4().hex)), delivery(b"hello")])
        assert drain(connection) == read.head(connection) >= first[0].position
        assert one(connection, "SELECT count(*) FROM state.bill") >= 1


def test_an_empty_database_is_prepared(empty_database_url: str) -> None:
    schema.migrate(empty_database_url)
    works(empty_database_url)


def test_a_second_migration_changes_nothing(empty_database_url: str) -> None:
    schema.migrate(empty_database_url)
    works(empty_database_url)
    before = objects(empty_database_url)
    schema.migrate(empty_database_url)
    assert objects(empty_database_url) == before
    works(empty_database_url)


def append_as_before(connection: Connection, given: list[Delivery]) -> list[int]:
    """Append to a log of a former shape, and return the positions."""
    said = [one.columns for one in given]
    rows = connection.execute(
        "SELECT at_position FROM ledger.append_events("
        "%s::timestamptz[], %s::timestamptz[], %s::text[], %s::text[], %s::text[], %s::text[],"
        " %s::bytea[], %s::bytea[])",
        (
            [one.received_at for one in given],
            [None if it.event_time is None else from_unix(it.event_time) for it in said],
            [one.source for one in given],
            [it.lab_id for it in said],
            [it.bill_id for it in said],
            [it.event_type for it in said],
            [it.digest for it in said],
            [one.body for one in given],
        ),
    )
    return [position for (position,) in rows]


PRESENT_SHAPE: tuple[LiteralString, LiteralString, LiteralString] = (
    "source",
    "event_type_name(type_code)",
    "event_time(event_second)",
)


def test_threads_that_migrate_one_database_at_once_all_succeed(empty_database_url: str) -> None:
    together = threading.Barrier(4)

    def migrate() -> None:
        together.wait()
        schema.migrate(empty_database_url)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(migrate) for _ in range(4)]:
            done.result()
    works(empty_database_url)


@pytest.fixture
def fresh_server() -> Iterator[PrivateServer]:
    """Give a cluster that no Ledger ever saw; not durable."""
    with folder_for_postgres() as folder:
        server = PrivateServer(folder / "postgres", settings=THROW_AWAY)
        try:
            yield server
        finally:
            server.stop()


def test_processes_that_migrate_several_databases_of_a_new_cluster_all_succeed(
    fresh_server: PrivateServer,
) -> None:
    """Two of each database; all of them find that the cluster has no role yet."""
    urls = []
    with psycopg.connect(fresh_server.dsn("postgres"), autocommit=True) as connection:
        for name in ("one", "two"):
            connection.execute(f"CREATE DATABASE {name}".encode())
            urls += [fresh_server.dsn(name)] * 2
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(4, mp_context=spawn) as pool:
            for done in [pool.submit(schema.migrate, url) for url in urls]:
                done.result()
    for url in urls:
        works(url)


def test_a_role_that_another_migration_makes_at_the_same_moment_is_used(
    fresh_server: PrivateServer,
) -> None:
    url = fresh_server.dsn()
    with psycopg.connect(url) as other, psycopg.connect(url, autocommit=True) as owner:
        other.execute("CREATE ROLE ledger_service NOLOGIN")
        with in_thread(lambda: schema.migrate(url)):
            wait_until(lambda: sessions_named(owner, "migrate"), "the migration has begun")
            wait_until_blocked(owner, *sessions_named(owner, "migrate"))
            other.commit()
    works(url)


# --- logins -----------------------------------------------------------------------------------


def as_login(url: str, name: str, password: str) -> str:
    """Give the URL with which another user logs in."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(name)}:{password}@{host}"))


@contextmanager
def login(server: str, rights: LiteralString) -> Iterator[str]:
    """Make a user with a name that needs quoting, and take it away with all that it owns."""
    name = f"user-{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        user = sql.Identifier(name)
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret' NOSUPERUSER {}").format(
                user,
                sql.SQL(rights),
            )
        )
        try:
            yield name
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(user))


@contextmanager
def owned_database(server: str, owner: str) -> Iterator[str]:
    with new_database(server) as name:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} OWNER TO {}").format(
                    sql.Identifier(name), sql.Identifier(owner)
                )
            )
        try:
            yield name
        finally:
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(
                    sql.SQL("ALTER DATABASE {} OWNER TO CURRENT_USER").format(sql.Identifier(name))
                )


def grant_service(server: str, user: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("GRANT ledger_service TO {}").format(sql.Identifier(user)))


def test_a_plain_owner_who_may_create_roles_prepares_the_first_database_of_a_cluster(
    fresh_server: PrivateServer,
) -> None:
    server = fresh_server.dsn("postgres")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE ROLE owner LOGIN PASSWORD 'secret' CREATEROLE")
        connection.execute("CREATE DATABASE first OWNER owner")
        connection.execute("CREATE DATABASE second OWNER owner")
    for name in ("first", "second"):
        url = as_login(fresh_server.dsn(name), "owner", "secret")
        schema.migrate(url)
        schema.migrate(url)
        works(url)
        rebuild.rebuild(url, processes=1, started_at=RECEIVED, on_progress=lambda *_: None)


def test_an_owner_who_was_granted_the_role_prepares_another_database(
    postgres_url: str, migrated_template: str
) -> None:
    assert migrated_template, "the cluster has the role already"
    with login(postgres_url, "CREATEROLE") as user, owned_database(postgres_url, user) as name:
        grant_service(postgres_url, user)
        url = as_login(database_of(postgres_url, name), user, "secret")
        schema.migrate(url)
        works(url)


def test_an_owner_who_was_not_granted_the_role_is_told_what_to_do(
    postgres_url: str, migrated_template: str
) -> None:
    assert migrated_template, "the cluster has the role already"
    with login(postgres_url, "") as user, owned_database(postgres_url, user) as name:
        url = as_login(database_of(postgres_url, name), user, "secret")
        with pytest.raises(SchemaError, match="GRANT ledger_service TO"):
            schema.migrate(url)
        grant_service(postgres_url, user)
        schema.migrate(url)
        works(url)


def test_a_login_that_was_granted_the_role_serves(postgres_url: str, database_url: str) -> None:
    with login(postgres_url, "") as user:
        grant_service(postgres_url, user)
        url = as_login(database_url, user, "secret")
        works(url)
        made = rebuild.rebuild(url, processes=1, started_at=RECEIVED, on_progress=lambda *_: None)
        assert made.position == 2


def test_a_login_that_was_not_granted_the_role_is_told_what_to_do(
    postgres_url: str, database_url: str
) -> None:
    with login(postgres_url, "") as user:
        url = as_login(database_url, user, "secret")
        with pytest.raises(SchemaError, match="GRANT ledger_service TO"):
            connect(url, "test")


def test_a_migration_gives_back_the_rights_that_a_dump_does_not_hold(
    postgres_url: str, database_url: str
) -> None:
    """So that a restored database can be rebuilt."""
    name = urlsplit(database_url).path[1:]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"REVOKE CREATE ON DATABASE {name} FROM ledger_service".encode())

    def run() -> None:
        rebuild.rebuild(database_url, processes=1, started_at=RECEIVED, on_progress=lambda *_: None)

    with pytest.raises(SchemaError, match="ledger migrate"):
        run()
    schema.migrate(database_url)
    run()


# --- the check at each start ------------------------------------------------------------------


def test_the_right_schema_passes(service: Connection) -> None:
    schema.check(service)
    assert schema.current_version(service) == schema.SCHEMA_VERSION


def test_a_database_without_a_schema_is_told(empty_database_url: str) -> None:
    with (
        psycopg.connect(empty_database_url, autocommit=True) as connection,
        pytest.raises(SchemaError, match="not prepared for Ledger: run `ledger migrate`"),
    ):
        schema.check(connection)


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("0000", r"schema is 0000 .* needs 0001: run `ledger migrate`"),
        ("9999", r"schema is 9999, newer than the 0001 .*: install the newer version"),
    ],
)
def test_another_schema_is_told_with_both_versions(
    service: Connection, owner: Connection, version: str, words: str
) -> None:
    owner.execute("UPDATE ledger.schema_version SET version_num = %s", (version,))
    words = words.replace("0001", schema.SCHEMA_VERSION)
    with pytest.raises(SchemaError, match=words):
        schema.check(service)


def test_the_version_that_is_checked_is_the_newest_migration(owner: Connection) -> None:
    assert one(owner, "SELECT version_num FROM ledger.schema_version") == schema.SCHEMA_VERSION


def test_a_cloned_log_goes_on_where_it_was(
    postgres_url: str, database_url: str, service: Connection
) -> None:
    append(service, deliveries([b"1", b"2"]))
    service.close()
    with new_database(postgres_url, template=urlsplit(database_url).path[1:]) as name:
        url = database_of(postgres_url, name)
        schema.migrate(url)
        with connect(url, "test") as clone:
            assert append(clone, [delivery(b"3")])[0].position == 3
