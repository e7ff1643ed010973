"""Labs over HTTP."""

from datetime import UTC, datetime
from typing import Annotated

from litestar import Response, get
from litestar.params import QueryParameter
from psycopg import Connection

from ledger.api.http.guards import READ
from ledger.api.http.parameters import (
    DEFAULT_LIMIT,
    CursorText,
    Limit,
    read_cursor,
    write_cursor,
)
from ledger.api.http.responses import answer, encode, ok, page
from ledger.api.permissions import Caller
from ledger.api.schemas import Page
from ledger.api.services import Services
from ledger.model.silence import HearingState
from ledger.operations.lab_list import LabItem, list_lab_items
from ledger.projection import store


@get(
    "/v1/labs",
    opt=READ,
    operation_id="ListLabs",
    responses={200: ok(Page[LabItem], description="In order of their ids.")},
)
async def list_labs(
    services: Services,
    caller: Caller,
    lab_id: str | None = None,
    hearing_state: Annotated[
        HearingState | None, QueryParameter(name="state", required=False)
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: CursorText = None,
) -> Response[bytes]:
    """List labs that an event was received from, and whether they are silent."""
    key = read_cursor(cursor, str)
    labs = caller.narrowed(lab_id)

    def work(connection: Connection) -> tuple[int, list[LabItem]]:
        position = store.read_checkpoint(connection).position
        found = list_lab_items(
            connection,
            services.policy,
            datetime.now(UTC),
            services.hearings,
            labs=labs,
            state=hearing_state,
            after=key[0] if key else None,
            limit=limit + 1,
        )
        return position, found

    # The times in which nothing could be received are on the primary.
    position, found = await services.on_primary.run(work)
    following = write_cursor(found[limit - 1].lab_id) if len(found) > limit else None
    return answer(page(map(encode, found[:limit]), following), position)
