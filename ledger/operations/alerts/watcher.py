"""Looks for new subjects at regular intervals and alerts about them."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import msgspec
import psycopg
import structlog
from psycopg import Connection
from psycopg.sql import SQL

from ledger.errors import LedgerError, one_line
from ledger.model.coverage import FINDINGS, Finding
from ledger.operations.alerts.outbox import note
from ledger.operations.alerts.seal_watch import SealWatch
from ledger.operations.alerts.sending import send_due
from ledger.operations.alerts.silence_subjects import silence_subjects
from ledger.operations.alerts.wording import Subject
from ledger.operations.coverage import LabCoverage, needs_a_person, read_coverage
from ledger.operations.loss_windows import read_windows
from ledger.operations.missing_events.queries import IN_STATE, LAST_POSITION, SUBSCRIBED, parameters
from ledger.operations.policy import Policy
from ledger.operations.refused_deliveries.queries import BY_LAB_AND_DAY
from ledger.operations.render.words import count
from ledger.operations.silence import Hearings
from ledger.postgres.connect import connect
from ledger.spool.folder import set_aside_in, waiting_in

LOOK_SECONDS = 30.0
"""The pause between two rounds."""

SPOOLED_FOR_LONG = timedelta(minutes=1)
"""How long a delivery may wait on disk before an alert: the projector reaches the database."""

FLABS_FAILS_FOR_LONG = timedelta(hours=1)
"""How long the account at Flabs may be of no use before an alert."""

_log = structlog.get_logger(__name__)

_OVERDUE = SQL("""
SELECT m.lab_id, m.bill_id, m.event_type, m.test_id, m.count, m.certainty
FROM state.missing_event m
WHERE {overdue} AND {subscribed}
ORDER BY m.evidence_received_at
""").format(overdue=SQL(IN_STATE["overdue"]), subscribed=SQL(SUBSCRIBED))

_UNSEEN = """
SELECT integrator_id, lab_id, expected_by
FROM state.expected_bill
WHERE NOT is_seen AND expected_by <= %s
ORDER BY expected_by
"""

_PARKED = "SELECT lab_id, bill_id, position, error FROM state.parked_bill ORDER BY position"


_REASONS = {
    "wrong": "a wrong token",
    "missing": "no token",
    "foreign_lab": "a token of other labs",
}


def subjects(
    connection: Connection, policy: Policy, now: datetime, hearings: Hearings
) -> Iterator[Subject]:
    """Yield everything to alert about at the time `now`, old and new."""
    for lab_id, bill_id, error_position, error in connection.execute(_PARKED):
        words = f"bill {bill_id} of lab {lab_id} could not be folded: {error}"
        yield Subject("parked_bill", _key(lab_id, bill_id, error_position), lab_id, words)
    yield from _refused(connection)
    yield from _flabs(connection, policy, now)
    for window in read_windows(connection, policy, now, position=LAST_POSITION):
        if window.state == "open":
            labs = ", ".join(window.labs) or "labs that are not known yet"
            words = f"all events from {window.begin:%F %T} to {window.end:%F %T} UTC of {labs}"
            # The key is the beginning alone, because a window grows while an outage lasts.
            yield Subject("loss_window", _key(f"{window.begin:%FT%T.%fZ}"), None, words)
    for integrator_id, lab_id, expected_by in connection.execute(_UNSEEN, (now,)):
        by = expected_by.astimezone(UTC)
        words = f"{integrator_id}, expected by {by:%F %T} UTC"
        key = _key(integrator_id, lab_id, f"{by:%FT%T.%fZ}")
        yield Subject("unseen_bill", key, lab_id or None, words)
    yield from silence_subjects(connection, hearings.read(connection, now), now)
    with connection.transaction(), connection.cursor(name="overdue") as cursor:
        cursor.execute(_OVERDUE, parameters(policy, now))
        for lab_id, bill_id, event_type, test_id, count, certainty in cursor:
            test = f" of test {test_id}" if test_id else ""
            possible = " (possible)" if certainty == "possible" else ""
            words = f"{event_type}{test} of bill {bill_id}, lab {lab_id}{possible}"
            key = _key(lab_id, bill_id, event_type, test_id, count)
            yield Subject("overdue", key, lab_id, words)


def _refused(connection: Connection) -> Iterator[Subject]:
    """Yield each known lab whose deliveries are refused, for each day and power of ten of them.

    So the first is alerted about at once, then the tenth, the hundredth and so on of a day.
    """
    for lab_id, day, number, times, since, reasons in connection.execute(BY_LAB_AND_DAY):
        how = " or ".join(_REASONS[reason] for reason in reasons)
        words = (
            f"lab {lab_id}: {count(number, 'delivery', 'deliveries')} with {how}, received "
            f"{count(int(times), 'time')}, the first {since.astimezone(UTC):%F %T} UTC"
        )
        yield Subject("refused_delivery", _key(lab_id, f"{day}", len(str(number))), lab_id, words)


def _flabs(connection: Connection, policy: Policy, now: datetime) -> Iterator[Subject]:
    """Yield what is wrong with the registration at Flabs, and an account that cannot be used."""
    coverage = read_coverage(connection, policy)
    last = coverage.check
    if last and last.failed_since and now - last.failed_since > FLABS_FAILS_FOR_LONG:
        words = f"since {last.failed_since:%F %T} UTC: {last.failure}"
        yield Subject("flabs_check", f"{last.failed_since:%FT%T.%fZ}", None, words)
    for lab in coverage.labs:
        for finding in lab.findings:
            if needs_a_person(lab, finding, now):
                key = _key(lab.lab_id, finding, _since(lab, finding), *lab.absent_events)
                words = f"lab {lab.lab_id}: {FINDINGS[finding]}"
                yield Subject("flabs_coverage", key, lab.lab_id, words)


def _since(lab: LabCoverage, finding: Finding) -> str:
    """Return what tells one occurrence of a finding from a later one."""
    at: datetime | None = None
    if finding == "not_subscribed":
        at = lab.listed_at
    elif finding == "never_heard":
        at = lab.subscribed_at
    return f"{at:%FT%T.%fZ}" if at else ""


def spool_subjects(folder: Path, now: datetime) -> Iterator[Subject]:
    """Yield what to alert about in a folder of spooled deliveries."""
    waiting = waiting_in(folder)
    if waiting.oldest and now - waiting.oldest > SPOOLED_FOR_LONG:
        words = (
            f"{count(waiting.deliveries, 'delivery', 'deliveries')} wait on disk, the oldest since "
            f"{waiting.oldest:%F %T} UTC: a server cannot reach the database"
        )
        yield Subject("spool", f"waiting since {waiting.oldest:%FT%TZ}", None, words)
    if set_aside := set_aside_in(folder):
        words = f"{count(set_aside, 'record')} in {folder}/set-aside could not be moved to the log"
        yield Subject("spool", f"{folder} set aside {set_aside}", None, words)


class AlertWatcher:
    """A thread that sends alerts until it is stopped, whatever fails meanwhile."""

    def __init__(
        self,
        url: str,
        policy: Policy,
        channels: Sequence[str],
        *,
        spool: Path | None = None,
        seals: SealWatch | None = None,
    ) -> None:
        self._spool = spool
        self._hearings = Hearings()
        self._seals = seals
        self._url = url
        self._policy = policy
        self._channels = channels
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the current round; safe in a signal handler."""
        self._stop.set()

    def look_once(self) -> None:
        """Record what is new and send what is due."""
        with closing(connect(self._url, "alerts")) as connection:
            now = datetime.now(UTC)
            with closing(connect(self._url, "alerts")) as reader:
                found = subjects(reader, self._policy, now, self._hearings)
                if self._spool:
                    found = chain(found, spool_subjects(self._spool, now))
                if self._seals:
                    found = chain(found, self._seals.subjects(reader, now))
                note(connection, found, self._channels, now)
            send_due(connection, self._channels, datetime.now(UTC))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look_once()
            except (psycopg.Error, LedgerError) as error:
                # The projector in the same process already logs that the database is away.
                _log.debug("could not look for alerts", error=one_line(error))
            except Exception:  # noqa: BLE001 -- whatever it was, the next round may succeed
                _log.exception("could not look for alerts")
            self._stop.wait(LOOK_SECONDS)


def _key(*parts: str | int) -> str:
    return msgspec.json.encode(parts).decode()
