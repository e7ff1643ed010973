"""A person's browser for tests of the page: it has cookies, and says which site sends."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from litestar.handlers import HTTPRouteHandler

from tests.support.server import PLAIN

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of the framework, when routes are made
    from ledger.page.routes import make_pages

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


@contextmanager
def browser(url: str) -> Iterator[httpx.Client]:
    """Give a browser that nobody has logged in with."""
    with httpx.Client(
        base_url=url,
        headers={"Accept": "text/html", **SAME_ORIGIN},
        timeout=30,
        trust_env=False,
        verify=PLAIN,
    ) as client:
        yield client


@contextmanager
def logged_in(url: str, key: str, name: str = "Ann") -> Iterator[httpx.Client]:
    """Give a browser that is logged in with a key."""
    with browser(url) as client:
        response = client.post("/login", data={"key": key, "name": name})
        assert response.status_code == 303, response.text
        yield client


def page_routes() -> list[tuple[str, str, dict[str, Any]]]:
    """Return the method, the path and the options of all routes of the page."""
    return [
        (method, route.path_format, dict(handler.opt))
        for route in make_pages().routes
        for handler in getattr(route, "route_handlers", ())
        if isinstance(handler, HTTPRouteHandler)
        for method in sorted(handler.http_methods)
        if method in ("GET", "POST")
    ]


def names_of(page: str) -> list[str]:
    """Return the missing events that a page lets one choose, by their names."""
    found = re.findall(r'name="event" value="([^"]*)"', page)
    return [name.replace("&#34;", '"').replace("&amp;", "&") for name in found]
