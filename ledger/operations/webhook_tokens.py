"""Webhook tokens in the database: created, listed, revoked, and read by those who check them."""

import secrets
import string
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, LiteralString

import msgspec
import structlog
from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.credentials import new_secret
from ledger.errors import UnknownSubjectError
from ledger.model.operators import Labs, Operator, as_array

PREFIX = "ldw_"
"""Begins each token, so that scanners for leaked secrets recognise one."""

MOST_LABS = 1_000
"""Labs that one token may name."""

_ID_LENGTH = 10
_ID_ALPHABET = string.digits + string.ascii_lowercase

_log = structlog.get_logger(__name__)


class WebhookToken(Struct, frozen=True, kw_only=True):
    """A webhook token, without its secret. `labs` is null for one that is for all labs."""

    token_id: str
    name: str | None
    labs: tuple[str, ...] | None
    created_at: datetime
    created_by: str
    created_by_key: str | None
    revoked_at: datetime | None
    revoked_by: str | None
    revoked_by_key: str | None
    last_used_at: datetime | None


class NewWebhookToken(WebhookToken, frozen=True, kw_only=True):
    """A webhook token with its secret, which is shown only now: it is not stored."""

    token: str


class ValidToken(Struct, frozen=True):
    """What is needed to check a token: SHA-256 of it, and the labs that it is for, None for all."""

    token_id: str
    digest: bytes
    labs: list[str] | None


_COLUMNS: LiteralString = """
    t.token_id, t.name, t.labs, t.created_at, t.created_by, t.created_by_key, t.revoked_at,
    t.revoked_by, t.revoked_by_key, t.last_used_at
"""

_CREATE = SQL("""
INSERT INTO ledger.webhook_token AS t (
    token_id, digest, labs, name, created_at, created_by, created_by_key
)
VALUES (%s, %s, %s, %s, %s, %s, %s)
RETURNING {columns}
""").format(columns=SQL(_COLUMNS))

_ADOPT = """
INSERT INTO ledger.webhook_token AS t (
    token_id, digest, labs, name, created_at, created_by, created_by_key
)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (digest) DO NOTHING
"""

_BY_DIGEST = SQL("SELECT {columns} FROM ledger.webhook_token t WHERE t.digest = %s").format(
    columns=SQL(_COLUMNS)
)

_REVOKED = """
SELECT t.digest
FROM ledger.webhook_token t
WHERE t.digest = ANY(%s) AND t.revoked_at IS NOT NULL
"""

_LIST = SQL("""
SELECT {columns}
FROM ledger.webhook_token t
WHERE
    (%(labs)s::text[] IS NULL OR t.labs <@ %(labs)s::text[])
    AND (%(after)s::text IS NULL OR t.token_id > %(after)s)
    AND (%(token_id)s::text IS NULL OR t.token_id = %(token_id)s)
ORDER BY t.token_id
LIMIT %(limit)s
""").format(columns=SQL(_COLUMNS))

_REVOKE = """
UPDATE ledger.webhook_token
SET
    revoked_at = %s,
    revoked_by = %s,
    revoked_by_key = %s
WHERE token_id = %s AND revoked_at IS NULL
"""

_VALID = """
SELECT token_id, digest, labs
FROM ledger.webhook_token
WHERE revoked_at IS NULL
"""

# A token is never deleted, changed, or made valid again, so these tell whether the set has changed.
_STAMP = "SELECT count(*), count(revoked_at) FROM ledger.webhook_token"

_NOTE_USE = """
UPDATE ledger.webhook_token
SET last_used_at = %(at)s
WHERE token_id = ANY(%(ids)s) AND (last_used_at IS NULL OR last_used_at < %(at)s)
"""


def create_token(
    connection: Connection, *, labs: Labs, name: str | None, by: Operator
) -> NewWebhookToken:
    """Create a token for some labs, or for all. Whether they may is the caller's business."""
    token = PREFIX + new_secret()
    token_id = _new_id()
    digest = sha256(token.encode()).digest()
    some = None if labs is None else sorted(set(labs))
    values = (token_id, digest, some, name, datetime.now(UTC), by.name, by.key)
    row = connection.execute(_CREATE, values).fetchone()
    assert row  # noqa: S101 -- as RETURNING promises
    made = _item(row)
    _log.info("webhook token created", token_id=token_id, labs=made.labs, by=by.name, by_key=by.key)
    return NewWebhookToken(token=token, **msgspec.structs.asdict(made))


def adopt_token(connection: Connection, secret: str, *, name: str, by: Operator) -> WebhookToken:
    """Give a token of the settings a row, so that its use is noted and it can be revoked.

    Returns the row that it has, if it has one: it may be revoked.
    """
    digest = sha256(secret.encode()).digest()
    values = (_new_id(), digest, None, name, datetime.now(UTC), by.name, by.key)
    connection.execute(_ADOPT, values)
    row = connection.execute(_BY_DIGEST, (digest,)).fetchone()
    assert row  # noqa: S101 -- a row is never deleted
    return _item(row)


def is_revoked(connection: Connection, secret: str) -> bool:
    """Return whether a token was revoked, one of the settings perhaps."""
    digest = sha256(secret.encode()).digest()
    return bool(read_revoked(connection, [digest]))


def read_revoked(connection: Connection, digests: Sequence[bytes]) -> set[bytes]:
    """Return which of some digests are of tokens that were revoked."""
    return {digest for (digest,) in connection.execute(_REVOKED, (list(digests),))}


def list_tokens(
    connection: Connection, *, labs: Labs = None, after: str | None = None, limit: int
) -> list[WebhookToken]:
    """Return tokens in the order of their ids, revoked ones too.

    With `labs`: those that are for none but these labs. `after` is the id of the last one seen.
    """
    values = {"labs": as_array(labs), "after": after, "token_id": None, "limit": limit}
    return [_item(row) for row in connection.execute(_LIST, values)]


def find_token(connection: Connection, token_id: str, *, labs: Labs = None) -> WebhookToken:
    """Return a token. Raises `UnknownSubjectError` if there is none, or none for `labs` alone."""
    values = {"labs": as_array(labs), "after": None, "token_id": token_id, "limit": 1}
    row = connection.execute(_LIST, values).fetchone()
    if row is None:
        raise UnknownSubjectError(
            f"there is no webhook token {token_id!r}; `ledger tokens list` and "
            "GET /v1/webhook-tokens list those there are"
        )
    return _item(row)


def revoke_token(connection: Connection, token_id: str, *, by: Operator) -> WebhookToken:
    """Revoke a token; one that was revoked before stays as it is. Raises what `find_token` does."""
    find_token(connection, token_id, labs=by.labs)
    connection.execute(_REVOKE, (datetime.now(UTC), by.name, by.key, token_id))
    _log.info("webhook token revoked", token_id=token_id, by=by.name, by_key=by.key)
    return find_token(connection, token_id)


def read_valid(connection: Connection) -> list[ValidToken]:
    """Return all tokens that are valid."""
    return [ValidToken(*row) for row in connection.execute(_VALID)]


def has_valid(connection: Connection) -> bool:
    """Return whether any token is valid."""
    return connection.execute(_VALID + "LIMIT 1").fetchone() is not None


def stamp(connection: Connection) -> tuple[Any, ...] | None:
    """Return a value that changes whenever the set of valid tokens does."""
    return connection.execute(_STAMP).fetchone()


def note_use(connection: Connection, token_ids: Sequence[str], at: datetime) -> None:
    """Note that tokens were presented about that time."""
    connection.execute(_NOTE_USE, {"ids": list(token_ids), "at": at})


def _new_id() -> str:
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))


def _item(row: tuple[Any, ...]) -> WebhookToken:
    fields: dict[str, Any] = dict(zip(WebhookToken.__struct_fields__, row, strict=True))
    for name in ("created_at", "revoked_at", "last_used_at"):
        fields[name] = fields[name] and fields[name].astimezone(UTC)
    fields["labs"] = fields["labs"] and tuple(fields["labs"])
    return WebhookToken(**fields)
