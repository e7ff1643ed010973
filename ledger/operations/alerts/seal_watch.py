"""What to alert about of the seals: that they stand still, are not signed, or contradict a copy."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from psycopg import Connection

from ledger.operations.alerts.wording import Subject
from ledger.operations.render.words import count
from ledger.seals.sealer import Trouble
from ledger.seals.status import STATUS, SealStatus

LONG = timedelta(minutes=10)
"""How long events may be without a seal, or checkpoints without a signature, before an alert."""


_HEAD = "SELECT position FROM ledger.event_log ORDER BY position DESC LIMIT 1"


class _Lag:
    """Whether positions are reached in time, each look at what was there at an earlier one.

    An event's time of reception does not tell: an import brings old ones.
    """

    def __init__(self) -> None:
        self._mark = 0
        self._since = datetime.max.replace(tzinfo=UTC)

    def is_long(self, reached: int, wanted: int, now: datetime) -> bool:
        if reached >= self._mark:
            self._mark, self._since = wanted, now
        return reached < self._mark and now - self._since >= LONG


class SealWatch:
    """Looks at the seals from time to time; `trouble` is what the sealer says of itself."""

    def __init__(self, trouble: Callable[[], Trouble | None]) -> None:
        self._trouble = trouble
        self._seals, self._signatures = _Lag(), _Lag()

    def subjects(self, connection: Connection, now: datetime) -> Iterator[Subject]:
        """Yield what there is at a time, each once a day."""
        row = connection.execute(STATUS).fetchone()
        assert row  # noqa: S101 -- the query gives one row
        status = SealStatus(*row)
        head = connection.execute(_HEAD).fetchone()
        if trouble := self._trouble():
            yield _subject(trouble.kind, trouble.words, now)
        minutes = LONG.seconds // 60
        if self._seals.is_long(status.sealed, head[0] if head else 0, now):
            words = (
                f"the seals end at position {status.sealed:,}, and what came after has waited for "
                f"{minutes} minutes: the sealer does not keep up, or stands still"
            )
            yield _subject("behind", words, now)
        # Without a key nothing is ever signed. Who has signed once wants to go on.
        if status.signed is None or status.signed_at is None:
            return
        if self._signatures.is_long(status.signed, status.sealed, now):
            words = (
                f"{count(status.sealed - status.signed, 'sealed event')} without a signed "
                f"checkpoint; the last is of {status.signed_at.astimezone(UTC):%F %T} UTC: is the "
                "key in LEDGER_SEAL_KEY missing?"
            )
            yield _subject("not signed", words, now)


def _subject(kind: str, words: str, now: datetime) -> Subject:
    return Subject("seal", f"{kind} {now:%F}", None, words)
