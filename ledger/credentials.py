"""Secrets that callers present: compared in constant time, several valid at once; and new ones."""

import hmac
import secrets
from collections.abc import Iterable
from hashlib import sha256


class Secrets:
    """A set of valid secrets, kept as digests so that every comparison takes the same time."""

    def __init__(self, valid: Iterable[str]) -> None:
        self._digests = [sha256(secret.encode()).digest() for secret in valid]

    @property
    def digests(self) -> list[bytes]:
        """The SHA-256 of each."""
        return [*self._digests]

    def accept(self, presented: bytes) -> bool:
        """Return whether one of the secrets was presented."""
        return self.accept_digest(sha256(presented).digest())

    def accept_digest(self, digest: bytes) -> bool:
        """Return whether one of the secrets has this digest; all are compared in any case."""
        accepted = False
        for known in self._digests:
            accepted |= hmac.compare_digest(digest, known)
        return accepted


def without_scheme(header: bytes) -> bytes:
    """Return the token of a header value that is `Bearer TOKEN` or `TOKEN`."""
    value = header.strip()
    if value[:7].lower() == b"bearer ":
        return value[7:].strip()
    return value


def new_secret() -> str:
    """Return 256 random bits as text that may stand in a header and in a path."""
    return secrets.token_urlsafe(32)
