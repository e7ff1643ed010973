"""The policy: which events are subscribed, and how the sender retries.

All processes must agree on it, so the database keeps it (`ledger.policy`), with who set it and
when. `ledger migrate` stores what its environment sets. Any other process adopts the database's
policy; if its own environment says something else, it refuses to start.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import structlog
from msgspec import Struct
from psycopg import Connection

from ledger.errors import DatabaseUnavailableError, SchemaError, SettingsError, one_line
from ledger.model.missing_events import retry_budget
from ledger.postgres.connect import connect
from ledger.postgres.locks import Lock, lock_transaction
from ledger.processes import user_name
from ledger.settings import POLICY, PREFIX, Settings, given_policy

_DEFAULT = "default"
"""Who set the policy with which a database begins."""

_CURRENT = """
SELECT events, retry_interval, retry_count, retry_timeout, ask_again_after, set_at, set_by
FROM ledger.policy
ORDER BY policy_id DESC
LIMIT 1
"""

_STORE = """
INSERT INTO ledger.policy (
    set_at, set_by, events, retry_interval, retry_count, retry_timeout, ask_again_after
)
VALUES (
    %(set_at)s, %(set_by)s, %(events)s, %(retry_interval)s, %(retry_count)s, %(retry_timeout)s,
    %(ask_again_after)s
)
"""


class Policy(Struct, frozen=True):
    """Subscription and retry policy, as the questions use it.

    `events` are subscribed for every lab that has no subscription of its own. `budget` is the time
    from the first attempt to the end of the last.
    """

    events: tuple[str, ...]
    retry_interval: timedelta
    retry_count: int
    budget: timedelta
    ask_again_after: timedelta

    @classmethod
    def of(cls, settings: Settings) -> "Policy":
        """Return the policy that settings describe, whatever the database holds."""
        return _policy({name: getattr(settings, name) for name in POLICY})


class StoredPolicy(Struct, frozen=True):
    """A row of ledger.policy: the settings by name, and who set them when (UTC)."""

    values: dict[str, Any]
    set_at: datetime
    set_by: str


def agree(url: str, settings: Settings, *, adopt: bool = True) -> Policy:
    """Return the database's policy.

    A database that still has the default adopts what `settings` set, unless `adopt` is false; then
    they are ignored. Raises `SettingsError` if they set something else than an operator set before,
    and what `connect` raises.
    """
    given = given_policy(settings)
    with connect(url, "policy") as connection:
        stored = read(connection)
        if _differing(stored, given) and stored.set_by == _DEFAULT:
            if not adopt:
                return _policy(stored.values)
            store(connection, given, by=user_name())
            stored = read(connection)
    _refuse(stored, given)
    return _policy(stored.values)


def check(connection: Connection, settings: Settings) -> None:
    """Raise `SettingsError` if `settings` set something else than the database's policy.

    A database that still has the default would adopt it.
    """
    stored = read(connection)
    given = given_policy(settings)
    if stored.set_by != _DEFAULT:
        _refuse(stored, given)


def agree_if_reachable(url: str, settings: Settings, *, adopt: bool = True) -> Policy:
    """Do what `agree` does; return the policy of `settings` if the database cannot be asked.

    Raises only `SettingsError`: a server starts without its database, or before its migration.
    """
    try:
        return agree(url, settings, adopt=adopt)
    except (DatabaseUnavailableError, SchemaError, psycopg.Error) as error:
        structlog.get_logger(__name__).warning(
            "the database has no policy to read; using that of the settings", error=one_line(error)
        )
        return Policy.of(settings)


def read(connection: Connection) -> StoredPolicy:
    """Return the policy in force."""
    row = connection.execute(_CURRENT).fetchone()
    assert row  # noqa: S101 -- the first migration stores one
    events, *rest, set_at, set_by = row
    return StoredPolicy(
        dict(zip(POLICY, (tuple(events), *rest), strict=True)), set_at.astimezone(UTC), set_by
    )


def store(connection: Connection, given: Mapping[str, Any], *, by: str) -> None:
    """Put settings of the policy in force; do nothing if they are in force already."""
    with connection.transaction():
        lock_transaction(connection, Lock.MIGRATION)
        stored = read(connection)
        values = {**stored.values, **given}
        if values != stored.values:
            row = {**values, "events": list(values["events"])}
            connection.execute(_STORE, {**row, "set_at": datetime.now(UTC), "set_by": by})


def _differing(stored: StoredPolicy, given: Mapping[str, Any]) -> list[str]:
    return [name for name, value in given.items() if stored.values[name] != value]


def _refuse(stored: StoredPolicy, given: Mapping[str, Any]) -> None:
    """Raise `SettingsError` naming the first setting that differs."""
    for name in _differing(stored, given):
        raise SettingsError(
            f"{PREFIX}{name.upper()} is {_shown(given[name])} here and "
            f"{_shown(stored.values[name])} in the database, set by {stored.set_by} at "
            f"{stored.set_at:%F %T} UTC. All processes must agree: remove it from this "
            "environment, or run `ledger migrate` with it to change it for all, and restart them"
        )


def _policy(values: dict[str, Any]) -> Policy:
    return Policy(
        events=values["events"],
        retry_interval=timedelta(seconds=values["retry_interval"]),
        retry_count=values["retry_count"],
        budget=retry_budget(
            interval=values["retry_interval"],
            count=values["retry_count"],
            timeout=values["retry_timeout"],
        ),
        ask_again_after=timedelta(seconds=values["ask_again_after"]),
    )


def _shown(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)
