"""API keys in a process's memory: read often, never by a request, and not trusted for long."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from ledger.api import authentication
from ledger.api.authentication import Authenticator
from ledger.api.permissions import Caller
from ledger.errors import DatabaseUnavailableError, QuestionError, UnauthenticatedError
from ledger.operations.api_keys import (
    Grant,
    create_key,
    find_key,
    list_keys,
    make_key,
    revoke_key,
    rotate_key,
)
from ledger.postgres.connect import connect
from tests.support.decisions import OPERATOR
from tests.support.postgres import PrivateServer
from tests.support.sessions import one, sessions_named, terminate

pytestmark = pytest.mark.slow

ADMIN = "the-admin-key-of-the-tests"
NAME = "for the tests"


@pytest.fixture
def service(database_url: str) -> Iterator[Connection]:
    with connect(database_url, "test") as connection:
        yield connection


@pytest.fixture
def owner(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@asynccontextmanager
async def started(url: str) -> AsyncIterator[Authenticator]:
    found = Authenticator(url, ADMIN)
    found.start()
    try:
        yield found
    finally:
        await found.stop()


async def until(holds: Any, seconds: float = 20.0) -> None:  # noqa: ANN401 -- a function
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 -- nothing notifies of it
            await asyncio.sleep(0.01)


async def is_refused(found: Authenticator, key: str) -> bool:
    try:
        await found.authenticate(key)
    except UnauthenticatedError:
        return True
    return False


def test_a_new_key_is_known_and_a_revoked_one_is_not(
    database_url: str, service: Connection
) -> None:
    made = create_key(service, NAME, Grant("operate", ("b", "a", "b")), by=OPERATOR)
    expected = Caller(made.key_id, "operate", ("a", "b"))

    async def run() -> None:
        async with started(database_url) as found:
            assert await found.authenticate(made.key) == expected
            assert found.known(made.key) == expected
            assert await is_refused(found, make_key(made.key_id))
            # Another one is known as soon as the notification comes.
            other = create_key(service, NAME, Grant("read"), by=OPERATOR)
            assert (await found.authenticate(other.key)).key_id == other.key_id
            revoke_key(service, made.key_id, by=OPERATOR)
            await until(lambda: found.known(made.key) is None, 5)
            assert found.still_admits(made.key) is False
            assert await is_refused(found, made.key)
            assert found.known(other.key) is not None

    asyncio.run(run())


def test_the_old_secret_is_valid_until_its_time(database_url: str, service: Connection) -> None:
    made = create_key(service, NAME, Grant("read"), by=OPERATOR)

    async def run() -> None:
        async with started(database_url) as found:
            second = rotate_key(service, made.key_id, overlap_seconds=600, by=OPERATOR)
            await found.see_changes()
            assert found.known(made.key) == found.known(second.key) != None  # noqa: E711
            third = rotate_key(service, made.key_id, overlap_seconds=0, by=OPERATOR)
            await found.see_changes()
            assert found.known(made.key) is None
            assert found.known(second.key) is None
            assert found.known(third.key) is not None

    asyncio.run(run())


def test_an_expired_key_is_refused_without_a_new_reading(
    database_url: str, service: Connection
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    made = create_key(service, NAME, Grant("read", None, soon), by=OPERATOR)

    async def run() -> None:
        async with started(database_url) as found:
            await found.authenticate(made.key)
            await until(lambda: found.known(made.key) is None)

    asyncio.run(run())
    with pytest.raises(QuestionError, match="has expired"):
        rotate_key(service, made.key_id, overlap_seconds=0, by=OPERATOR)


def test_no_secret_is_stored_and_rows_say_who_made_a_key(
    owner: Connection, service: Connection
) -> None:
    made = create_key(service, NAME, Grant("read"), by=OPERATOR)
    rotated = rotate_key(service, made.key_id, overlap_seconds=9, by=OPERATOR)
    row = str(owner.execute("SELECT k::text FROM ledger.api_key k").fetchall())
    for key in (made.key, rotated.key):
        assert key[:20] not in row
        assert key.encode().hex() not in row
    [listed] = list_keys(service, limit=9)
    assert (listed.name, listed.created_by, listed.created_by_key) == (NAME, OPERATOR.name, None)
    assert listed.revoked_at is None
    revoked = revoke_key(service, made.key_id, by=OPERATOR)
    assert revoke_key(service, made.key_id, by=OPERATOR) == revoked
    with pytest.raises(QuestionError, match="was revoked"):
        rotate_key(service, made.key_id, overlap_seconds=0, by=OPERATOR)


@pytest.mark.parametrize(
    "grant", [Grant("read", ()), Grant("read", None, datetime(2020, 1, 1, tzinfo=UTC))]
)
def test_a_grant_without_sense_is_refused(service: Connection, grant: Grant) -> None:
    with pytest.raises(QuestionError):
        create_key(service, NAME, grant, by=OPERATOR)
    assert list_keys(service, limit=1) == []


def test_the_use_of_a_key_is_noted_once_an_hour(database_url: str, service: Connection) -> None:
    made = create_key(service, NAME, Grant("read"), by=OPERATOR)

    def last_used() -> datetime | None:
        return find_key(service, made.key_id).last_used_at

    async def run() -> None:
        async with started(database_url) as found:
            await found.authenticate(made.key)
            await until(last_used)
        first = last_used()
        async with started(database_url) as found:  # another process
            await found.authenticate(made.key)
            await found.see_changes()
            await found.see_changes()
        assert last_used() == first

    asyncio.run(run())


def test_a_flood_of_unknown_keys_reaches_neither_the_database_nor_the_memory(
    database_url: str, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "MOST_WAITING", 50)

    def reads() -> int:
        owner.execute("SELECT pg_stat_clear_snapshot()")
        return int(
            one(
                owner,
                "SELECT coalesce(seq_scan, 0) + coalesce(idx_scan, 0) FROM pg_stat_all_tables"
                " WHERE schemaname = 'ledger' AND relname = 'api_key'",
            )
        )

    async def run() -> None:
        async with started(database_url) as found:
            assert await is_refused(found, make_key("nobody0000"))
            before = {name: value for name, value in vars(found).items() if name != "_read_at"}
            sizes = {
                name: len(value) for name, value in before.items() if hasattr(value, "__len__")
            }
            attempts = [is_refused(found, make_key(f"nobody{n:04}")) for n in range(2_000)]
            assert all(await asyncio.gather(*attempts))
            after = {name: len(vars(found)[name]) for name in sizes}
            assert after == sizes
            assert len(sessions_named(owner, "credentials")) == 1

    before = reads()
    asyncio.run(run())
    assert reads() - before < 20


def test_without_the_database_only_the_admin_key_is_known(
    postgres_server: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ledger import schema  # noqa: PLC0415 -- only this test migrates

    monkeypatch.setattr(authentication, "TRUSTED_SECONDS", 2.5)
    monkeypatch.setattr(authentication, "START_SECONDS", 0.1)
    url = postgres_server.dsn()
    schema.migrate(url)
    with connect(url, "test") as connection:
        made = create_key(connection, NAME, Grant("read"), by=OPERATOR)

    async def unavailable(found: Authenticator, key: str) -> bool:
        try:
            await found.authenticate(key)
        except DatabaseUnavailableError:
            return True
        return False

    async def run() -> None:
        async with started(url) as found:
            await found.authenticate(made.key)
            await asyncio.to_thread(postgres_server.stop)
            assert found.known(made.key) is not None  # trusted for a while
            await until(lambda: found.known(made.key) is None)
            assert await unavailable(found, made.key)
            assert await unavailable(found, make_key("nobody0000"))
            assert found.still_admits(made.key) is None
            assert (await found.authenticate(ADMIN)).scope == "admin"
            assert await is_refused(found, made.key[:-1])
            await asyncio.to_thread(postgres_server.start)
            await until(lambda: found.known(made.key) is not None)
        async with started("postgresql://127.0.0.1:1/none") as found:
            assert await unavailable(found, made.key)
            assert (await found.authenticate(ADMIN)).labs is None

    asyncio.run(run())


def test_a_lost_connection_is_made_again(
    database_url: str, owner: Connection, service: Connection
) -> None:
    made = create_key(service, NAME, Grant("read"), by=OPERATOR)

    async def run() -> None:
        async with started(database_url) as found:
            await found.authenticate(made.key)
            terminate(owner, *sessions_named(owner, "credentials"))
            revoke_key(service, made.key_id, by=OPERATOR)
            await until(lambda: found.still_admits(made.key) is False)

    asyncio.run(run())


def test_without_an_admin_key_nobody_is_it(database_url: str) -> None:
    async def run() -> None:
        found = Authenticator(database_url, "")
        for presented in ("", " ", "admin"):
            assert await is_refused(found, presented)

    asyncio.run(run())
