"""A thread that seals the log at intervals, in the projector's process."""

import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import psycopg
import structlog
from psycopg import Connection

from ledger.errors import DatabaseUnavailableError, LedgerError, SealError, one_line
from ledger.postgres.connect import connect
from ledger.seals.notes import SigningKey
from ledger.seals.publication import Publication
from ledger.seals.sealing import log_head, publish, refuse_fork, seal_batch, sealing, sign
from ledger.seals.time_stamps import TimeStamps

SHARE = 0.05
"""Of the time, that the thread may work while it is behind: the intake must not feel it."""


class Trouble(NamedTuple):
    """What keeps the log from being sealed, signed or published: the error's name, and its text."""

    kind: str
    words: str


_log = structlog.get_logger(__name__)


class Sealer:
    """Seals until it is stopped, whatever fails meanwhile. Any number of them may run."""

    def __init__(
        self,
        url: str,
        *,
        key: SigningKey | None,
        publish_to: Path | None,
        interval: float,
        time_stamps: TimeStamps | None = None,
    ) -> None:
        self._url = url
        self._key = key
        self._publication = Publication(publish_to) if publish_to else None
        self._interval = interval
        self._time_stamps = time_stamps
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sealer", daemon=True)
        self._trouble: Trouble | None = None

    @property
    def trouble(self) -> Trouble | None:
        """What kept the last round from its end; None if it went well, or the database is away."""
        return self._trouble

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the current batch; safe in a signal handler."""
        self._stop.set()

    def seal_once(self) -> None:
        """Seal what is committed now, sign and publish; do nothing while another process does."""
        with (
            closing(connect(self._url, "sealer")) as connection,
            sealing(connection, wait=False) as alone,
        ):
            if alone:
                self._seal(connection)

    def _seal(self, connection: Connection) -> None:
        head = log_head(connection)
        while not self._stop.is_set():
            began = time.monotonic()
            batch = seal_batch(connection, head)
            if batch.size >= head:
                break
            self._stop.wait((time.monotonic() - began) * (1 / SHARE - 1))
        if self._stop.is_set() or self._key is None:
            return
        if self._publication:
            refuse_fork(connection, self._publication, self._key.public)
        if sign(connection, self._key, datetime.now(UTC)):
            _log.debug("sealed", position=head)
        if self._publication:
            publish(connection, self._publication, self._key.public)
            if self._time_stamps:
                self._time_stamps.stamp_if_due(
                    self._publication, self._key.public, datetime.now(UTC)
                )

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.seal_once()
                self._trouble = None
            except SealError as error:
                self._say_once(error)
            except (psycopg.OperationalError, DatabaseUnavailableError) as error:
                # The projector in the same process already logs that the database is away.
                _log.debug("could not seal", error=one_line(error))
            except (psycopg.Error, LedgerError) as error:
                self._say_once(error)
            except Exception:  # noqa: BLE001 -- whatever it was, the next round may succeed
                _log.exception("could not seal")
            self._stop.wait(self._interval)

    def _say_once(self, error: Exception) -> None:
        """Log what keeps the log from being sealed, not each repetition."""
        trouble = Trouble(type(error).__name__, one_line(error))
        if trouble != self._trouble:
            self._trouble = trouble
            _log.error("the sealer could not finish", error=trouble.words)
