"""The session settings that Ledger's statements depend on, held by every connection.

A database, a role or a reload can set any of them differently. A session's own value outlives
reloads, so each connection sets all of them first.
"""

SESSION_SETTINGS = {
    # How values are read and written.
    "client_encoding": "UTF8",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    # Names are qualified; nothing is found by accident.
    "search_path": "pg_catalog",
    # A transaction that waited for a lock must see what the lock's last holder committed.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # Whoever needs a limit sets it after these.
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    # The server gives up a client that is gone and could not say so, and frees what it held. By
    # default the locks of such a session stay for two hours, and for a quarter of an hour if an
    # answer or a notification was on its way, which stops keepalives. A client that reads nothing
    # for so long is given up, too.
    "tcp_user_timeout": "20s",
    "tcp_keepalives_idle": "4",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    # Plans are look-ups along indexes: compiling them costs more than it saves.
    "jit": "off",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_nestloop": "on",
    "plan_cache_mode": "auto",
}

KEEP_COMMITS_DURABLE = """
SELECT set_config('synchronous_commit', CASE setting WHEN 'off' THEN 'on' ELSE setting END, false)
FROM (SELECT reset_val AS setting FROM pg_settings WHERE name = 'synchronous_commit') server
"""
"""Sets what the server asks for, but never less than a local flush.

`reset_val` is the server's current configuration, whatever the session has set.
"""


def hold_settings() -> str:
    """Return the statements that set all of `SESSION_SETTINGS`, and durable commits."""
    settings = [f"SET {name} = {_quoted(value)}" for name, value in SESSION_SETTINGS.items()]
    return "; ".join([*settings, KEEP_COMMITS_DURABLE])


def _quoted(value: str) -> str:
    # DateStyle is a list of words; quoted as one, PostgreSQL takes it apart itself.
    return f"'{value}'"
