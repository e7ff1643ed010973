"""Comparison of the secrets that callers present: in constant time, with several valid at once."""

import hmac
from collections.abc import Iterable
from hashlib import sha256


class Secrets:
    """A set of valid secrets, kept as digests so that every comparison takes the same time."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._digests = [sha256(secret.encode()).digest() for secret in secrets]

    def accept(self, presented: bytes) -> bool:
        """Return whether one of the secrets was presented. All are compared, even after a match."""
        digest = sha256(presented).digest()
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
