"""Every connection holds its own settings, whatever the database, the role or a reload says."""

import asyncio
import uuid

import psycopg
import pytest
from psycopg import Connection

from ledger import schema
from ledger.errors import SchemaError
from ledger.eventlog.append import append
from ledger.eventlog.group_commit import GroupCommit
from ledger.eventlog.liveness import BEAT_SECONDS
from ledger.postgres.connect import connect, connect_as_login, connect_async
from ledger.postgres.session import SESSION_SETTINGS
from tests.support.addresses import database_of
from tests.support.histories import RECEIVED, body, delivery
from tests.support.postgres import PrivateServer, new_database
from tests.support.sessions import drain, one, wait_until

pytestmark = pytest.mark.slow

OTHERS = {
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kolkata",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "search_path": "elsewhere",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "700ms",
    "idle_session_timeout": "700ms",
    "tcp_user_timeout": "1h",
    "tcp_keepalives_idle": "7200",
    "tcp_keepalives_interval": "75",
    "tcp_keepalives_count": "9",
    "jit": "on",
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_nestloop": "off",
    "plan_cache_mode": "force_generic_plan",
}


def held(connection: Connection) -> dict[str, str]:
    names = [name for name in SESSION_SETTINGS if name != "client_encoding"]
    return {name: one(connection, "SELECT current_setting(%s)", name) for name in names}


@pytest.mark.parametrize("name", OTHERS)
def test_a_database_with_another_setting_works_as_any(
    database_url: str, owner: Connection, name: str
) -> None:
    with connect(database_url, "test") as connection:
        usual = held(connection)
    owner.execute(
        f"ALTER DATABASE {owner.info.dbname} SET {name} = {_quoted(OTHERS[name])}".encode()
    )
    with connect(database_url, "test") as connection:
        assert held(connection) == usual
        append(connection, [delivery(body("bill.completed", tests={"a": "completed"}))])
        drain(connection)
        assert one(connection, "SELECT first_received_at FROM state.bill") == RECEIVED
    with connect_as_login(database_url, "test") as connection:
        assert held(connection) == usual

    async def by_pool() -> str | None:
        async with await connect_async(database_url, "test") as connection:
            cursor = await connection.execute("SELECT current_setting(%s)", (name,))
            row = await cursor.fetchone()
            return str(row[0]) if row else None

    assert asyncio.run(by_pool()) == usual[name]


def test_every_setting_is_tried() -> None:
    assert OTHERS.keys() == SESSION_SETTINGS.keys() - {"client_encoding"}


def _quoted(value: str) -> str:
    return f"'{value}'"


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_is_not_utf_8_is_refused(postgres_url: str, encoding: str) -> None:
    name = f"ledger_test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0"
            " LOCALE 'C' LOCALE_PROVIDER 'libc'".encode()
        )
        try:
            with pytest.raises(SchemaError, match=f"{encoding}.*ENCODING 'UTF8'"):
                schema.migrate(database_of(postgres_url, name))
            with psycopg.connect(database_of(postgres_url, name)) as connection:
                assert one(connection, "SELECT to_regnamespace('ledger') IS NULL")
        finally:
            owner.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_a_schema_named_like_the_login_changes_nothing(postgres_url: str) -> None:
    with new_database(postgres_url) as name:
        url = database_of(postgres_url, name)
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute(f"CREATE SCHEMA IF NOT EXISTS {owner.info.user}".encode())
        schema.migrate(url)
        with connect(url, "test") as connection:
            schema.check(connection)


def test_a_reload_makes_no_commit_less_durable(postgres_server: PrivateServer) -> None:
    """Of the lane, which stays connected, nor of what imports and decisions append."""
    url = postgres_server.dsn()
    schema.migrate(url)
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(
            """
            CREATE TABLE public.noted (setting text);
            GRANT INSERT ON public.noted TO ledger_service;
            CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO public.noted VALUES (current_setting('synchronous_commit'));
                RETURN NULL;
            END $$;
            CREATE TRIGGER note AFTER INSERT ON ledger.event_log
                FOR EACH STATEMENT EXECUTE FUNCTION public.note();
            """
        )

        def reload(setting: str) -> None:
            owner.execute(f"ALTER SYSTEM SET synchronous_commit = {setting}".encode())
            owner.execute("SELECT pg_reload_conf()")
            wait_until(lambda: one(owner, "SHOW synchronous_commit") == setting, "it is reloaded")

        async def use() -> None:
            lane = GroupCommit(url)
            lane.start()
            await lane.append(delivery(body(bill="B1")))
            await asyncio.to_thread(reload, "off")
            await lane.append(delivery(body(bill="B2")))
            with connect(url, "import") as connection:
                append(connection, [delivery(body(bill="B3"))])
            assert settings() == {"on"}
            await asyncio.to_thread(reload, "remote_apply")
            number = 4
            async with asyncio.timeout(10 * BEAT_SECONDS):
                while "remote_apply" not in settings():
                    await lane.append(delivery(body(bill=f"B{number}")))
                    number += 1
            await lane.stop()

        def settings() -> set[str]:
            return {row[0] for row in owner.execute("SELECT setting FROM public.noted")}

        asyncio.run(use())
        assert settings() == {"on", "remote_apply"}
