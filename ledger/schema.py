"""The database's schema: made by `ledger migrate`, checked by everything that starts."""

from pathlib import Path

import psycopg

from ledger.errors import SchemaError
from ledger.postgres.connect import connect_as_login
from ledger.projection import store

SCHEMA_VERSION = "0005"
"""The newest migration. Written here, too, so that a server need not load Alembic to compare it."""

# Given at each migration, for a dump does not hold what a cluster or a database grants.
_GRANTS = """
DO $$
DECLARE
    -- Since 16 a member of a role need not be one who may act as it.
    needed text := CASE
        WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER'
    END;
BEGIN
    IF NOT pg_has_role(current_user, 'ledger_service', needed) THEN
        EXECUTE format('GRANT ledger_service TO %I', current_user);
    END IF;
    -- A rebuild makes its tables in a schema of its own.
    EXECUTE format('GRANT CREATE ON DATABASE %I TO ledger_service', current_database());
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION '%', SQLERRM USING HINT = format(
        'let a superuser run: GRANT ledger_service TO %I; '
        'GRANT CREATE ON DATABASE %I TO ledger_service',
        current_user, current_database()
    );
END $$
"""

_BESIDE_THE_PACKAGE = Path(__file__).parent.parent / "migrations"
_INSIDE_THE_PACKAGE = Path(__file__).parent / "_migrations"  # where a wheel has them


def migrate(url: str, *, revision: str = "head") -> None:
    """Bring the schema to a revision; to the newest with the state's tables.

    Safe to run twice, and from several places at once. Raises `DatabaseUnavailableError` or
    `SchemaError`; a migration that failed is undone, and can be run again.
    """
    # Alembic brings SQLAlchemy along, which only this command needs.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from sqlalchemy import create_engine, text  # noqa: PLC0415
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    def login() -> psycopg.Connection:
        connection = connect_as_login(url, "migrate")
        connection.autocommit = False
        return connection

    config = Config()
    config.set_main_option("script_location", str(_migrations_folder()))
    engine = create_engine("postgresql+psycopg://", creator=login, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(7402, 3)"))
            config.attributes["connection"] = connection
            if revision == "base":
                command.downgrade(config, revision)
            else:
                command.upgrade(config, revision)
    except psycopg.Error as error:
        raise _refused(error) from error
    except Exception as error:
        if isinstance(cause := error.__cause__, psycopg.Error):
            raise _refused(cause) from error
        raise
    if revision == "head":
        with connect_as_login(url, "migrate") as plain:
            try:
                _grant(plain)
                store.make_if_absent(plain)
            except psycopg.Error as error:
                raise _refused(error) from error


def _grant(connection: psycopg.Connection) -> None:
    for last in (False, False, False, True):
        try:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(7402, 3)")
                connection.execute(_GRANTS)
        except psycopg.errors.InternalError_:
            # "tuple concurrently updated": roles are the cluster's and the lock is the database's,
            # so another database that is migrated now can be in the way, for a moment.
            if last:
                raise
        else:
            return


def check(connection: psycopg.Connection) -> None:
    """Raise `SchemaError` unless the schema is the one that this version works with."""
    judge(current_version(connection))


def current_version(connection: psycopg.Connection) -> str | None:
    """Return the newest migration that the database has, or None if it has none."""
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    return str(row[0]) if row else None


def judge(version: str | None) -> None:
    """Raise `SchemaError` with a sentence unless `version` is the right one."""
    if version is None:
        raise SchemaError("the database was not prepared for Ledger: run `ledger migrate`")
    if version < SCHEMA_VERSION:
        raise SchemaError(
            f"the database's schema is {version} and this version of Ledger needs "
            f"{SCHEMA_VERSION}: run `ledger migrate`"
        )
    if version > SCHEMA_VERSION:
        raise SchemaError(
            f"the database's schema is {version}, newer than the {SCHEMA_VERSION} "
            "that this version of Ledger knows: install the newer version of Ledger"
        )


def _migrations_folder() -> Path:
    return _INSIDE_THE_PACKAGE if _INSIDE_THE_PACKAGE.is_dir() else _BESIDE_THE_PACKAGE


def _refused(error: psycopg.Error) -> SchemaError:
    words = error.diag.message_primary or str(error)
    hint = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
    return SchemaError(
        f"the migration was refused: {words}{hint}. Run it again when that is mended"
    )
