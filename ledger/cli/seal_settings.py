"""What several commands read of the settings of seals. It loads cryptography."""

from datetime import timedelta
from pathlib import Path

import rich_click as click

from ledger.errors import SettingsError
from ledger.seals.key_file import read_key_file
from ledger.seals.notes import PublicKey
from ledger.seals.time_stamps import TimeStamps, read_roots
from ledger.settings import Settings


def read_public_key(given: str | None) -> PublicKey:
    """Return the key that is given, or named by its file; without any, that of LEDGER_SEAL_KEY."""
    if given is None:
        file = Settings.from_environment().seal_key
        if file is None:
            raise click.UsageError(
                "who signed the checkpoints? Name the key with --public-key, or set LEDGER_SEAL_KEY"
            )
        return read_key_file(file).public
    try:
        return PublicKey.read(Path(given).read_text("ascii", "replace"))
    except OSError:  # it is the key itself
        return PublicKey.read(given)


def read_time_stamps(settings: Settings, publish_to: Path | None) -> TimeStamps | None:
    """Return what asks the authority for time stamps, None without one. Raises `SettingsError`."""
    if not settings.seal_timestamp_url:
        return None
    if not (settings.seal_key and publish_to):
        raise SettingsError(
            "LEDGER_SEAL_TIMESTAMP_URL needs LEDGER_SEAL_KEY and LEDGER_SEAL_PUBLISH: time stamps "
            "are of published checkpoints"
        )
    roots = settings.seal_timestamp_roots
    return TimeStamps(
        settings.seal_timestamp_url,
        interval=timedelta(seconds=settings.seal_timestamp_interval),
        roots=read_roots(roots) if roots else (),
    )
