"""The system: how far the state is, what is parked, versions, settings and keys."""

import platform
from datetime import UTC, datetime
from typing import Any

from litestar import Controller, Request, Response, get
from msgspec.structs import asdict
from psycopg import Connection

from ledger import schema
from ledger.api.handlers.projection import read_status
from ledger.api.http.guards import READ
from ledger.api.permissions import Caller
from ledger.api.services import Services
from ledger.model.bill import FOLD_VERSION
from ledger.model.operators import as_array
from ledger.operations.api_keys import ApiKey, list_keys
from ledger.page.render import respond
from ledger.projection.status import REBUILD
from ledger.settings import PREFIX, Settings

MOST = 100

AnyRequest = Request[Any, Any, Any]

_PARKED = """
SELECT p.lab_id, p.bill_id, p.position, p.error
FROM state.parked_bill p
WHERE %(labs)s::text[] IS NULL OR p.lab_id = ANY(%(labs)s::text[])
ORDER BY p.lab_id, p.bill_id
LIMIT %(limit)s
"""

SHOWN_SETTINGS = (
    "workers", "events", "retry_interval", "retry_count", "retry_timeout", "max_body",
    "read_rate", "spool_dir", "public_url", "path_prefix",
)  # fmt: skip
"""Settings that hold no secret, by name: a new one is shown only when it is named here."""


class SystemController(Controller):
    """The system."""

    path = "/"
    include_in_schema = False

    @get("/system", opt=READ)
    async def show(self, request: AnyRequest, services: Services, caller: Caller) -> Response[str]:
        """Show how far the state is behind the log and, to an administrator, the keys."""
        status = await read_status(services)
        values = {"labs": as_array(caller.labs), "limit": MOST + 1}
        is_admin = caller.scope == "admin"

        def work(
            connection: Connection,
        ) -> tuple[list[tuple[Any, ...]], tuple[Any, ...] | None, list[ApiKey]]:
            parked = connection.execute(_PARKED, values).fetchall()
            rebuild = connection.execute(REBUILD).fetchone() if status.rebuild_runs else None
            keys = list_keys(connection, labs=caller.labs, limit=MOST + 1) if is_admin else []
            return parked, rebuild, keys

        parked, rebuild, keys = await services.run(work)
        whole = is_admin and caller.labs is None
        return respond(
            request,
            "system.html",
            position=status.position,
            status=status,
            lag_seconds=status.lag_seconds(datetime.now(UTC)),
            parked=parked[:MOST],
            parked_cut=len(parked) > MOST,
            rebuild=rebuild,
            keys=keys[:MOST],
            keys_cut=len(keys) > MOST,
            versions={
                "schema": schema.SCHEMA_VERSION, "fold": FOLD_VERSION, "state": status.fold_version,
                "Python": platform.python_version(),
            },
            settings=_settings(services.settings) if whole else None,
        )  # fmt: skip


def _settings(settings: Settings) -> list[tuple[str, str]]:
    values = asdict(settings)
    return [(f"{PREFIX}{name.upper()}", _written(values[name])) for name in SHOWN_SETTINGS]


def _written(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
