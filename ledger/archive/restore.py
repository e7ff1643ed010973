"""Reads an archive as an import reads an export: the same lines, so the same rules."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

from ledger.archive.check import check, checked_rows
from ledger.archive.folder import Archive
from ledger.archive.parquet import ArchivedRow
from ledger.errors import ArchiveError
from ledger.eventlog.append import Source
from ledger.eventlog.erased_events import ErasedEvent
from ledger.eventlog.export_lines import export_line
from ledger.eventlog.json_values import Value

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000


class ArchivedLog:
    """An archive to import. It is checked as a whole before anything of it is."""

    cut_off = False

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self.name: str | None = str(archive.path)

    def read(self, _is_wanted: Callable[[bytes], bool], /) -> "ArchivedLog":
        """Check the archive. Raises `ArchiveError`: then nothing is imported."""
        try:
            check(self._archive, lambda _done, _total: None)
        except ArchiveError as error:
            raise type(error)(f"{error}. Nothing of it was recorded") from error
        return self

    def values(self) -> Iterator[Value]:
        """Yield the events, numbered by their positions, and the records of liveness."""
        number = 0
        for manifest in self._archive.whole():
            for row in checked_rows(self._archive, manifest):
                number = row.position
                yield Value(number, _line(row).rstrip())
        for line in self._archive.liveness():
            number += 1
            yield Value(number, line.strip())


def _line(row: ArchivedRow) -> bytes:
    source = cast("Source", row.source)
    body = row.body if row.body is not None else _erased(row)
    return export_line(row.position, _moment(row.received_at), source, body)


def _erased(row: ArchivedRow) -> ErasedEvent:
    assert row.erased_at is not None  # noqa: S101 -- it was checked: the body is null
    return ErasedEvent(
        at=_moment(row.erased_at),
        lab_id=row.lab_id,
        bill_id=row.bill_id,
        event_type=row.event_type,
        event_time=None if row.event_time is None else row.event_time // _SECOND,
        digest=row.digest.hex(),
        body_sha256=row.body_sha256.hex(),
    )


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)
