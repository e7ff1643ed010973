"""Webhook tokens in the database: created, listed, revoked, and read by those who check them."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct
from psycopg import Connection

from ledger.credentials import new_secret
from ledger.errors import UnknownSubjectError

PREFIX = "ldw_"
"""Begins each token, so that scanners for leaked secrets recognise one."""

MOST_LABS = 1_000
"""Labs that one token may name."""


class WebhookToken(Struct, frozen=True, kw_only=True):
    """A webhook token, without its secret. `labs` is None for a token of all labs."""

    id: int
    name: str | None
    labs: list[str] | None
    created_at: datetime
    created_by: str
    revoked_at: datetime | None
    revoked_by: str | None
    last_used_at: datetime | None


class NewWebhookToken(WebhookToken, frozen=True, kw_only=True):
    """A webhook token that was just created, with its secret, which is shown this once."""

    token: str


class ValidToken(Struct, frozen=True):
    """What is needed to check a token: SHA-256 of it, and the labs that it is for, None for all."""

    id: int
    digest: bytes
    labs: list[str] | None


_COLUMNS = "token_id, name, labs, created_at, created_by, revoked_at, revoked_by, last_used_at"

_CREATE = f"""
INSERT INTO ledger.webhook_token (digest, labs, name, created_at, created_by)
VALUES (%s, %s, %s, %s, %s)
RETURNING {_COLUMNS}
"""  # noqa: S608 -- our own columns

_LIST = f"""
SELECT {_COLUMNS}
FROM ledger.webhook_token
WHERE token_id > %s
ORDER BY token_id
LIMIT %s
"""  # noqa: S608 -- our own columns

_REVOKE = """
UPDATE ledger.webhook_token
SET
    revoked_at = %s,
    revoked_by = %s
WHERE token_id = %s AND revoked_at IS NULL
"""

_VALID = """
SELECT token_id, digest, labs
FROM ledger.webhook_token
WHERE revoked_at IS NULL
"""

# A token is never deleted, changed, or made valid again, so these tell whether the set has changed.
_STAMP = "SELECT count(*), max(token_id), count(revoked_at) FROM ledger.webhook_token"

_NOTE_USE = """
UPDATE ledger.webhook_token
SET last_used_at = %(at)s
WHERE token_id = ANY(%(ids)s) AND (last_used_at IS NULL OR last_used_at < %(at)s)
"""


def create(
    connection: Connection, *, labs: Iterable[str] | None, name: str | None, by: str
) -> NewWebhookToken:
    """Create a token for some labs, or for all if `labs` is None."""
    token = PREFIX + new_secret()
    digest = sha256(token.encode()).digest()
    some = None if labs is None else sorted(set(labs))
    row = connection.execute(_CREATE, (digest, some, name, datetime.now(UTC), by)).fetchone()
    assert row  # noqa: S101 -- the statement returns the row it inserted
    return NewWebhookToken(token=token, **msgspec.structs.asdict(_token(row)))


def list_tokens(connection: Connection, *, limit: int, after: int = 0) -> list[WebhookToken]:
    """Return tokens, valid and revoked, in order of their ids, after one."""
    return [_token(row) for row in connection.execute(_LIST, (after, limit))]


def find(connection: Connection, token_id: int) -> WebhookToken:
    """Return one token. Raises `UnknownSubjectError`."""
    found = list_tokens(connection, limit=1, after=token_id - 1)
    if not found or found[0].id != token_id:
        raise UnknownSubjectError(
            f"there is no webhook token {token_id}; `ledger tokens list` and "
            "GET /v1/webhook-tokens list those that there are"
        )
    return found[0]


def revoke(connection: Connection, token_id: int, *, by: str) -> WebhookToken:
    """Revoke a token; one that is revoked already stays as it is. Raises `UnknownSubjectError`."""
    connection.execute(_REVOKE, (datetime.now(UTC), by, token_id))
    return find(connection, token_id)


def read_valid(connection: Connection) -> list[ValidToken]:
    """Return all tokens that are valid."""
    return [ValidToken(*row) for row in connection.execute(_VALID)]


def has_valid(connection: Connection) -> bool:
    """Return whether any token is valid."""
    return connection.execute(_VALID + "LIMIT 1").fetchone() is not None


def stamp(connection: Connection) -> tuple[Any, ...] | None:
    """Return a value that changes whenever the set of valid tokens does."""
    return connection.execute(_STAMP).fetchone()


def note_use(connection: Connection, token_ids: Sequence[int], at: datetime) -> None:
    """Note that tokens were presented about that time."""
    connection.execute(_NOTE_USE, {"ids": list(token_ids), "at": at})


def _token(row: tuple[Any, ...]) -> WebhookToken:
    fields = dict(zip(WebhookToken.__struct_fields__, row, strict=True))
    for name in ("created_at", "revoked_at", "last_used_at"):
        fields[name] = fields[name] and fields[name].astimezone(UTC)
    return WebhookToken(**fields)
