"""Files of private keys: made once, read at each start, never shown."""

import os
import stat
from pathlib import Path

from ledger.errors import SealError, SettingsError
from ledger.seals.notes import PublicKey, SigningKey

_OTHERS = stat.S_IWGRP | stat.S_IRWXO


def make_key_file(path: Path, name: str) -> PublicKey:
    """Write a new private key to a file that only its owner can read; return the public one.

    Raises `SealError` if the file exists, or cannot be written.
    """
    key = SigningKey.new(name)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as writer:
            writer.write(key.to_text())
            writer.flush()
            os.fsync(writer.fileno())
    except FileExistsError:
        raise SealError(f"{path} exists; a key that signed something must be kept") from None
    except OSError as error:
        raise SealError(f"cannot write {path}: {error.strerror}") from error
    return key.public


def read_key_file(path: Path) -> SigningKey:
    """Read the file in LEDGER_SEAL_KEY. Raises `SettingsError`."""
    try:
        mode = path.stat().st_mode
        text = path.read_text("ascii", "replace")
    except OSError as error:
        raise SettingsError(f"LEDGER_SEAL_KEY: cannot read {path}: {error.strerror}") from error
    if mode & _OTHERS:
        raise SettingsError(
            f"LEDGER_SEAL_KEY: others than its owner can read or change {path}: chmod 600 it"
        )
    try:
        return SigningKey.read(text)
    except SealError as error:
        raise SettingsError(f"LEDGER_SEAL_KEY: {path}: {error}") from error
