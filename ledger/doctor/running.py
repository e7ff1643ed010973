"""Checks of what runs: receivers, projector, seals, and when the log was last verified."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from psycopg import Connection

from ledger.doctor.findings import Finding, ok, warning, wrong
from ledger.eventlog.liveness import BEAT_SECONDS
from ledger.operations.refused_deliveries.queries import count_refused
from ledger.operations.render.words import count, lasting
from ledger.postgres.locks import Lock, held
from ledger.projection.status import STATUS, StatusRow
from ledger.projection.verification import read_last_verification
from ledger.seals.status import STATUS as SEAL_STATUS
from ledger.seals.status import SealStatus
from ledger.settings import Settings

SILENT = timedelta(seconds=10 * BEAT_SECONDS)
"""After which a receiver that was alive is not."""

LAG_WARNING = timedelta(seconds=10)
LAG_WRONG = timedelta(minutes=5)
VERIFIED_LATELY = timedelta(days=8)
"""A weekly job has run, and may be a day late."""

_LEADER = f"SELECT {held(Lock.LEADER)}"
_ALIVE = "SELECT max(l.alive_until) FROM ledger.liveness l"


def check_running(connection: Connection, settings: Settings, now: datetime) -> Iterator[Finding]:
    """Check it. The connection acts as ledger_service. Raises `psycopg.Error`."""
    yield _check_receivers(connection, now)
    yield from _check_projector(connection, now)
    yield _check_refused(connection)
    yield from _check_seals(connection, settings, now)
    yield _check_verification(connection, now)


def _check_receivers(connection: Connection, now: datetime) -> Finding:
    row = connection.execute(_ALIVE).fetchone()
    alive = row[0] if row else None
    if alive is None:
        return wrong("receivers", "nothing has ever received here", "start `ledger serve`")
    if now - alive > SILENT:
        return wrong(
            "receivers",
            f"nothing has been able to store deliveries for {lasting(now - alive)}",
            "start `ledger serve`, or see its log: what Flabs sends meanwhile may be lost",
        )
    return ok("receivers", "deliveries can be stored")


def _check_projector(connection: Connection, now: datetime) -> Iterator[Finding]:
    row = connection.execute(STATUS).fetchone()
    if row is None:  # the check of the fold's version says so
        return
    found = StatusRow(*row)
    if connection.execute(_LEADER.encode()).fetchone() == (True,):
        yield ok("projector", "it runs")
    else:
        yield wrong(
            "projector", "no projector runs: the state does not follow", "start `ledger project`"
        )
    lag = timedelta(seconds=found.lag_seconds(now))
    words = f"the state is {count(found.lag_events, 'event')} behind the log"
    if lag > LAG_WARNING:
        words += f"; the oldest has waited {lasting(lag)}"
        verdict = wrong if lag > LAG_WRONG else warning
        yield verdict("lag", words, "see the projector's log, and `ledger status`")
    else:
        yield ok("lag", words if found.lag_events else "the state is up to date")
    if found.parked:
        yield warning(
            "parked",
            f"{count(found.parked, 'bill')} could not be folded",
            "`ledger status` names them and why; `ledger rebuild --bill LAB BILL` retries one",
        )


def _check_refused(connection: Connection) -> Finding:
    found = count_refused(connection)
    if found.of_known_labs:
        return wrong(
            "refused",
            f"{count(found.of_known_labs, 'delivery', 'deliveries')} of known labs came with a "
            "wrong token",
            "compare the token with the one registered at Flabs, then `ledger refused list`",
        )
    if found.deliveries:
        return warning(
            "refused",
            f"{count(found.deliveries, 'delivery', 'deliveries')} came with a wrong token",
            "`ledger refused list` shows them",
        )
    return ok("refused", "no delivery with a wrong token waits")


def _check_seals(connection: Connection, settings: Settings, now: datetime) -> Iterator[Finding]:
    row = connection.execute(SEAL_STATUS).fetchone()
    assert row  # noqa: S101 -- the query gives one row
    found = SealStatus(*row)
    lag = timedelta(seconds=found.lag_seconds(now))
    late = timedelta(seconds=10 * settings.seal_interval)
    if lag > late:
        yield wrong(
            "seals",
            f"the next event has waited {lasting(lag)} to be sealed",
            "`ledger project` seals: see its log. `ledger seal` does it now",
        )
    elif settings.seal_key and found.sealed and (found.signed or 0) < found.sealed:
        yield warning(
            "seals",
            f"sealed up to position {found.sealed:,}, signed up to {found.signed or 0:,}",
            "give `ledger project` LEDGER_SEAL_KEY, too",
        )
    else:
        yield ok("seals", f"the log is sealed up to position {found.sealed:,}")


def _check_verification(connection: Connection, now: datetime) -> Finding:
    last = read_last_verification(connection)
    advice = "let a job run `ledger verify` once a week"
    if last is None:
        return warning("verification", "the log and the state were never verified", advice)
    ago = lasting(now - last.verified_at)
    if last.difference:
        return wrong(
            "verification",
            f"{ago} ago `ledger verify` found: {last.difference}",
            "docs/operating.md says what to do about a difference",
        )
    if now - last.verified_at > VERIFIED_LATELY:
        return warning("verification", f"the last `ledger verify` was {ago} ago", advice)
    return ok("verification", f"log and state were verified {ago} ago")
