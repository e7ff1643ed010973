"""Checks of the PostgreSQL server: version, durability, clock, replication, upkeep, backup."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row

from ledger.doctor.findings import Finding, ok, unknown, warning, wrong
from ledger.doctor.machine import check_disk, unknown_disk
from ledger.operations.render.words import lasting

OLDEST, NEWEST = 15, 18
"""Major versions of PostgreSQL that the tests run on."""

CLOCK_WARNING = timedelta(seconds=2)
CLOCK_WRONG = timedelta(seconds=60)
"""Half of the time between two attempts of the sender: loss windows would be wrong by as much."""

ARCHIVED_LATELY = timedelta(hours=24)
STANDBY_BYTES = 1024**3
SLOT_BYTES = 10 * 1024**3
CONNECTIONS = 0.8
OLD_TRANSACTION = timedelta(minutes=10)
OLDEST_XID = 1_000_000_000
"""Transactions. PostgreSQL stops taking writes at about two thousand million."""

_SETTINGS = """
SELECT name, CASE WHEN name = 'synchronous_commit' THEN reset_val ELSE setting END
FROM pg_catalog.pg_settings
WHERE name IN (
    'fsync', 'full_page_writes', 'synchronous_commit', 'autovacuum', 'track_counts', 'archive_mode',
    'synchronous_standby_names', 'max_connections', 'data_directory'
)
"""

_STATE = """
SELECT
    pg_catalog.pg_is_in_recovery() AS is_standby,
    pg_catalog.current_setting('transaction_read_only') = 'on' AS is_read_only,
    pg_catalog.pg_database_size(pg_catalog.current_database()) AS size,
    pg_catalog.inet_server_addr() IS NULL
        OR pg_catalog.inet_server_addr() = pg_catalog.inet_client_addr() AS is_local,
    (
        SELECT pg_catalog.age(d.datfrozenxid)
        FROM pg_catalog.pg_database d
        WHERE d.datname = pg_catalog.current_database()
    ) AS xid_age,
    (SELECT count(*) FROM pg_catalog.pg_stat_activity a WHERE a.backend_type = 'client backend')
        AS connections,
    (
        SELECT pg_catalog.clock_timestamp() - min(a.xact_start)
        FROM pg_catalog.pg_stat_activity a
        WHERE a.datname = pg_catalog.current_database() AND a.state LIKE 'idle in transaction%'
    ) AS idle_transaction
"""

_STANDBYS = """
SELECT
    s.application_name,
    s.sync_state,
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_flush_lsn(), s.flush_lsn) AS behind
FROM pg_catalog.pg_stat_replication s
WHERE s.state = 'streaming'
"""

_SLOTS = """
SELECT
    s.slot_name,
    s.wal_status = 'lost' AS is_lost,
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn) AS kept
FROM pg_catalog.pg_replication_slots s
WHERE NOT s.active
"""

_ARCHIVER = """
SELECT
    a.last_archived_time,
    a.last_failed_time IS NOT NULL
        AND a.last_failed_time > coalesce(a.last_archived_time, '-infinity') AS fails
FROM pg_catalog.pg_stat_archiver a
"""


class _State(Struct, frozen=True):
    """The row of `_STATE`; sizes in bytes, ages in transactions."""

    is_standby: bool
    is_read_only: bool
    size: int
    is_local: bool
    xid_age: int
    connections: int
    idle_transaction: timedelta | None


class _Standby(Struct, frozen=True):
    """A row of `_STANDBYS`: `behind` in bytes, null for who may not see it."""

    application_name: str
    sync_state: str | None
    behind: Decimal | None


class _Slot(Struct, frozen=True):
    """A row of `_SLOTS`: `kept` in bytes."""

    slot_name: str
    is_lost: bool | None
    kept: Decimal | None


def check_server(connection: Connection) -> Iterator[Finding]:
    """Check the server of a connection. Raises `psycopg.Error`."""
    settings: dict[str, str] = dict(connection.execute(_SETTINGS).fetchall())
    with connection.cursor(row_factory=class_row(_State)) as cursor:
        state = cursor.execute(_STATE).fetchone()
    assert state  # noqa: S101 -- the query gives one row
    yield _check_version(connection)
    if state.is_standby or state.is_read_only:
        what = "a standby" if state.is_standby else "read-only"
        yield wrong(
            "writable",
            f"the database is {what}: every delivery is refused or spooled",
            "connect LEDGER_DATABASE_URL to a primary that takes writes; for reads there is "
            "LEDGER_READ_DATABASE_URL",
        )
    else:
        yield ok("writable", "the database takes writes")
    yield from _check_durability(settings)
    yield _check_clock(connection)
    yield _check_disk(settings, local=state.is_local, size=state.size)
    yield _check_connections(state.connections, int(settings["max_connections"]))
    yield from _check_upkeep(settings, state.xid_age, state.idle_transaction)
    if not state.is_standby:
        yield from _check_replication(connection, settings["synchronous_standby_names"])
        yield _check_backup(connection, settings["archive_mode"])


def _check_version(connection: Connection) -> Finding:
    major = connection.info.server_version // 10_000
    words = f"PostgreSQL is {connection.info.parameter_status('server_version')}"
    if major < OLDEST:
        return wrong("version", words, f"use {OLDEST} to {NEWEST}")
    if major > NEWEST:
        return warning("version", words, f"Ledger is tested on {OLDEST} to {NEWEST}")
    return ok("version", words)


def _check_durability(settings: dict[str, str]) -> Iterator[Finding]:
    off = [name for name in ("fsync", "full_page_writes") if settings[name] == "off"]
    for name in off:
        yield wrong(
            "durability",
            f"{name} is off: a crash of the machine destroys acknowledged events",
            f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();",
        )
    if settings["synchronous_commit"] == "off":
        yield warning(
            "durability",
            "synchronous_commit is off on the server; Ledger's sessions commit with on",
            "ALTER SYSTEM RESET synchronous_commit, unless another application needs it",
        )
    elif not off:
        yield ok("durability", f"commits are {settings['synchronous_commit']}, and flushed")


def _check_clock(connection: Connection) -> Finding:
    before = datetime.now(UTC)
    row = connection.execute("SELECT pg_catalog.clock_timestamp()").fetchone()
    after = datetime.now(UTC)
    assert row  # noqa: S101 -- a function's result is one row
    # Between the two readings here is all that can be known.
    apart = max(before - row[0], row[0] - after, timedelta())
    words = (
        f"this machine's clock and the database's are at least {apart.total_seconds():.1f} s apart"
    )
    advice = "let NTP set both: times of reception and loss windows depend on them"
    if apart >= CLOCK_WRONG:
        return wrong("clock", words, advice)
    if apart >= CLOCK_WARNING:
        return warning("clock", words, advice)
    return ok("clock", "this machine's clock and the database's agree")


def _check_disk(settings: dict[str, str], *, local: bool, size: int) -> Finding:
    folder = settings.get("data_directory")  # only for who may see it
    try:
        if local and folder and Path(folder).is_dir():
            return check_disk(Path(folder), size)
    except OSError:
        pass
    return unknown_disk(size)


def _check_connections(used: int, most: int) -> Finding:
    words = f"{used} of {most} connections are in use"
    if used > CONNECTIONS * most:
        return warning("connections", words, "raise max_connections, or see who holds them")
    return ok("connections", words)


def _check_upkeep(
    settings: dict[str, str], xid_age: int, idle: timedelta | None
) -> Iterator[Finding]:
    off = [name for name in ("autovacuum", "track_counts") if settings[name] == "off"]
    for name in off:
        yield wrong(
            "autovacuum",
            f"{name} is off: the state's tables grow without end, and plans are guesses",
            f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();",
        )
    if xid_age > OLDEST_XID:
        yield wrong(
            "autovacuum",
            f"the oldest transaction is {xid_age:,} old; at 2,100,000,000 PostgreSQL stops",
            "end what holds it (old transactions, slots), then VACUUM the database",
        )
    elif not off:
        yield ok("autovacuum", "autovacuum is on")
    if idle is not None and idle > OLD_TRANSACTION:
        yield warning(
            "transactions",
            f"a session has been idle in a transaction for {lasting(idle)}",
            "find it in pg_stat_activity and end it: it keeps old rows alive",
        )


def _check_replication(connection: Connection, names: str) -> Iterator[Finding]:
    with connection.cursor(row_factory=class_row(_Standby)) as cursor:
        standbys = cursor.execute(_STANDBYS).fetchall()
    with connection.cursor(row_factory=class_row(_Slot)) as cursor:
        slots = cursor.execute(_SLOTS).fetchall()
    if names and not any(each.sync_state in {"sync", "quorum"} for each in standbys):
        yield wrong(
            "replication",
            f"commits wait for a standby of {names!r}, and none streams",
            "start the standby, or take it out of synchronous_standby_names",
        )
    elif not standbys:
        yield ok("replication", "no standby streams, and none is waited for")
    for each in standbys:
        behind = each.behind
        words = f"the standby {each.application_name} streams"
        if behind is not None and behind > STANDBY_BYTES:
            yield warning(
                "replication",
                f"{words}, {behind / 1024**3:,.1f} GiB behind",
                "see its log and disk",
            )
        else:
            yield ok("replication", words)
    for slot in slots:
        if slot.is_lost or (slot.kept or 0) > SLOT_BYTES:
            yield warning(
                "replication",
                f"the replication slot {slot.slot_name} is not read"
                + (", and its WAL is gone" if slot.is_lost else ", and keeps WAL for it"),
                "drop it, or start what reads it: its WAL fills the disk",
            )


def _check_backup(connection: Connection, archive_mode: str) -> Finding:
    advice = "docs/how-to/back-up.md says how; restore a backup once before you need it"
    if archive_mode == "off":
        return unknown(
            "backup", "PostgreSQL archives no WAL, and dumps cannot be seen from here", advice
        )
    try:
        row = connection.execute(_ARCHIVER).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return unknown("backup", "the state of WAL archiving is hidden from this user", advice)
    assert row  # noqa: S101 -- the view has one row
    archived_at, fails = row
    if fails:
        return wrong(
            "backup", "archiving WAL fails", "PostgreSQL's log has the output of archive_command"
        )
    if archived_at is None:
        return warning("backup", "no WAL was archived yet", advice)
    ago = datetime.now(UTC) - archived_at
    words = f"the last WAL was archived {lasting(ago)} ago"
    if ago > ARCHIVED_LATELY:
        return warning("backup", words, "set archive_timeout, and look at PostgreSQL's log")
    return ok("backup", words)
