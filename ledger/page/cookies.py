"""The cookies of the page: the session, and the zone in which times are shown."""

import ipaddress
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection
from litestar.datastructures import Cookie

from ledger.operations.sessions import LASTING

ZONE = "ledger-zone"

_OVER_HTTPS = "__Host-ledger"
_ON_LOOPBACK = "ledger-session"

_YEAR = timedelta(days=365)

AnyConnection = ASGIConnection[Any, Any, Any, Any]


def session_token(connection: AnyConnection) -> str | None:
    """Return the token of the session that a request presents."""
    return connection.cookies.get(_session_name(connection))


def session_cookie(connection: AnyConnection, token: str) -> Cookie:
    """Return the cookie that holds a session.

    Browsers send it over HTTPS alone; on this machine's own address there is no HTTPS to ask for.
    """
    return Cookie(
        key=_session_name(connection),
        value=token,
        max_age=int(LASTING.total_seconds()),
        path="/",
        httponly=True,
        secure=not _is_plain_loopback(connection),
        samesite="strict",
    )


def no_session_cookie(connection: AnyConnection) -> Cookie:
    """Return what makes the browser forget the session."""
    cookie = session_cookie(connection, "")
    cookie.max_age = 0
    return cookie


def zone_cookie(connection: AnyConnection, zone: str) -> Cookie:
    """Return the cookie that holds the zone of the reader."""
    return Cookie(
        key=ZONE,
        value=zone,
        max_age=int(_YEAR.total_seconds()),
        path="/",
        httponly=True,
        secure=not _is_plain_loopback(connection),
        samesite="strict",
    )


def needs_https(connection: AnyConnection) -> bool:
    """Return whether the browser would not keep a session, for it came without HTTPS."""
    return connection.headers.get("origin", "").startswith("http:") and not _is_plain_loopback(
        connection
    )


def _session_name(connection: AnyConnection) -> str:
    return _ON_LOOPBACK if _is_plain_loopback(connection) else _OVER_HTTPS


def _is_plain_loopback(connection: AnyConnection) -> bool:
    if connection.scope.get("scheme") == "https":
        return False
    try:
        host = urlsplit(f"//{connection.headers.get('host', '')}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
