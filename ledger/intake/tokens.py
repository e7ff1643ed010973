"""The webhook tokens that are valid now, in memory: those of the settings and of the database.

A thread of its own, with a connection of its own, reads those of the database: at the start, every
few seconds, and when the database notifies that they changed. Without the database the last known
ones stay valid.
"""

import threading
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256

import psycopg
import structlog
from msgspec import Struct
from psycopg import Connection

from ledger.credentials import Secrets
from ledger.errors import LedgerError, one_line
from ledger.operations import webhook_tokens
from ledger.operations.webhook_tokens import ValidToken
from ledger.postgres.connect import connect

LOOK_SECONDS = 4.0
"""Between two reads, if no notification comes."""

RETRY_SECONDS = 1.0
"""Between two attempts to reach the database."""

BURST_SECONDS = 0.1
"""Changes that are made within this time are read at once."""

NOTE_SECONDS = 60.0
"""Between two notes of which tokens were used."""

STATEMENT_TIMEOUT = 5_000
"""Milliseconds."""

_log = structlog.get_logger(__name__)


class Token(Struct, frozen=True):
    """A valid token. `labs` is None if it is for all; `token_id` is '' for one of the settings."""

    token_id: str
    labs: frozenset[str] | None

    def may_bring(self, lab_id: str) -> bool:
        """Return whether a delivery of a lab may come with this token.

        `lab_id` is empty if the body names no lab. Such a body is taken: an authenticated sender is
        never refused for what cannot be read, and the body belongs to no other lab.
        """
        return self.labs is None or not lab_id or lab_id in self.labs


_OF_SETTINGS = Token("", None)


class WebhookTokens:
    """Finds the token that a caller presents."""

    def __init__(self, of_settings: Iterable[str] = ()) -> None:
        self._of_settings = Secrets(of_settings)
        self._stored: dict[bytes, Token] = {}
        self._revoked: frozenset[bytes] = frozenset()
        self._used: set[str] = set()
        self.complete = False
        """Whether those of the database are known. Until then a token that is not found may be
        valid all the same."""

    def find(self, presented: bytes) -> Token | None:
        """Return the valid token that was presented, or None.

        Those of the settings, which a person may have chosen, are compared in constant time. Those
        of the database are looked up by digest. The time of that can at most betray a part of a
        digest, which says nothing useful about a secret of 256 random bits; nobody can search for
        the rest of it, nor choose what digest a guess has.
        """
        digest = sha256(presented).digest()
        of_settings = self._of_settings.accept_digest(digest)
        token = self._stored.get(digest)
        if token is not None:
            self._used.add(token.token_id)
            return token
        return _OF_SETTINGS if of_settings and digest not in self._revoked else None

    @property
    def digests_of_settings(self) -> list[bytes]:
        """The SHA-256 of each token of the settings."""
        return self._of_settings.digests

    def replace_stored(self, valid: Iterable[ValidToken], revoked: Iterable[bytes] = ()) -> None:
        """Make these the valid tokens of the database, at once for whoever looks next.

        `revoked` are the digests of tokens that are refused although the settings have them: a
        rotation has replaced them.
        """
        self._revoked = frozenset(revoked)
        self._stored = {
            one.digest: Token(one.token_id, None if one.labs is None else frozenset(one.labs))
            for one in valid
        }
        self.complete = True

    def take_used(self) -> list[str]:
        """Return the ids of the database's tokens that were presented since the last call."""
        used, self._used = self._used, set()
        return sorted(used)


class TokenWatcher:
    """A thread that keeps the tokens of the database up to date, whatever fails meanwhile."""

    def __init__(self, url: str, tokens: WebhookTokens) -> None:
        self._url = url
        self._tokens = tokens
        self._stamp: object = None
        self._note_at = 0.0
        self._revoked: set[bytes] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook tokens", daemon=True)

    def read_once(self) -> None:
        """Read the tokens before the first delivery comes, if the database can be reached."""
        try:
            with closing(connect(self._url, "tokens")) as connection:
                connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT}")
                self._read(connection)
        except (psycopg.Error, LedgerError) as error:
            _log.warning("the webhook tokens of the database are not known", error=one_line(error))

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread soon."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with closing(connect(self._url, "tokens")) as connection:
                    self._follow(connection)
            except (psycopg.Error, LedgerError) as error:
                # Deliveries fail as well then, and their task logs that the database is away.
                _log.debug("could not read the webhook tokens", error=one_line(error))
            except Exception:  # noqa: BLE001 -- whatever it was, the next attempt may succeed
                _log.exception("could not read the webhook tokens")
            self._stop.wait(RETRY_SECONDS)

    def _follow(self, connection: Connection) -> None:
        connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT}")
        connection.execute("LISTEN ledger_credentials")
        self._stamp = None  # it may be another database now
        while not self._stop.is_set():
            self._read(connection)
            self._note_use(connection)
            if any(True for _ in connection.notifies(timeout=LOOK_SECONDS, stop_after=1)):
                self._stop.wait(BURST_SECONDS)

    def _read(self, connection: Connection) -> None:
        with connection.transaction():
            stamp = webhook_tokens.stamp(connection)
            if stamp == self._stamp and self._tokens.complete:
                return
            revoked = webhook_tokens.read_revoked(connection, self._tokens.digests_of_settings)
            self._tokens.replace_stored(webhook_tokens.read_valid(connection), revoked)
        if revoked != self._revoked:
            self._revoked = revoked
            _log.warning(
                "tokens of LEDGER_WEBHOOK_TOKENS are refused, for they were revoked: remove them",
                tokens=len(revoked),
            )
        # A change between the two statements is read again: the stamp is the older one.
        self._stamp = stamp

    def _note_use(self, connection: Connection) -> None:
        now = time.monotonic()
        if now < self._note_at:
            return
        if used := self._tokens.take_used():
            self._note_at = now + NOTE_SECONDS
            try:
                webhook_tokens.note_use(connection, used, datetime.now(UTC))
            except psycopg.Error as error:  # a convenience, which must not keep tokens from coming
                _log.warning("could not note which tokens were used", error=one_line(error))
