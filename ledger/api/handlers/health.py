"""Whether the service lives and whether it can do its work. Open to everybody."""

import psycopg
from litestar import get
from litestar.openapi.datastructures import ResponseSpec
from psycopg.sql import SQL

from ledger import schema
from ledger.api.http.problems import ProblemError
from ledger.api.schemas import Health
from ledger.api.services import Services
from ledger.errors import AppendError, DatabaseUnavailableError, SchemaError, one_line

_READY = SQL(
    "SELECT (SELECT version_num FROM ledger.schema_version),"
    " current_setting('transaction_read_only')::boolean"
)

PROOF_SECONDS = 2.0
"""How long a probe waits for the proof; an orchestrator's own limit may be shorter."""


@get("/health/live", operation_id="GetLiveness")
async def get_liveness() -> Health:
    """Respond as long as the process does."""
    return Health("live")


@get(
    "/health/ready",
    operation_id="GetReadiness",
    responses={503: ResponseSpec(None, description="A problem that says what is in the way.")},
)
async def get_readiness(services: Services) -> Health:
    """Respond whether a delivery could be made durable now, in the log or in the spool.

    A lag of the projection does not matter. A server that takes no deliveries and reads from a
    replica is ready while that answers.
    """
    if services.lane and services.lane.is_spooling:
        return Health("ready")
    try:
        version, read_only = (await services.on_primary.fetch(_READY))[0]
        schema.judge(version, may_be_newer=True)
    except psycopg.errors.UndefinedTable:
        raise _not_ready("the database was not prepared for Ledger: run `ledger migrate`") from None
    except SchemaError as error:
        raise _not_ready(str(error)) from None
    except (psycopg.Error, DatabaseUnavailableError) as error:
        if services.lane and services.lane.can_spool:
            return Health("ready")
        words = one_line(error)
        raise _not_ready(f"the database does not answer: {words}") from error
    if services.primary and not services.lane and not services.watch.answers:
        raise _not_ready("the replica that this server reads from does not answer")
    if read_only and not (services.lane and services.lane.can_spool):
        raise _not_ready("the database takes no writes: it is a standby or set to read only")
    try:
        if services.lane:
            await services.lane.prove(within=PROOF_SECONDS)
    except AppendError as error:
        raise _not_ready(f"no delivery can be made durable: {error}") from error
    return Health("ready")


def _not_ready(detail: str) -> ProblemError:
    return ProblemError(503, detail, {"Retry-After": "1"})
