"""Tells who presents an API key, from verdicts that the process keeps in memory.

All keys that are valid are read again every two seconds, and at once when the database says that
one changed. So no request waits for the database, and no flood of unknown keys reaches it. Verdicts
older than five seconds are not trusted: while the database is away, only `LEDGER_ADMIN_KEY` is
known.
"""

import asyncio
import hmac
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256

import psycopg
import structlog
from msgspec import Struct
from psycopg import AsyncConnection

from ledger.api.permissions import ADMIN_KEY_ID, Caller
from ledger.errors import DatabaseUnavailableError, LedgerError, UnauthenticatedError, one_line
from ledger.operations.api_keys import Presented, read_key
from ledger.postgres.connect import connect_async

CHANNEL = "ledger_credentials"

REFRESH_SECONDS = 2.0
"""How often the keys are read when no notification comes."""

TRUSTED_SECONDS = 5.0
"""How long keys are trusted after they were read."""

NEWS_SECONDS = 0.25
"""How long a key that is not known is given for the notification of its creation to arrive."""

START_SECONDS = 3.0
"""How long a request waits for the first reading."""

MOST_WAITING = 500
"""Requests with unknown keys that may wait; the next ones are refused at once."""

STATEMENT_SECONDS = 3
RETRY_SECONDS = 1.0

_KEYS = """
SELECT k.key_id, k.scope, k.labs, k.expires_at, k.digest, k.previous_digest, k.previous_valid_until
FROM ledger.api_key k
WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
"""

_USED = """
UPDATE ledger.api_key k
SET last_used_at = %(now)s
WHERE
    k.key_id = ANY(%(key_ids)s)
    AND (k.last_used_at IS NULL OR k.last_used_at < %(now)s::timestamptz - interval '1 hour')
"""

_log = structlog.get_logger(__name__)


class _Known(Struct, frozen=True):
    """A valid key: who presents it, and the digests of its secrets."""

    caller: Caller
    digest: bytes
    previous_digest: bytes | None
    previous_valid_until: datetime | None

    def accepts(self, presented: Presented, now: datetime) -> bool:
        return any(hmac.compare_digest(one, presented.digest) for one in self.digests(now))

    def digests(self, now: datetime) -> list[bytes]:
        """Return the digests of the secrets that are valid now."""
        expires_at = self.caller.expires_at
        if expires_at is not None and expires_at <= now:
            return []
        if (
            self.previous_digest is not None
            and self.previous_valid_until is not None
            and self.previous_valid_until > now
        ):
            return [self.digest, self.previous_digest]
        return [self.digest]


class Authenticator:
    """Knows the API keys, for one event loop."""

    def __init__(self, url: str, admin_key: str) -> None:
        self._url = url
        self._admin = sha256(admin_key.encode()).digest() if admin_key else None
        self._keys: dict[str, _Known] = {}
        self._read_at: float | None = None
        """When the reading of the keys began, on the loop's clock."""
        self._reading = asyncio.Condition()
        self._waiting = 0
        self._used: dict[str, float] = {}
        self._to_note: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start reading the keys."""
        self._task = asyncio.create_task(self._run(), name="credentials")

    async def stop(self) -> None:
        """Stop reading the keys."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def authenticate(self, presented: str) -> Caller:
        """Return who presents a key.

        Raises `UnauthenticatedError` for a key that is missing, wrong, expired or revoked, and
        `DatabaseUnavailableError` if that cannot be said now.
        """
        if self._is_admin(presented):
            return _ADMIN
        key = read_key(presented)
        if key is None:
            raise UnauthenticatedError(_WRONG)
        now = asyncio.get_running_loop().time()
        if self._read_at is None:
            await self._read_since(now, START_SECONDS)
        caller = self._find(key)
        if caller is None and self._waiting < MOST_WAITING:
            self._waiting += 1
            try:
                await self._read_since(now, NEWS_SECONDS)
            finally:
                self._waiting -= 1
            caller = self._find(key)
        if not self._is_fresh():
            raise DatabaseUnavailableError("the API keys could not be read lately")
        if caller is None:
            raise UnauthenticatedError(_WRONG)
        return caller

    async def holder(self, key_id: str, accepts: Callable[[list[bytes]], bool]) -> Caller | None:
        """Return whose key has an id, if one of the digests of its valid secrets is accepted.

        None for a key that is not known, has expired or was revoked. Raises
        `DatabaseUnavailableError` if that cannot be said now.
        """
        if key_id == ADMIN_KEY_ID:
            return _ADMIN if self._admin is not None and accepts([self._admin]) else None
        if self._read_at is None:
            await self._read_since(asyncio.get_running_loop().time(), START_SECONDS)
        if not self._is_fresh():
            raise DatabaseUnavailableError("the API keys could not be read lately")
        known = self._keys.get(key_id)
        if known is None or not accepts(known.digests(datetime.now(UTC))):
            return None
        self._note_use(key_id)
        return known.caller

    def known(self, presented: str) -> Caller | None:
        """Return who presents a key, if that can be said at once."""
        if self._is_admin(presented):
            return _ADMIN
        key = read_key(presented)
        return self._find(key) if key and self._is_fresh() else None

    def still_admits(self, presented: str) -> bool | None:
        """Return whether a key that was accepted still is; None if that cannot be said now."""
        if self.known(presented) is not None:
            return True
        return False if self._is_fresh() else None

    async def see_changes(self) -> None:
        """Return when the keys were read again; soon in any case."""
        await self._read_since(asyncio.get_running_loop().time(), REFRESH_SECONDS)

    def _is_admin(self, presented: str) -> bool:
        digest = sha256(presented.encode(errors="surrogateescape")).digest()
        return self._admin is not None and hmac.compare_digest(self._admin, digest)

    def _is_fresh(self) -> bool:
        now = asyncio.get_running_loop().time()
        return self._read_at is not None and now - self._read_at < TRUSTED_SECONDS

    def _find(self, presented: Presented) -> Caller | None:
        known = self._keys.get(presented.key_id)
        if known is None or not known.accepts(presented, datetime.now(UTC)):
            return None
        self._note_use(presented.key_id)
        return known.caller

    def _note_use(self, key_id: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._used.get(key_id, -_HOUR) >= _HOUR:
            self._used[key_id] = now
            self._to_note.add(key_id)

    async def _read_since(self, moment: float, timeout: float) -> None:  # noqa: ASYNC109 -- a wait
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._reading:
                await self._reading.wait_for(
                    lambda: self._read_at is not None and self._read_at >= moment
                )

    async def _run(self) -> None:
        while True:
            try:
                connection = await connect_async(self._url, "credentials")
                async with connection:
                    await connection.execute(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
                    await connection.execute(f"LISTEN {CHANNEL}")
                    while True:
                        await self._read(connection)
                        await self._write_uses(connection)
                        async for _ in connection.notifies(timeout=REFRESH_SECONDS, stop_after=1):
                            pass
            except (psycopg.Error, LedgerError) as error:
                _log.debug("API keys cannot be read", error=one_line(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _read(self, connection: AsyncConnection) -> None:
        began = asyncio.get_running_loop().time()
        cursor = await connection.execute(_KEYS)
        self._keys = {
            key_id: _Known(
                Caller(key_id, scope, None if labs is None else tuple(labs), expires_at), *secrets
            )
            for key_id, scope, labs, expires_at, *secrets in await cursor.fetchall()
        }
        self._used = {key_id: at for key_id, at in self._used.items() if key_id in self._keys}
        async with self._reading:
            self._read_at = began
            self._reading.notify_all()

    async def _write_uses(self, connection: AsyncConnection) -> None:
        if self._to_note:
            key_ids = sorted(self._to_note)
            await connection.execute(_USED, {"key_ids": key_ids, "now": datetime.now(UTC)})
            self._to_note.difference_update(key_ids)


_ADMIN = Caller(ADMIN_KEY_ID, "admin", None)
_HOUR = 3_600.0
_WRONG = "the API key is missing or wrong: send it as Authorization: Bearer KEY"
