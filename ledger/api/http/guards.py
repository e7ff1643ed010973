"""Authorization: a route names the scope it needs, and every request passes here."""

from typing import Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.enums import HttpMethod
from litestar.handlers.base import BaseRouteHandler

from ledger.api.http.problems import ADMITTED, ProblemError
from ledger.api.permissions import Caller
from ledger.api.services import services_of
from ledger.credentials import without_scheme
from ledger.operations.api_keys import Scope

READ: dict[str, Scope] = {"scope": "read"}
OPERATE: dict[str, Scope] = {"scope": "operate"}
ADMIN: dict[str, Scope] = {"scope": "admin"}

_CALLER = "caller"


async def require_scope(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Refuse a request without a key that holds the route's scope, and one read too many."""
    services = services_of(connection.app.state)
    caller = await services.authenticator.authenticate(presented_key(connection))
    connection.state[ADMITTED] = True
    caller.require(handler.opt["scope"])
    connection.state[_CALLER] = caller
    if connection.scope.get("method") == HttpMethod.GET and (
        wait := services.rates.take(caller.key_id)
    ):
        raise ProblemError(
            429,
            f"the API key {caller.key_id} reads more often than LEDGER_READ_RATE allows, "
            f"{services.settings.read_rate} times a second: try again later",
            {"Retry-After": str(wait)},
        )


def presented_key(connection: ASGIConnection[Any, Any, Any, Any]) -> str:
    """Return the key that a request presents, '' if there is none."""
    header = connection.headers.get("authorization", "")
    return without_scheme(header.encode("latin-1", "replace")).decode("latin-1")


async def provide_caller(request: Request[Any, Any, Any]) -> Caller:
    """Provide to a handler who sent the request."""
    caller = request.state[_CALLER]
    assert isinstance(caller, Caller)  # noqa: S101 -- set by the guard of every route under /v1
    return caller
