"""Webhook tokens over HTTP: listed, created, revoked."""

from typing import Any

from litestar import Request, Response, get, post
from psycopg import Connection

from ledger.api.http.bodies import WebhookTokenBody, read_body
from ledger.api.http.guards import ADMIN
from ledger.api.http.pages import first_page
from ledger.api.http.parameters import DEFAULT_LIMIT, CursorText, Limit, read_cursor
from ledger.api.http.paths import identifier
from ledger.api.http.responses import answer, encode, ok
from ledger.api.permissions import Caller
from ledger.api.schemas import Page
from ledger.api.services import Services
from ledger.model.operators import Operator
from ledger.operations import webhook_tokens
from ledger.operations.webhook_tokens import NewWebhookToken, WebhookToken


@get(
    "/v1/webhook-tokens",
    opt=ADMIN,
    operation_id="ListWebhookTokens",
    responses={200: ok(Page[WebhookToken], description="In order of their ids.")},
)
async def list_webhook_tokens(
    services: Services, caller: Caller, limit: Limit = DEFAULT_LIMIT, cursor: CursorText = None
) -> Response[bytes]:
    """List the webhook tokens of the database, valid and revoked, without their secrets.

    Those of the setting LEDGER_WEBHOOK_TOKENS are valid, too, and are not listed. A key that is for
    some labs sees the tokens that are for none but these.
    """
    key = read_cursor(cursor, str)

    def work(connection: Connection) -> list[WebhookToken]:
        return webhook_tokens.list_tokens(
            connection, labs=caller.labs, after=key[0] if key else None, limit=limit + 1
        )

    found = await services.run(work)
    content = first_page(found, limit, encode, lambda token: (token.token_id,))
    return answer(content, services.watch.position)


@post(
    "/v1/webhook-tokens",
    opt=ADMIN,
    operation_id="CreateWebhookToken",
    status_code=201,
    responses={201: ok(NewWebhookToken, description="The token, with its secret.")},
)
async def create_webhook_token(
    request: Request[Any, Any, Any], services: Services, caller: Caller, operator: Operator
) -> Response[bytes]:
    """Create a webhook token, for all labs or for some; its secret is shown this once.

    It is valid within seconds, besides all others. To replace a token, create one, give it to
    Flabs, and revoke the old one when it is no longer used.
    """
    body = await read_body(request, WebhookTokenBody)
    labs = None if body.labs is None else tuple(body.labs)
    caller.require_labs(labs)

    def work(connection: Connection) -> NewWebhookToken:
        return webhook_tokens.create_token(connection, labs=labs, name=body.name, by=operator)

    made = answer(encode(await services.run(work)), services.watch.position)
    made.status_code = 201
    made.headers["Cache-Control"] = "no-store"
    return made


@post(
    "/v1/webhook-tokens/{token_id:str}/revoke",
    opt=ADMIN,
    operation_id="RevokeWebhookToken",
    status_code=200,
    responses={200: ok(WebhookToken, description="The token, revoked.")},
)
async def revoke_webhook_token(
    services: Services, operator: Operator, token_id: str
) -> Response[bytes]:
    """Revoke a webhook token: within seconds, deliveries with it are refused.

    A token that is revoked already stays as it is.
    """

    def work(connection: Connection) -> WebhookToken:
        return webhook_tokens.revoke_token(connection, identifier(token_id), by=operator)

    return answer(encode(await services.run(work)), services.watch.position)
