"""Seals over HTTP: signed checkpoints of the log, and proofs that an event is in it."""

from typing import Annotated

from litestar import Response, get
from litestar.params import Parameter
from msgspec.structs import replace
from psycopg.sql import SQL

from ledger.api.http.guards import READ
from ledger.api.http.pages import first_page
from ledger.api.http.parameters import (
    DEFAULT_LIMIT,
    LAST_POSITION,
    CursorText,
    Limit,
    WithBodies,
    read_cursor,
)
from ledger.api.http.responses import answer, encode, ok
from ledger.api.permissions import Caller
from ledger.api.schemas import Checkpoint, Page
from ledger.api.services import Services
from ledger.seals.leaf import LEAF
from ledger.seals.proofs import HEADS, InclusionProof, leaf_parameters, wanted
from ledger.seals.tiles import StoredTree, tiles_query

Position = Annotated[
    int, Parameter(ge=0, le=LAST_POSITION, description="The event's position in the log.")
]

_CHECKPOINTS = SQL("""
SELECT tree_size, key_id, root, sealed_at, note
FROM ledger.seal_checkpoint
WHERE (%s::bigint IS NULL OR (tree_size, key_id) < (%s, %s))
ORDER BY tree_size DESC, key_id DESC
LIMIT %s
""")


@get(
    "/v1/checkpoints",
    opt=READ,
    operation_id="ListCheckpoints",
    responses={200: ok(Page[Checkpoint], description="The newest first.")},
)
async def list_checkpoints(
    services: Services, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response[bytes]:
    """List the signed checkpoints of the log.

    A checkpoint is of the log as a whole, of all labs, and tells nothing of an event. What proves
    something is a copy that was kept elsewhere.
    """
    size, key_id = read_cursor(cursor, int, str) or (None, None)
    rows = await services.fetch(_CHECKPOINTS, (size, size, key_id, limit + 1))
    found = [
        Checkpoint(tree_size, key_id, root.hex(), sealed_at, note)
        for tree_size, key_id, root, sealed_at, note in rows
    ]
    content = first_page(found, limit, encode, lambda item: (item.tree_size, item.key_id))
    return answer(content, services.watch.position)


@get(
    "/v1/events/{position:int}/proof",
    opt=READ,
    operation_id="GetEventProof",
    responses={200: ok(InclusionProof, description="The proof.")},
)
async def get_event_proof(
    services: Services,
    caller: Caller,
    position: Position,
    *,
    with_bodies: WithBodies = False,
) -> Response[bytes]:
    """Prove that an event is in the log, and what was received when.

    The proof is in the newest signed checkpoint, or in the tree as it is if that lacks the event.
    Its hashes of other events tell nothing of them. It proves the event without its body as well.
    """
    shows = caller.body_rule(asked=with_bodies)
    rows = await services.fetch(LEAF, leaf_parameters(position, caller.labs))
    ((size, note),) = await services.fetch(HEADS)
    found = wanted(position, rows, (size, note))
    *_, is_erasable = rows[0]
    if is_erasable and not shows(found.leaf.event_type):
        found = replace(found, body=None)
    tree = StoredTree(await services.fetch(tiles_query(found.nodes)))
    return answer(encode(found.proof(tree)), services.watch.position)
