"""API keys: created, listed, rotated and revoked. Who may do so is the caller's business.

A key is `ldg_<id>_<secret><checksum>`. The id finds its row, the checksum tells a typing error from
a key that is not known. A key is shown once and stored as SHA-256 only: 40 random characters cannot
be guessed, so a slow hash would protect nothing.
"""

import re
import secrets
import string
import zlib
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Literal, LiteralString

import structlog
from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.errors import QuestionError, UnknownSubjectError
from ledger.model.operators import Labs, Operator, as_array

Scope = Literal["read", "operate", "admin"]
"""What a key may do; each scope includes those before it."""

SCOPES: tuple[Scope, ...] = ("read", "operate", "admin")

DEFAULT_OVERLAP = 86_400
"""Seconds that the old secret of a rotated key stays valid, unless told otherwise."""

LONGEST_OVERLAP = 30 * 86_400

_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_ID_ALPHABET = string.digits + string.ascii_lowercase
_ID_LENGTH = 10
_SECRET_LENGTH = 40
_CHECKSUM_LENGTH = 6
_KEY = re.compile(
    rf"(ldg_([0-9a-z]{{{_ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}})"
    rf"([0-9A-Za-z]{{{_CHECKSUM_LENGTH}}})"
)

_log = structlog.get_logger(__name__)


class ApiKey(Struct, frozen=True):
    """An API key, without its secret. Times are UTC.

    `labs` is null for a key that is for all labs. `previous_valid_until` is until when the secret
    before the last rotation is valid.
    """

    key_id: str
    name: str
    scope: Scope
    labs: tuple[str, ...] | None
    created_at: datetime
    created_by: str
    created_by_key: str | None
    expires_at: datetime | None
    previous_valid_until: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewApiKey(ApiKey, frozen=True, kw_only=True):
    """An API key with its secret, which is shown only now: it is not stored."""

    key: str


class Grant(Struct, frozen=True):
    """What a new key may do, and until when."""

    scope: Scope
    labs: Labs = None
    expires_at: datetime | None = None


class Presented(Struct, frozen=True):
    """What is known of a key by its form alone."""

    key_id: str
    digest: bytes


_COLUMNS: LiteralString = """
    k.key_id, k.name, k.scope, k.labs, k.created_at, k.created_by, k.created_by_key, k.expires_at,
    k.previous_valid_until, k.last_used_at, k.revoked_at
"""

_INSERT = SQL("""
INSERT INTO ledger.api_key AS k (
    key_id, name, scope, labs, created_at, created_by, created_by_key, expires_at, digest
)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
RETURNING {columns}
""").format(columns=SQL(_COLUMNS))

_LIST = SQL("""
SELECT {columns}
FROM ledger.api_key k
WHERE
    (%(labs)s::text[] IS NULL OR k.labs <@ %(labs)s::text[])
    AND (%(after)s::text IS NULL OR k.key_id > %(after)s)
    AND (%(key_id)s::text IS NULL OR k.key_id = %(key_id)s)
ORDER BY k.key_id
LIMIT %(limit)s
""").format(columns=SQL(_COLUMNS))

# The secret before last ends with this: two are valid at a time.
_ROTATE = SQL("""
UPDATE ledger.api_key k
SET digest = %(digest)s, previous_digest = k.digest, previous_valid_until = %(until)s
WHERE k.key_id = %(key_id)s AND k.revoked_at IS NULL
RETURNING {columns}
""").format(columns=SQL(_COLUMNS))

_REVOKE = SQL("""
UPDATE ledger.api_key k
SET revoked_at = coalesce(k.revoked_at, %(now)s)
WHERE k.key_id = %(key_id)s
RETURNING {columns}
""").format(columns=SQL(_COLUMNS))


def make_key(key_id: str) -> str:
    """Return a new key with this id."""
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
    begin = f"ldg_{key_id}_{secret}"
    return begin + _checksum(begin)


def read_key(text: str) -> Presented | None:
    """Return what a key says of itself; None if it has not the form or the checksum of one."""
    found = _KEY.fullmatch(text)
    if found is None or _checksum(found[1]) != found[3]:
        return None
    return Presented(found[2], digest_of(text))


def digest_of(key: str) -> bytes:
    """Return what is stored of a key: 32 bytes."""
    return sha256(key.encode()).digest()


def create_key(connection: Connection, name: str, grant: Grant, *, by: Operator) -> NewApiKey:
    """Create a key. Raises `QuestionError` for a grant that makes no sense."""
    now = datetime.now(UTC)
    if grant.expires_at is not None and grant.expires_at <= now:
        raise QuestionError("expires_at is past: the key would never be valid")
    if grant.labs == ():
        raise QuestionError("labs is empty: name at least one lab, or leave it out for all labs")
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
    key = make_key(key_id)
    labs = None if grant.labs is None else sorted(set(grant.labs))
    values = (
        key_id, name, grant.scope, labs, now, by.name, by.key, grant.expires_at, digest_of(key),
    )  # fmt: skip
    row = connection.execute(_INSERT, values).fetchone()
    assert row  # noqa: S101 -- as RETURNING promises
    made = _item(row)
    _log.info(
        "API key created", key_id=key_id, name=name, scope=made.scope, labs=made.labs,
        by=by.name, by_key=by.key,
    )  # fmt: skip
    return _with_secret(made, key)


def list_keys(
    connection: Connection, *, labs: Labs = None, after: str | None = None, limit: int
) -> list[ApiKey]:
    """Return keys in the order of their ids, revoked and expired ones too.

    With `labs`: those that are for none but these labs. `after` is the id of the last one seen.
    """
    values = {"labs": as_array(labs), "after": after, "key_id": None, "limit": limit}
    return [_item(row) for row in connection.execute(_LIST, values)]


def find_key(connection: Connection, key_id: str, *, labs: Labs = None) -> ApiKey:
    """Return a key. Raises `UnknownSubjectError` if there is none, or none for `labs` alone."""
    values = {"labs": as_array(labs), "after": None, "key_id": key_id, "limit": 1}
    row = connection.execute(_LIST, values).fetchone()
    if row is None:
        raise UnknownSubjectError(
            f"there is no API key {key_id!r}; `ledger keys list` and GET /v1/keys list those there "
            "are"
        )
    return _item(row)


def rotate_key(
    connection: Connection, key_id: str, *, overlap_seconds: int, by: Operator
) -> NewApiKey:
    """Give a key a new secret; the old one stays valid for `overlap_seconds`.

    Raises `QuestionError` for a key that was revoked or has expired.
    """
    now = datetime.now(UTC)
    found = find_key(connection, key_id, labs=by.labs)
    if found.expires_at is not None and found.expires_at <= now:
        raise QuestionError(f"the API key {key_id} has expired: create another one")
    key = make_key(key_id)
    values = {
        "key_id": key_id,
        "digest": digest_of(key),
        "until": now + timedelta(seconds=overlap_seconds),
    }
    row = connection.execute(_ROTATE, values).fetchone()
    if row is None:
        raise QuestionError(f"the API key {key_id} was revoked: create another one")
    rotated = _item(row)
    _log.info(
        "API key rotated", key_id=key_id, by=by.name, by_key=by.key,
        previous_valid_until=str(rotated.previous_valid_until),
    )  # fmt: skip
    return _with_secret(rotated, key)


def revoke_key(connection: Connection, key_id: str, *, by: Operator) -> ApiKey:
    """End a key with both its secrets; one that was revoked before stays as it is."""
    find_key(connection, key_id, labs=by.labs)
    row = connection.execute(_REVOKE, {"key_id": key_id, "now": datetime.now(UTC)}).fetchone()
    assert row  # noqa: S101 -- it was found, and no row is ever deleted
    _log.info("API key revoked", key_id=key_id, by=by.name, by_key=by.key)
    return _item(row)


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = []
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def _item(row: tuple[object, ...]) -> ApiKey:
    values = (value.astimezone(UTC) if isinstance(value, datetime) else value for value in row)
    return ApiKey(*(tuple(value) if isinstance(value, list) else value for value in values))  # type: ignore[arg-type]


def _with_secret(made: ApiKey, key: str) -> NewApiKey:
    return NewApiKey(**{name: getattr(made, name) for name in ApiKey.__struct_fields__}, key=key)
