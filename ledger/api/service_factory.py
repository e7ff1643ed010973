"""Makes the services of a process: of its database, and of a replica that answers the reads."""

from msgspec.structs import replace
from psycopg import AsyncConnection
from psycopg.types.json import set_json_loads

from ledger.api.authentication import Authenticator
from ledger.api.checkpoint_watcher import CheckpointWatcher
from ledger.api.rate_limit import RateLimit
from ledger.api.services import Services
from ledger.api.shared_call import SharedCall
from ledger.api.threads import Threads
from ledger.eventlog.group_commit import GroupCommit
from ledger.operations.policy import Policy
from ledger.operations.silence import Hearings
from ledger.postgres.connect import make_pool
from ledger.settings import Settings

POOL_SIZE = 8
"""Connections for the API's queries, per process."""


def make_services(
    settings: Settings,
    url: str,
    lane: GroupCommit | None,
    policy: Policy,
    *,
    authenticator: Authenticator,
    rates: RateLimit,
) -> Services:
    """Make what the handlers share; its pool is still closed."""
    on_primary = Services(
        settings=settings,
        pool=make_pool(url, "api", size=POOL_SIZE, configure=_prepare),
        lane=lane,
        watch=CheckpointWatcher(url),
        authenticator=authenticator,
        rates=rates,
        url=url,
        read_url=url,
        policy=policy,
        reports=Threads("reports", size=2, waiting=30),
        decisions=Threads("decisions", size=3, waiting=60),
        flabs=Threads("flabs", size=1, waiting=4),
        gauges=Threads("gauges", size=1, waiting=3),
        scrapes=SharedCall(),
        pages=Threads("pages", size=1, waiting=60),
        hearings=Hearings(),
    )
    replica = settings.read_database_url
    if not replica:
        return on_primary
    return replace(
        on_primary,
        pool=make_pool(replica, "api", size=POOL_SIZE, configure=_prepare),
        watch=CheckpointWatcher(replica),
        read_url=replica,
        primary=on_primary,
    )


def _as_bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


async def _prepare(connection: AsyncConnection) -> None:
    # JSON stays bytes: its reader decodes it into the right type.
    set_json_loads(_as_bytes, connection)
    # A plan that was made while a table was small would be kept when it has grown.
    await connection.execute("SET enable_seqscan = off")
