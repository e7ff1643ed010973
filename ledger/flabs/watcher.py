"""Looks at the account at Flabs at intervals, and ends rotations of the token when it is time."""

import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import psycopg
import structlog

from ledger.errors import FlabsError, LedgerError, one_line
from ledger.flabs import rotation
from ledger.flabs.account import look
from ledger.flabs.client import FlabsClient
from ledger.model.operators import Operator
from ledger.operations.flabs_account import AccountCheck, read_check
from ledger.operations.policy import Policy
from ledger.postgres.connect import connect
from ledger.settings import Settings

LOOK_SECONDS = 10.0
"""Between two looks at whether something is due."""

LONGEST_PAUSE = timedelta(hours=6)
"""Between two looks at an account that cannot be used."""

OPERATOR = Operator("ledger project")

_log = structlog.get_logger(__name__)


class FlabsWatcher:
    """A thread that looks after the account until it is stopped, whatever fails meanwhile."""

    def __init__(self, url: str, settings: Settings, policy: Policy) -> None:
        self._url = url
        self._settings = settings
        self._policy = policy
        self._interval = timedelta(seconds=settings.flabs_interval)
        self._has_account = bool(settings.flabs_client_id and settings.flabs_client_secret)
        self._said: tuple[int, str] | None = None
        """Of which rotation the log says why it was not ended, and the kind of the error."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flabs", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the current round; safe in a signal handler."""
        self._stop.set()

    def look_once(self) -> None:
        """Do what is due: end a rotation, look at the account."""
        now = datetime.now(UTC)
        with closing(connect(self._url, "flabs")) as connection:
            found = rotation.read_rotation(connection, self._policy)
            if found and found.finished_at is None and found.drop_at and found.drop_at <= now:
                self._finish(found.rotation, now)
            if not self._has_account:
                return
            last = read_check(connection)
            if is_due(last, self._settings.flabs_client_id, self._interval, now):
                try:
                    with FlabsClient.of(self._settings) as client:
                        look(connection, self._settings, client)
                except FlabsError as error:
                    # What Flabs answered is kept nowhere, and so not in a log either.
                    _log.warning("could not look at the account at Flabs", error=error.brief)

    def _finish(self, number: int, now: datetime) -> None:
        try:
            rotation.finish(self._url, self._policy, by=OPERATOR, now=now)
        except LedgerError as error:
            # Not each time: Flabs may present an old token until somebody removes a webhook.
            said = number, type(error).__name__
            if said != self._said:
                self._said = said
                _log.warning("the old webhook tokens were not dropped", error=one_line(error))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look_once()
            except (psycopg.Error, LedgerError) as error:
                # The projector in the same process already logs that the database is away.
                _log.debug("could not look after the account at Flabs", error=one_line(error))
            except Exception:  # noqa: BLE001 -- whatever it was, the next round may succeed
                _log.exception("could not look after the account at Flabs")
            self._stop.wait(LOOK_SECONDS)


def is_due(last: AccountCheck | None, account: str, interval: timedelta, now: datetime) -> bool:
    """Return whether it is time to look at the account again.

    What fails is tried again after as long as it has failed, so that a wrong secret does not storm
    Flabs.
    """
    if last is None or last.account != account:
        return True
    pause = interval
    if last.failed_since is not None:
        pause = max(interval, min(last.checked_at - last.failed_since, LONGEST_PAUSE))
    return now >= last.checked_at + pause
