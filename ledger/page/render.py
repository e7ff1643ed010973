"""Writes pages: the templates, and what all of them may use."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from litestar import Request, Response
from markupsafe import Markup, escape

from ledger.api.services import services_of
from ledger.event_types import EVENT_TYPES
from ledger.operations.api_keys import SCOPES
from ledger.operations.render.words import count, lasting
from ledger.operations.render.words import shown as shown_text
from ledger.page import assets, words
from ledger.page.cookies import ZONE
from ledger.page.guards import caller_of, operator_of
from ledger.page.headers import SECURITY

AnyRequest = Request[Any, Any, Any]


def respond(
    request: AnyRequest,
    template: str,
    *,
    code: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,  # noqa: ANN401 -- whatever the template shows
) -> Response[str]:
    """Write a page. `position` is the log position that it is true for, where there is one."""
    prefix = services_of(request.app.state).settings.path_prefix
    caller, operator = caller_of(request), operator_of(request)
    zone_name, zone = zone_of(request)
    shared = {
        "caller": caller,
        "operator": operator.name if operator else None,
        "can_operate": caller is not None and SCOPES.index(caller.scope) >= 1,
        "can_administer": caller is not None and caller.scope == "admin",
        "now": datetime.now(UTC),
        "here": path_with_query(request),
        "section": _section(request.url.path),
        "zone": zone,
        "zone_name": zone_name,
        "prefix": prefix,
        "position": None,
    }
    content = _environment().get_template(template).render({**shared, **values})
    return Response(
        content,
        status_code=code,
        media_type="text/html; charset=utf-8",
        headers={**SECURITY, "Cache-Control": "no-store", **(headers or {})},
    )


def _section(path: str) -> str:
    """Return the part of the page that a path belongs to, as the navigation names it."""
    first, *more = path.strip("/").split("/")
    if first == "labs" and more:
        return "bills"
    return {"imports": "requests", "refused": "system"}.get(first, first)


def path_with_query(request: AnyRequest) -> str:
    """Return the path of a request as links on the page name it, without the prefix."""
    query = request.scope["query_string"].decode("latin-1")
    # A path that began with two slashes would name another host.
    path = "/" + request.scope["raw_path"].decode("latin-1").lstrip("/")
    return f"{path}?{query}" if query else path


def zone_of(request: AnyRequest) -> tuple[str, tzinfo]:
    """Return the zone in which the reader wants to see times, UTC unless they chose another."""
    name = request.cookies.get(ZONE, "UTC")
    zone = find_zone(name)
    return (name, zone) if zone else ("UTC", UTC)


def find_zone(name: str) -> tzinfo | None:
    """Return the time zone with a name (IANA), None if this machine knows none."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # a bad name, a folder, an unknown name
        return None


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ledger.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": shown_text,
        "segment": lambda text: quote(text, safe=""),
        "number": lambda number: f"{number:,}",
        "time": _time,
        "lasting": lasting,
        "ago": _ago,
        "state_words": words.STATES.__getitem__,
        "missing_words": words.MISSING_STATES.__getitem__,
    }
    environment.globals |= {
        "asset": lambda name: f"/assets/{assets.hashed(name)}",
        "count": count,
        "event_types": EVENT_TYPES,
        "query": _query,
        "words": words,
    }
    return environment


def _query(**parameters: object) -> str:
    """Return a query string of what is given; what is empty is left out. `from_` is `from`."""
    given = {
        name.rstrip("_"): value for name, value in parameters.items() if value not in (None, "")
    }
    return f"?{urlencode(given)}" if given else ""


@pass_context
def _time(context: Context, at: datetime | None) -> str | Markup:
    """Show a time in the reader's zone, to the second."""
    if at is None:
        return Markup('<span class="none">none</span>')
    zone: tzinfo = context["zone"]
    utc, shown = at.astimezone(UTC), at.astimezone(zone)
    name = "UTC" if zone is UTC else escape(f"{shown:%Z}")
    # Not `Markup.format`: a page shows a hundred times, and nothing else in one needs escaping.
    return Markup(  # noqa: S704 -- digits, and a name that was escaped
        f'<time datetime="{utc:%FT%TZ}" title="{utc:%F %T} UTC">{shown:%F %T} <small>{name}</small>'
        "</time>"
    )


@pass_context
def _ago(context: Context, at: datetime) -> str:
    """Say how long ago a time was, or how long it is to come."""
    passed: timedelta = context["now"] - at
    if passed < timedelta():
        return f"in {lasting(-passed)}"
    return f"{lasting(passed)} ago"
