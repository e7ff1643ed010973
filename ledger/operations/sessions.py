"""Logins to the page: an API key, or a link that works once, is exchanged for a session.

A session's token is in the browser's cookie alone; the database has its SHA-256. `proof` binds a
session to one secret of one key: it can only be checked by who knows the token and the digest of
the key, so the table helps nobody to guess a key, and a session ends with the secret it came from.
"""

import hmac
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from psycopg import Connection

from ledger.credentials import new_secret

LASTING = timedelta(hours=12)
"""How long a session is valid."""

LINK_LASTING = timedelta(minutes=15)
"""How long a link can be used."""

_INSERT = """
INSERT INTO ledger.session (digest, key_id, proof, operator, created_at, expires_at)
VALUES (%s, %s, %s, %s, %s, %s)
"""

_CLEAN = "DELETE FROM ledger.session WHERE expires_at <= %s"

_CLEAN_LINKS = "DELETE FROM ledger.login_link WHERE expires_at <= %s"

_INSERT_LINK = """
INSERT INTO ledger.login_link (digest, key_id, proof, operator, expires_at)
VALUES (%s, %s, %s, %s, %s)
"""

# Deleted as it is read, so that of two who use it at once one is refused.
_TAKE_LINK = """
DELETE FROM ledger.login_link
WHERE digest = %s AND expires_at > %s
RETURNING key_id, proof, operator
"""

READ = """
SELECT s.key_id, s.proof, s.operator
FROM ledger.session s
WHERE s.digest = %s AND s.expires_at > %s
"""
"""Reads the row of a `Login`, by the digest of the token and the current time."""


class Login(NamedTuple):
    """What a token stands for: a key's id, the proof of its secret, and a person's name."""

    key_id: str
    proof: bytes
    operator: str


def digest_of(token: str) -> bytes:
    """Return what is stored of a token: 32 bytes."""
    return sha256(token.encode(errors="surrogateescape")).digest()


def is_proof(proof: bytes, token: str, key_digests: Iterable[bytes]) -> bool:
    """Return whether a proof was made with a token and one of the digests of a key's secrets."""
    return any(hmac.compare_digest(proof, _proof(token, digest)) for digest in key_digests)


def begin(connection: Connection, key_id: str, key_digest: bytes, *, operator: str) -> str:
    """Begin a session of a key; return its token. Sessions that have expired are deleted."""
    now = datetime.now(UTC)
    token = new_secret()
    connection.execute(_CLEAN, (now,))
    connection.execute(
        _INSERT,
        (digest_of(token), key_id, _proof(token, key_digest), operator, now, now + LASTING),
    )
    return token


def end(connection: Connection, token: str) -> None:
    """End a session; one that has ended stays so."""
    connection.execute("DELETE FROM ledger.session WHERE digest = %s", (digest_of(token),))


def make_link(connection: Connection, key_id: str, key_digest: bytes, *, operator: str) -> str:
    """Return the token of a link that logs in once, for `LINK_LASTING`."""
    now = datetime.now(UTC)
    token = new_secret()
    connection.execute(_CLEAN_LINKS, (now,))
    values = (digest_of(token), key_id, _proof(token, key_digest), operator, now + LINK_LASTING)
    connection.execute(_INSERT_LINK, values)
    return token


def take_link(connection: Connection, token: str) -> Login | None:
    """Use up a link; None if it was used, has expired or never was."""
    row = connection.execute(_TAKE_LINK, (digest_of(token), datetime.now(UTC))).fetchone()
    return Login(row[0], bytes(row[1]), row[2]) if row else None


def _proof(token: str, key_digest: bytes) -> bytes:
    return sha256(token.encode(errors="surrogateescape") + key_digest).digest()
