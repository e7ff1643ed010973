"""The database's schema: `ledger migrate` creates it, everything that starts checks it."""

from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection

from ledger.errors import SchemaError, one_line
from ledger.eventlog import distribution
from ledger.operations import policy
from ledger.postgres.cluster import (
    keep_ddl_local,
    one_shard_after_the_other,
    worker_nodes,
)
from ledger.postgres.connect import connect_as_login
from ledger.postgres.locks import Lock, lock_transaction
from ledger.projection import store

SCHEMA_VERSION = "0001"
"""The newest migration. Repeated here, so that a server need not load Alembic to compare it."""

TABLES = (
    "event_log",
    "erasable_body",
    "repeat_delivery",
    "liveness",
    "refusal",
    "import_run",
    "policy",
    "alert_subject",
    "alert",
    "alert_delivery",
    "reconciliation_run",
    "webhook_token",
    "flabs_check",
    "flabs_lab",
    "flabs_rotation",
    "refused_delivery",
    "api_key",
    "verification",
    "seal_tile",
    "seal_checkpoint",
)
"""The tables of the schema `ledger`, apart from the version."""

_NEXT_TO_THE_PACKAGE = Path(__file__).parent.parent / "migrations"
_INSIDE_THE_PACKAGE = Path(__file__).parent / "_migrations"  # where a wheel has them


def migrate(url: str, given_policy: Mapping[str, Any] | None = None) -> None:
    """Create the schema or bring it to the newest version; mend roles, owners and rights.

    Puts the given settings of the policy in force. Safe to repeat, and to run from several places
    at once. Raises `DatabaseUnavailableError` or `SchemaError`; a failed migration leaves nothing
    behind.
    """
    with connect_as_login(url, "migrate") as connection:
        check_encoding(connection)
        try:
            _as_one(connection, _create_roles)
        except psycopg.Error as error:
            raise _refused(error) from error
    _run_migrations(url)
    with connect_as_login(url, "migrate") as connection:
        try:
            _check_tables(connection)
            if worker_nodes(connection) and not _is_distributed_or_full(connection):
                distribution.distribute(connection)
            _as_one(connection, _grant)
            keep_ddl_local(connection)
            store.create_if_absent(connection)
            _as_one(connection, _grant)  # now that there is a state to own
            policy.store(connection, given_policy or {}, by="ledger migrate")
        except psycopg.Error as error:
            raise _refused(error) from error


def distribute(url: str) -> int:
    """Distribute the log of a database that has nodes; return its last position.

    Raises as `migrate` does.
    """
    with connect_as_login(url, "distribute") as connection:
        check(connection)
        try:
            _as_one(connection, _create_roles)
            head = distribution.distribute(connection)
            _as_one(connection, _grant)
        except psycopg.Error as error:
            raise _refused(error, "distribution") from error
    return head


def _is_distributed_or_full(connection: Connection) -> bool:
    """Return whether the log is distributed, or has events, which are moved when asked to."""
    return distribution.is_distributed(connection) or not distribution.is_empty(connection)


def _run_migrations(url: str) -> None:
    # Alembic brings SQLAlchemy along, which only this command needs.
    from alembic import command  # noqa: PLC0415 -- see above
    from alembic.config import Config  # noqa: PLC0415 -- see above
    from sqlalchemy import create_engine, text  # noqa: PLC0415 -- see above
    from sqlalchemy.pool import NullPool  # noqa: PLC0415 -- see above

    def login() -> psycopg.Connection:
        connection = connect_as_login(url, "migrate")
        connection.autocommit = False
        return connection

    config = Config()
    config.set_main_option("script_location", str(_migrations_folder()))
    engine = create_engine("postgresql+psycopg://", creator=login, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)  # noqa: S101 -- what `login` returned
            lock_transaction(driver, Lock.MIGRATION)
            _check_ownership(driver)
            connection.execute(text("CREATE SCHEMA IF NOT EXISTS ledger"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except psycopg.Error as error:
        raise _refused(error) from error
    except Exception as error:
        if isinstance(cause := error.__cause__, psycopg.Error):
            raise _refused(cause) from error
        raise


def check_encoding(connection: Connection) -> None:
    """Raise `SchemaError` unless the database stores UTF-8."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SchemaError(
            f"the database {connection.info.dbname} is encoded in {encoding}, which cannot hold "
            "every id that Flabs sends. Create one in UTF-8: "
            f"CREATE DATABASE {connection.info.dbname}_utf8 ENCODING 'UTF8' TEMPLATE template0"
        )


def _check_ownership(connection: Connection) -> None:
    """Raise `SchemaError` if one of Ledger's schemas exists and holds somebody else's objects.

    An empty schema `ledger` may be that of a login with this name.
    """
    if current_version(connection) is not None:
        return
    for name, is_free in (("ledger", _IS_EMPTY), ("state", _IS_ABSENT)):
        row = connection.execute(is_free, (name,)).fetchone()
        if not (row and row[0]):
            raise SchemaError(
                f"the database has a schema {name} that is not Ledger's: give Ledger a database of "
                "its own, or rename that schema. Nothing was changed"
            )


_IS_ABSENT = "SELECT to_regnamespace(%s) IS NULL"
_IS_EMPTY = """
SELECT NOT EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = to_regnamespace(%s))
"""


def _check_tables(connection: Connection) -> None:
    missing = [
        table
        for table in TABLES
        if connection.execute("SELECT to_regclass(%s)", (f"ledger.{table}",)).fetchone() == (None,)
    ]
    if missing:
        raise SchemaError(
            f"the database says that its schema is {current_version(connection)}, but the tables "
            f"{', '.join(f'ledger.{table}' for table in missing)} do not exist: restore the backup "
            "as a whole, or drop the schema ledger if the log is empty"
        )


def _create_roles(connection: Connection) -> None:
    connection.execute(files("ledger.postgres").joinpath("sql", "roles.sql").read_bytes())
    distribution.let_roles_log_in(connection)


def _grant(connection: Connection) -> None:
    one_shard_after_the_other(connection)
    connection.execute(files("ledger.postgres").joinpath("sql", "grants.sql").read_bytes())
    store.grant_views(connection)


def _as_one(connection: Connection, work: Callable[[Connection], None]) -> None:
    """Do what changes roles, which another database of the cluster may be changing as well."""
    for last in (False, False, False, True):
        try:
            with connection.transaction():
                lock_transaction(connection, Lock.MIGRATION)
                work(connection)
        except psycopg.errors.InternalError_:  # "tuple concurrently updated", for a moment
            if last:
                raise
        else:
            return


def check(connection: Connection, *, may_be_newer: bool = False) -> None:
    """Raise `SchemaError` unless the database and its schema are what this version works with.

    `may_be_newer`: see `judge`.
    """
    check_encoding(connection)
    judge(current_version(connection), may_be_newer=may_be_newer)


def current_version(connection: Connection) -> str | None:
    """Return the newest migration of the database, or None if it has none."""
    try:
        with connection.transaction():  # so that a missing table does not end the caller's
            row = connection.execute("SELECT version_num FROM ledger.schema_version").fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return None
    return str(row[0]) if row else None


def is_newer(version: str | None) -> bool:
    """Return whether a newer version of Ledger made the schema."""
    return version is not None and version > SCHEMA_VERSION


def judge(version: str | None, *, may_be_newer: bool = False) -> None:
    """Raise `SchemaError` with a sentence unless `version` is the right one.

    `may_be_newer`: for what receives deliveries. A migration only adds, so that the version before
    it goes on receiving while the new one is installed, and after going back.
    """
    if version is None:
        raise SchemaError("the database was not prepared for Ledger: run `ledger migrate`")
    if version < SCHEMA_VERSION:
        raise SchemaError(
            f"the database's schema is {version} and this version of Ledger needs "
            f"{SCHEMA_VERSION}: run `ledger migrate`"
        )
    if is_newer(version) and not may_be_newer:
        raise SchemaError(
            f"the database's schema is {version}, newer than the {SCHEMA_VERSION} "
            "that this version of Ledger knows: install the newer version of Ledger"
        )


def _migrations_folder() -> Path:
    return _INSIDE_THE_PACKAGE if _INSIDE_THE_PACKAGE.is_dir() else _NEXT_TO_THE_PACKAGE


def _refused(error: psycopg.Error, what: str = "migration") -> SchemaError:
    words = error.diag.message_primary or one_line(error)
    hint = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
    return SchemaError(f"the {what} was refused: {words}{hint}. Run it again once that is fixed")
