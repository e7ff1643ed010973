"""Time stamps of published checkpoints by an authority (RFC 3161): that they existed at a time.

The response is kept as it came, next to the checkpoint, so that `openssl ts -verify` reads it.
rfc3161-client is an extra and is loaded when it is needed.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
from cryptography.x509 import Certificate, load_pem_x509_certificates

from ledger.errors import SealError, SettingsError, TimeStampError, one_line
from ledger.seals.notes import PublicKey, read_checkpoint
from ledger.seals.publication import Publication

TIMEOUT = 10.0
"""Seconds that the authority has for its whole answer: nothing is sealed meanwhile."""

PAUSE = timedelta(minutes=10)
"""Between two tries after one that failed."""

_LONGEST = 64 * 1024
_GRANTED = (0, 1)


class TimeStamps:
    """Gets time stamps from an authority; `roots` are certificates that they must lead to."""

    def __init__(self, url: str, *, interval: timedelta, roots: Sequence[Certificate] = ()) -> None:
        self.url = url
        self._interval = interval
        self._roots = roots
        self._client = _library()
        self._failed: tuple[datetime, SealError] | None = None

    def stamp_if_due(self, publication: Publication, key: PublicKey, now: datetime) -> Path | None:
        """Stamp the last published checkpoint, unless one was stamped within the interval.

        Returns the file, None if nothing is due. Raises `TimeStampError`, and `SealError` if the
        publication cannot be used; either for `PAUSE` without another try.
        """
        if self._failed and now < self._failed[0] + PAUSE:
            raise self._failed[1]
        last = publication.last_stamp()
        made_at = self._made_at(last[1]) if last else None
        if made_at and now - made_at < self._interval:
            return None
        try:
            path = self.stamp(publication, key)
        except SealError as error:  # also an answer that cannot be kept was asked for
            self._failed = now, error
            raise
        self._failed = None
        return path

    def stamp(self, publication: Publication, key: PublicKey) -> Path | None:
        """Stamp the last published checkpoint; None if there is none, or it is stamped already."""
        note = publication.last_note(key)
        last = publication.last_stamp()
        if note is None or (
            last and last[0] >= read_checkpoint(note).size and self._made_at(last[1])
        ):
            return None
        return publication.add_stamp(note, self._ask(note.encode()))

    def _ask(self, content: bytes) -> bytes:
        request = (
            self._client.TimestampRequestBuilder()
            .data(content)
            .hash_algorithm(self._client.HashAlgorithm.SHA256)
            .build()
        )
        answer = self._post(request.as_bytes())
        try:
            response = self._client.decode_timestamp_response(answer)
            if response.status not in _GRANTED:
                why = "; ".join(response.status_string) or f"status {response.status}"
                raise TimeStampError(f"{self.url} refused a time stamp: {one_line(why)}")
            info = response.tst_info
            of_it = info.message_imprint.message == sha256(content).digest()
            if not of_it or info.nonce != request.nonce:
                raise TimeStampError(f"{self.url} gave a time stamp of something else")
            if self._roots:
                builder = self._client.VerifierBuilder.from_request(request)
                for root in self._roots:
                    builder = builder.add_root_certificate(root)
                builder.build().verify(response, sha256(content).digest())
        except self._client.VerificationError as error:
            raise TimeStampError(
                f"{self.url} gave a time stamp that does not lead to a certificate in "
                f"LEDGER_SEAL_TIMESTAMP_ROOTS: {one_line(error)}"
            ) from error
        except ValueError as error:
            raise TimeStampError(f"{self.url} gave no time stamp: {one_line(error)}") from error
        return answer

    def _post(self, request: bytes) -> bytes:
        try:
            return asyncio.run(self._exchange(request))
        except TimeoutError as error:
            raise TimeStampError(
                f"no time stamp from {self.url}: it did not end its answer within {TIMEOUT:g} s"
            ) from error
        except httpx.HTTPError as error:
            raise TimeStampError(f"no time stamp from {self.url}: {one_line(error)}") from error

    async def _exchange(self, request: bytes) -> bytes:
        """Return the answer. Asynchronous, for only so can the whole of it have one time limit."""
        answer = b""
        headers = {"Content-Type": "application/timestamp-query"}
        async with (
            asyncio.timeout(TIMEOUT),
            httpx.AsyncClient(timeout=None) as client,  # noqa: S113 -- the one above
            client.stream("POST", self.url, content=request, headers=headers) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise TimeStampError(f"{self.url} answered {response.status_code}")
            async for part in response.aiter_bytes():
                answer += part
                if len(answer) > _LONGEST:
                    raise TimeStampError(f"{self.url} answered more than a time stamp has")
        return answer

    def _made_at(self, answer: bytes) -> datetime | None:
        """Return when a time stamp was made; None if it cannot be read."""
        try:
            made_at: datetime = self._client.decode_timestamp_response(answer).tst_info.gen_time
        except ValueError:
            return None
        return made_at


def read_roots(path: Path) -> list[Certificate]:
    """Read the file in LEDGER_SEAL_TIMESTAMP_ROOTS. Raises `SettingsError`."""
    try:
        return load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise SettingsError(
            f"LEDGER_SEAL_TIMESTAMP_ROOTS: cannot read {path}: {error.strerror}"
        ) from error
    except ValueError as error:
        raise SettingsError(
            f"LEDGER_SEAL_TIMESTAMP_ROOTS: {path} holds no certificates in PEM"
        ) from error


def _library() -> Any:  # noqa: ANN401 -- an optional module
    try:
        return import_module("rfc3161_client")
    except ImportError as error:
        raise SettingsError(
            "LEDGER_SEAL_TIMESTAMP_URL needs rfc3161-client, which is not installed: "
            "pip install 'ledger[timestamps]'"
        ) from error
