"""Errors as pages, which say what happened and what to do."""

from typing import Any
from urllib.parse import urlencode

import psycopg
import psycopg_pool
import structlog
from litestar import Response
from litestar.exceptions import HTTPException
from litestar.response import Redirect
from msgspec import Struct

from ledger.api.http.problems import HANDLERS as API_HANDLERS
from ledger.api.http.problems import ProblemError, on_http
from ledger.errors import (
    BusyError,
    DatabaseUnavailableError,
    DecisionError,
    FoldVersionError,
    ForbiddenError,
    ImportFileError,
    LedgerError,
    QuestionError,
    StateError,
    UnauthenticatedError,
    UnknownSubjectError,
    one_line,
)
from ledger.logging_setup import request_id
from ledger.page.headers import SECURITY
from ledger.page.render import AnyRequest, path_with_query, respond

_log = structlog.get_logger(__name__)


class _Said(Struct, frozen=True):
    """What a page says of an error."""

    status: int
    title: str
    detail: str
    advice: str


_AGAIN = "Nothing is lost: what has been received is safe. Try again in a moment."
_AWAY = "The database does not answer"
_REBUILD = "Run `ledger migrate` and, if it says so, `ledger rebuild`; then open the page again."
_ASK = "Ask an administrator for a key that may, or go back."
_BACK = "Go back and mend what you asked for."
_LINK = "The link may be old, or your key may not be for the lab that it is about."


def on_error(request: AnyRequest, error: Exception) -> Response[Any]:
    """Respond to any error with a page; who is not logged in is taken to the login."""
    if isinstance(error, UnauthenticatedError) and request.method == "GET":
        return _to_login(request)
    said = _said(error)
    if said.status >= 500:  # noqa: PLR2004 -- the class of statuses
        _log.warning("page failed", path=request.url.path, error=one_line(error))
    headers = {"Retry-After": "1"} if said.status in (429, 503) else {}
    return respond(request, "error.html", code=said.status, headers=headers, said=said)


def _to_login(request: AnyRequest) -> Response[Any]:
    if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        # The browser kept the cookie back, for a link of another site led here. It is sent when
        # this page asks for itself.
        return respond(request, "continue.html")
    prefix = request.app.state["services"].settings.path_prefix
    headers = {**SECURITY, "Cache-Control": "no-store"}
    here = path_with_query(request)
    query = "" if here == "/" else f"?{urlencode({'next': here})}"
    return Redirect(f"{prefix}/login{query}", status_code=303, headers=headers)


def _said(error: Exception) -> _Said:  # noqa: C901, PLR0911 -- one kind of error each
    match error:
        case UnauthenticatedError():
            return _Said(401, "You are not logged in", str(error), "Log in, then do it again.")
        case ForbiddenError():
            return _Said(403, "You may not do this", str(error), _ASK)
        case UnknownSubjectError():
            return _Said(404, "There is nothing here", str(error), _LINK)
        case ProblemError():
            title = "There is nothing here" if error.status == 404 else "This cannot be shown"  # noqa: PLR2004
            return _Said(error.status, title, error.detail, _BACK)
        case HTTPException():
            title = "There is nothing here" if error.status_code == 404 else "This went wrong"  # noqa: PLR2004
            return _Said(error.status_code, title, error.detail, _LINK)
        case psycopg.errors.UndefinedTable() | psycopg.errors.UndefinedColumn():
            detail = "The database's schema or state is not the one that this version works with."
            return _Said(503, "The schema is old", detail, _REBUILD)
        case StateError() | FoldVersionError():
            return _Said(503, "The state is missing", str(error), _REBUILD)
        case psycopg.OperationalError() | psycopg_pool.PoolTimeout() | DatabaseUnavailableError():
            return _Said(503, _AWAY, "Ledger goes on receiving where a spool is set.", _AGAIN)
        case BusyError() | DecisionError():
            return _Said(503, "Not now", str(error), _AGAIN)
        case QuestionError() | ImportFileError():
            return _Said(400, "This cannot be done", str(error), _BACK)
        case LedgerError():
            return _Said(500, "This went wrong", str(error), _AGAIN)
        case _:
            _log.exception("page failed", error=str(error))
            detail = (
                "The request failed because of a fault in the server; "
                f"its log has the details at request_id {request_id()}."
            )
            return _Said(500, "This went wrong", detail, _AGAIN)


def on_unknown_path(request: AnyRequest, error: HTTPException) -> Response[Any]:
    """Respond that there is nothing at a path: with a page to a browser, else as the API does."""
    wants_page = "text/html" in request.headers.get("accept", "")
    if wants_page and not request.url.path.startswith(("/v1/", "/webhooks/")):
        said = _Said(404, "There is nothing here", "No page has this address.", _LINK)
        return respond(request, "error.html", code=404, said=said)
    return on_http(request, error)


HANDLERS: dict[int | type[Exception], Any] = dict.fromkeys(API_HANDLERS, on_error)
"""For the routes of the page, in the place of the API's."""
