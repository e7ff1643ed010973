"""`ledger status`."""

from contextlib import closing
from datetime import UTC, datetime

import msgspec
import rich_click as click

from ledger import schema
from ledger.cli.common import json_option, prepared_database
from ledger.errors import DatabaseUnavailableError, StateError
from ledger.model.bill import FOLD_VERSION
from ledger.operations.refused_deliveries.queries import Counts, count_refused
from ledger.operations.render.words import count, lasting, shown, utc
from ledger.postgres.connect import connect
from ledger.postgres.locks import Lock, held
from ledger.projection.status import PARKED, REBUILD, STATUS, StatusRow
from ledger.projection.store import read_checkpoint
from ledger.seals.status import STATUS as SEAL_STATUS
from ledger.seals.status import SealStatus
from ledger.settings import Settings
from ledger.spool.folder import Waiting, set_aside_in, waiting_in

_LEADER = f"SELECT {held(Lock.LEADER)}"


@click.command()
@json_option
def status(*, as_json: bool) -> None:
    """Show how far the state is behind the log, whether a projector runs, and what is parked."""
    with closing(connect(prepared_database(), "status")) as connection:
        row = connection.execute(STATUS).fetchone()
        if row is None:
            raise StateError("state.checkpoint is empty: run `ledger rebuild`")
        found = StatusRow(*row)
        parked = connection.execute(PARKED).fetchall()
        progress = connection.execute(REBUILD).fetchone() if found.rebuild_runs else None
        led = connection.execute(_LEADER.encode()).fetchone() == (True,)
        refused = count_refused(connection)
        seals = connection.execute(SEAL_STATUS).fetchone()
        assert seals  # noqa: S101 -- the query gives one row
        sealed = SealStatus(*seals)
    now = datetime.now(UTC)
    replica = Settings.from_environment().read_database_url
    read_at = _position_of(replica) if replica else None
    spool = Settings.from_environment().spool_dir
    spooled = waiting_in(spool) if spool else None
    if as_json:
        content = {
            "schema": schema.SCHEMA_VERSION,
            "version": found.fold_version,
            "position": found.position,
            "head": found.head,
            "lag_events": found.lag_events,
            "lag_seconds": found.lag_seconds(now),
            "projector": led,
            "parked": found.parked,
            "replica": {
                "answers": read_at is not None,
                "position": read_at,
                "lag_events": None if read_at is None else max(0, found.head - read_at),
            }
            if replica
            else None,
            "refused": {
                "deliveries": refused.deliveries,
                "of_known_labs": refused.of_known_labs,
                "known_labs": refused.known_labs,
            },
            "spool": spool
            and spooled
            and {
                "deliveries": spooled.deliveries,
                "bytes": spooled.bytes,
                "oldest": spooled.oldest and f"{spooled.oldest:%FT%TZ}",
                "set_aside": set_aside_in(spool),
            },
            "seals": {
                "position": sealed.sealed,
                "lag_seconds": sealed.lag_seconds(now),
                "signed_position": sealed.signed,
                "signed_at": sealed.signed_at and f"{sealed.signed_at.astimezone(UTC):%FT%TZ}",
            },
            "rebuild": progress and {"events_done": progress[0], "events_total": progress[1]},
        }
        click.echo(msgspec.json.encode(content))
        return
    click.echo(f"log        {count(found.head, 'event')}")
    click.echo(f"state      at position {found.position:,}, {_behind(found, now)}")
    click.echo(f"projector  {'runs' if led else 'does not run: start `ledger project`'}")
    if replica:
        click.echo(f"replica    {_replica(read_at, found)}")
    if found.fold_version != FOLD_VERSION:
        click.echo(
            f"version    the state is of version {found.fold_version} and this is version "
            f"{FOLD_VERSION}: run `ledger rebuild`"
        )
    if progress:
        done, total, since = progress
        click.echo(f"rebuild    {done:,} of {count(total, 'event')}, since {utc(since)}")
    click.echo(f"parked     {count(found.parked, 'bill')}")
    for lab_id, bill_id, _, error in parked:
        click.echo(f"           lab {shown(lab_id)} bill {shown(bill_id)}: {shown(error)}")
    if parked:
        click.echo("           `ledger rebuild --bill LAB BILL` retries one")
    click.echo(f"refused    {_refused(refused)}")
    if spool and spooled:
        click.echo(f"spool      {_spooled(spooled, set_aside_in(spool), now)}")
    click.echo(f"seals      {_sealed(sealed, now)}")


def _position_of(replica: str) -> int | None:
    """Return the position of a replica's state, None if it does not answer."""
    try:
        with closing(connect(replica, "status")) as connection:
            return read_checkpoint(connection).position
    except (DatabaseUnavailableError, StateError):
        return None


def _replica(position: int | None, found: StatusRow) -> str:
    if position is None:
        return "does not answer: check LEDGER_READ_DATABASE_URL and that its server runs"
    behind = max(0, found.head - position)
    late = f"{count(behind, 'event')} behind" if behind else "up to date"
    return f"at position {position:,}, {late}"


def _spooled(waiting: Waiting, set_aside: int, now: datetime) -> str:
    aside = f"; {count(set_aside, 'damaged record')} set aside" if set_aside else ""
    if not waiting.bytes:
        return f"no delivery waits on disk{aside}"
    number = count(waiting.deliveries, "delivery", "deliveries")
    since = f", the oldest for {lasting(now - waiting.oldest)}" if waiting.oldest else ""
    return f"{number} wait on disk for the database{since}{aside}"


def _sealed(found: SealStatus, now: datetime) -> str:
    waits = ""
    if found.oldest_not_sealed is not None:
        waits = f"; the next event has waited {lasting(now - found.oldest_not_sealed)}"
    if found.signed is None or found.signed_at is None:
        return f"up to position {found.sealed:,}, not signed{waits}"
    signed = f"{found.signed:,} {utc(found.signed_at)}"
    return f"up to position {found.sealed:,}, signed up to {signed}{waits}"


def _refused(found: Counts) -> str:
    if not found.deliveries:
        return "no delivery with a wrong token waits"
    waiting = count(found.deliveries, "delivery", "deliveries")
    known = f"{found.of_known_labs:,} from {count(found.known_labs, 'known lab')}"
    return f"{waiting} with a wrong token, {known}: `ledger refused list`"


def _behind(found: StatusRow, now: datetime) -> str:
    if not found.lag_events:
        return "up to date"
    waited = "less than a second"
    if found.oldest_not_folded is not None:
        waited = lasting(now - found.oldest_not_folded)
    return f"{count(found.lag_events, 'event')} behind; the oldest has waited {waited}"
