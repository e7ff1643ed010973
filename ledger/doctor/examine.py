"""Runs all checks in an order in which the first wrong one explains the others."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import psycopg

from ledger.doctor.findings import Finding, ok, wrong
from ledger.doctor.installation import NOTHING_WORKS, check_installation, check_schema
from ledger.doctor.machine import check_machine
from ledger.doctor.running import check_running
from ledger.doctor.server import check_server
from ledger.errors import (
    DatabaseUnavailableError,
    PoolerError,
    SchemaError,
    SettingsError,
    one_line,
)
from ledger.postgres.connect import connect, connect_as_login
from ledger.settings import Settings


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield what each check found. Reads only; needs no right that the service does not have."""
    yield from check_machine(settings, datetime.now(UTC))
    try:
        yield from _examine_database(settings)
    except psycopg.Error as error:
        yield wrong(
            "database",
            f"the database stopped answering: {one_line(error)}",
            "run `ledger doctor` again",
        )


def _examine_database(settings: Settings) -> Iterator[Finding]:
    try:
        url = settings.require_database()
        login = connect_as_login(url, "doctor")
    except (SettingsError, DatabaseUnavailableError, PoolerError) as error:
        yield wrong("database", str(error), "nothing in the database could be checked")
        return
    with closing(login):
        yield ok("database", "it answers, and no pooler lends out its sessions")
        yield from check_server(login)
    try:
        service = connect(url, "doctor")
    except (DatabaseUnavailableError, SchemaError) as error:
        yield wrong("schema", str(error), NOTHING_WORKS)
        return
    with closing(service):
        found = check_schema(service)
        yield found
        if found.verdict == "wrong":
            return
        yield from check_installation(service, settings)
        yield from check_running(service, settings, datetime.now(UTC))
