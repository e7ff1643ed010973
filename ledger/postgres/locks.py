"""Advisory locks: which exist, what each protects, and how to take one."""

from enum import IntEnum

from psycopg import Connection

LOCK_CLASS = 7402
"""The first key of every lock, so that Ledger's locks cannot collide with another application's."""


class Lock(IntEnum):
    """The second key of a lock. The SQL functions of the log use `APPEND` by its number."""

    APPEND = 1
    """The log's lane: its holder alone may append, until its transaction ends."""

    PROJECTION = 2
    """Its holder alone writes the state, until its transaction ends."""

    MIGRATION = 3
    """Its holder alone changes the schema, until its transaction ends."""

    LEADER = 4
    """Held for a session by the projector that follows the log; other projectors wait."""

    REBUILD = 5
    """Held for a session by a rebuild; shared by verifications, which exclude it."""

    DECISION = 6
    """Held for a session by the operator's decision under way; the next one waits."""

    SEALS = 7
    """Held for a session by the process that seals the log; others leave it to that one."""

    FLABS = 31
    """Held for a session by who subscribes at Flabs or rotates its token; others are refused."""

    ARCHIVE = 8
    """Held for a session by the process that writes an archive of the log."""

    REFUSED_BOX = 21
    """Its holder alone adds refused deliveries to the box, until its transaction ends."""

    ALERT_OUTBOX = 11
    """Its holder alone adds alerts, until its transaction ends."""

    ALERT_SENDING = 12
    """Held for a session by the process that sends alerts."""


def lock_transaction(connection: Connection, lock: Lock) -> None:
    """Wait for a lock and hold it until the caller's transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_CLASS, lock.value))


def lock_session(connection: Connection, lock: Lock) -> None:
    """Wait for a lock and hold it until `unlock_session` or the end of the session."""
    connection.execute("SELECT pg_advisory_lock(%s, %s)", (LOCK_CLASS, lock.value))


def try_lock_session(connection: Connection, lock: Lock, *, shared: bool = False) -> bool:
    """Take a lock for the session if it is free; return whether it was."""
    query = (
        "SELECT pg_try_advisory_lock_shared(%s, %s)"
        if shared
        else "SELECT pg_try_advisory_lock(%s, %s)"
    )
    row = connection.execute(query, (LOCK_CLASS, lock.value)).fetchone()
    return bool(row and row[0])


def unlock_session(connection: Connection, lock: Lock, *, shared: bool = False) -> None:
    """Release a lock of the session."""
    query = (
        "SELECT pg_advisory_unlock_shared(%s, %s)"
        if shared
        else "SELECT pg_advisory_unlock(%s, %s)"
    )
    connection.execute(query, (LOCK_CLASS, lock.value))


HELD = """
EXISTS (
    SELECT
    FROM pg_locks l
    WHERE
        l.locktype = 'advisory'
        AND l.classid = {lock_class}
        AND l.objid = {lock}
        AND l.mode = 'ExclusiveLock'
        AND l.granted
        AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
)
"""


def held(lock: Lock) -> str:
    """Return the SQL condition that some session of this database holds a lock exclusively."""
    return HELD.format(lock_class=LOCK_CLASS, lock=lock.value)
