"""The status of the projection over HTTP."""

from datetime import UTC, datetime

import psycopg
from litestar import Response, get
from psycopg.sql import SQL

from ledger.api.http.guards import READ
from ledger.api.http.responses import answer, encode, ok
from ledger.api.permissions import Caller
from ledger.api.schemas import Projection, RebuildProgress, Replica
from ledger.api.services import Services
from ledger.projection.status import REBUILD, STATUS, StatusRow

_PARKED_OF_LABS = SQL("SELECT count(*) FROM state.parked_bill WHERE lab_id = ANY(%s::text[])")


@get(
    "/v1/projection",
    opt=READ,
    operation_id="GetProjection",
    responses={200: ok(Projection, description="The projection.")},
)
async def get_projection(services: Services, caller: Caller) -> Response[bytes]:
    """Show how far the projection is behind the log, and whether a rebuild runs.

    A key that is for some labs gets the number of parked bills of these. The rest is of the log as
    a whole, as positions are.
    """
    primary = services.on_primary
    status = await read_status(primary)
    parked = status.parked
    if caller.labs is not None:
        parked = (await primary.fetch(_PARKED_OF_LABS, (list(caller.labs),)))[0][0]
    projection = Projection(
        version=status.fold_version,
        position=status.position,
        head=status.head,
        lag_events=status.lag_events,
        lag_seconds=status.lag_seconds(datetime.now(UTC)),
        parked=parked,
        rebuild=await _rebuild(primary) if status.rebuild_runs else None,
        replica=_replica(services, status),
    )
    return answer(encode(projection), status.position)


async def read_status(services: Services) -> StatusRow:
    """Read the status. Raises `StateError` if the checkpoint is missing."""
    return StatusRow(*(await services.fetch_state(SQL(STATUS)))[0])


def _replica(services: Services, status: StatusRow) -> Replica | None:
    if not services.primary:
        return None
    position = services.watch.position
    return Replica(
        answers=services.watch.answers,
        position=position,
        lag_events=max(0, status.head - position),
    )


async def _rebuild(services: Services) -> RebuildProgress | None:
    try:
        rows = await services.fetch(SQL(REBUILD))
    except psycopg.errors.UndefinedTable:  # the rebuild has just ended
        return None
    return RebuildProgress(*rows[0]) if rows else None
