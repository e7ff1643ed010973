"""API keys over HTTP."""

from collections.abc import Callable
from typing import Any, TypeVar

from litestar import Request, Response, get, post
from psycopg import Connection

from ledger.api.http.bodies import KeyBody, RotateBody, read_body
from ledger.api.http.guards import ADMIN
from ledger.api.http.pages import first_page
from ledger.api.http.parameters import DEFAULT_LIMIT, CursorText, Limit, read_cursor
from ledger.api.http.paths import identifier
from ledger.api.http.responses import answer, encode, ok
from ledger.api.permissions import Caller
from ledger.api.schemas import Page
from ledger.api.services import Services
from ledger.model.operators import Operator
from ledger.operations import api_keys
from ledger.operations.api_keys import ApiKey, Grant, NewApiKey

T = TypeVar("T")


@get(
    "/v1/keys",
    opt=ADMIN,
    operation_id="ListKeys",
    responses={200: ok(Page[ApiKey], description="In the order of their ids.")},
)
async def list_keys(
    services: Services, caller: Caller, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response[bytes]:
    """List API keys, revoked and expired ones too, without their secrets.

    A key that is for some labs sees those that are for none but these.
    """
    after = read_cursor(cursor, str)
    found = await services.run(
        lambda connection: api_keys.list_keys(
            connection, labs=caller.labs, after=after[0] if after else None, limit=limit + 1
        )
    )
    content = first_page(found, limit, encode, lambda one: (one.key_id,))
    return answer(content, services.watch.position)


@post(
    "/v1/keys",
    opt=ADMIN,
    operation_id="CreateKey",
    status_code=201,
    responses={201: ok(NewApiKey, description="The key. It is shown only here.")},
)
async def create_key(
    request: Request[Any, Any, Any], services: Services, caller: Caller, operator: Operator
) -> Response[bytes]:
    """Create an API key, which may do no more than the key that creates it."""
    body = await read_body(request, KeyBody)
    grant = Grant(body.scope, None if body.labs is None else tuple(body.labs), body.expires_at)
    caller.require_grant(grant)
    made = await _change(
        services,
        lambda connection: api_keys.create_key(connection, body.name, grant, by=operator),
    )
    response = _shown_once(services, made)
    response.status_code = 201
    return response


@post(
    "/v1/keys/{key_id:str}/rotate",
    opt=ADMIN,
    operation_id="RotateKey",
    status_code=200,
    responses={200: ok(NewApiKey, description="The key with its new secret, shown only here.")},
)
async def rotate_key(
    request: Request[Any, Any, Any],
    services: Services,
    caller: Caller,
    key_id: str,
    operator: Operator,
) -> Response[bytes]:
    """Give an API key a new secret. The old one stays valid for a while, by default a day.

    Only the last two secrets of a key can be valid.
    """
    body = await read_body(request, RotateBody)
    wanted = identifier(key_id)

    def work(connection: Connection) -> NewApiKey:
        found = api_keys.find_key(connection, wanted, labs=caller.labs)
        # The new secret would do more than the caller may.
        caller.require_grant(Grant(found.scope, found.labs, found.expires_at))
        return api_keys.rotate_key(
            connection, wanted, overlap_seconds=body.overlap_seconds, by=operator
        )

    return _shown_once(services, await _change(services, work))


@post(
    "/v1/keys/{key_id:str}/revoke",
    opt=ADMIN,
    operation_id="RevokeKey",
    status_code=200,
    responses={200: ok(ApiKey, description="The key, revoked.")},
)
async def revoke_key(services: Services, key_id: str, operator: Operator) -> Response[bytes]:
    """Revoke an API key with all its secrets, for good."""
    wanted = identifier(key_id)
    revoked = await _change(
        services, lambda connection: api_keys.revoke_key(connection, wanted, by=operator)
    )
    return answer(encode(revoked), services.watch.position)


async def _change(services: Services, work: Callable[[Connection], T]) -> T:
    """Change keys; return when this process knows of it."""
    done = await services.run(work)
    await services.authenticator.see_changes()
    return done


def _shown_once(services: Services, made: NewApiKey) -> Response[bytes]:
    response = answer(encode(made), services.watch.position)
    response.headers["Cache-Control"] = "no-store"
    return response
