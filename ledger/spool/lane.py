"""The lane of a receiver: with a spool, if the settings name a folder for one."""

from ledger.eventlog.group_commit import GroupCommit
from ledger.settings import Settings
from ledger.spool.drain import Drain
from ledger.spool.writer import SpoolWriter

STOP_SECONDS = 2.0
"""How long a stop waits for the last deliveries to be spooled."""


class SpoolingLane(GroupCommit):
    """Group commit, with a spool for what the log does not take in time."""

    def __init__(self, url: str, settings: Settings) -> None:
        assert settings.spool_dir  # noqa: S101 -- see `make_lane`
        self._writer = SpoolWriter(
            settings.spool_dir,
            budget=settings.spool_max_bytes // settings.workers,
            longest=settings.max_body,
        )
        super().__init__(url, self._writer, patience=settings.spool_after)
        self._drain = Drain(settings.spool_dir, self._writer, self, url)

    def start(self) -> None:
        """Start the spool, the lane, and what moves deliveries from one to the other."""
        self._writer.start()
        super().start()
        self._drain.start()

    async def stop(self) -> None:
        """Commit or spool what waits, then end."""
        await self._drain.stop()
        await super().stop()
        self._writer.stop(STOP_SECONDS, keep_note=not self.is_recorded)


def make_lane(url: str, settings: Settings) -> GroupCommit:
    """Make the lane that the settings ask for."""
    return SpoolingLane(url, settings) if settings.spool_dir else GroupCommit(url)
