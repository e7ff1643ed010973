"""Authorization: a route names the scope it needs, and a key holds scopes.

So far there is one key, `LEDGER_ADMIN_KEY`, which holds every scope.
"""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from ledger.api.http.problems import ADMITTED, ProblemError
from ledger.api.services import services_of
from ledger.credentials import without_scheme

READ = {"scope": "read"}
OPERATE = {"scope": "operate"}
ADMIN = {"scope": "admin"}


def require_scope(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Refuse a request without a key that holds the route's scope."""
    presented = without_scheme(connection.headers.get("authorization", "").encode())
    if not services_of(connection.app.state).admin_keys.accept(presented):
        raise ProblemError(
            401,
            "the API key is missing or wrong: send it as Authorization: Bearer KEY",
            {"WWW-Authenticate": 'Bearer realm="ledger"'},
        )
    connection.state[ADMITTED] = True
