"""TLS: the certificate of a server, taken from files that may change while it runs."""

import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from ledger.errors import SettingsError

if TYPE_CHECKING:
    from uvicorn.config import Config

LOOK_SECONDS = 1.0
"""The files are looked at no more often, when a connection comes."""

# What remains of TLS 1.2 once everything without forward secrecy or authenticated encryption is
# left out; all of TLS 1.3 is fine.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

_log = structlog.get_logger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]
"""Inode, size and time of change (ns) of each file."""


class Certificate:
    """The TLS context for new connections. Others keep the one that they began with."""

    def __init__(
        self, certificate: Path, key: Path, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Load the files. Raises `SettingsError` if they are of no use."""
        self._files = certificate, key
        self._clock = clock
        self._looked_at = clock()
        self._stamp = _stamp(self._files)
        self._context = _context(*self._files)

    def context(self) -> ssl.SSLContext:
        """Return the context of the files as they are now, or as they last were of use."""
        now = self._clock()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            stamp = _stamp(self._files)
            if stamp != self._stamp:
                self._stamp = stamp
                self._load()
        return self._context

    def _load(self) -> None:
        try:
            self._context = _context(*self._files)
        except SettingsError as error:  # half of a change, perhaps: the other half is looked at
            _log.error("the former certificate stays in use", error=str(error))
        else:
            _log.info("the certificate was loaded again", file=str(self._files[0]))


def make_context(config: "Config", _: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """Make the context of Uvicorn's own protocol, in the form of its `ssl_context_factory`."""
    return _context(Path(str(config.ssl_certfile)), Path(str(config.ssl_keyfile)))


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        reason = (error.reason or "it cannot be read").lower().replace("_", " ")
        raise SettingsError(
            f"LEDGER_TLS_CERTIFICATE {certificate} and LEDGER_TLS_KEY {key} cannot be used: "
            f"{reason}. Both are PEM files, the key without a password"
        ) from error
    except OSError as error:
        raise SettingsError(
            f"LEDGER_TLS_CERTIFICATE {certificate} or LEDGER_TLS_KEY {key} cannot be read: "
            f"{error.strerror}"
        ) from error
    return context


def _stamp(files: tuple[Path, Path]) -> _Stamp | None:
    try:
        found = [file.stat() for file in files]
    except OSError:
        return None
    return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)
