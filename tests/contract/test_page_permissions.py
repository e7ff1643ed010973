"""The page shows and takes what the API does: every route is walked with every kind of key."""

import json
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from ledger.operations.api_keys import SCOPES, Scope
from tests.support.page import browser, logged_in, page_routes
from tests.support.postgres import ready_database
from tests.support.server import LedgerServer
from tests.support.two_labs import (
    LAST_OF_A,
    MARK,
    NUMBER_OF_B,
    SHARED_INTEGRATOR,
    WINDOW_OF_B,
    A,
    B,
    fill,
    key,
    refused_id,
)

pytestmark = pytest.mark.slow

ROUTES = page_routes()
WITH_SESSION = [(method, path) for method, path, options in ROUTES if "scope" in options]
WITHOUT_SESSION = {"/login", "/login/link/{token}", "/logout", "/zone", "/assets/{name}"}
"""Paths that need no session: they show nothing of a lab."""

STREAMS = {"/live"}
"""Paths that answer without an end, and tell nothing but the state's position."""

LAST_OF_B = LAST_OF_A + 1
REFUSED_OF_A = refused_id("refused1")
REFUSED_OF_B = refused_id(f"{MARK}refused1", B)

OF_LAB_A: dict[str, list[str]] = {
    "/": ["/"],
    "/bills": [
        "/bills", f"/bills?lab={A}", "/bills?state=completed", "/bills?missing=yes",
        "/bills?since=2024-01-01", "/bills?q=bill", "/bills?q=test",
        f"/bills?q={SHARED_INTEGRATOR}",
    ],
    "/labs/{lab_id}/bills/{bill_id}": [
        f"/labs/{A}/bills/bill", f"/labs/{A}/bills/bill?at=1", f"/labs/{A}/bills/asked",
    ],
    "/missing-events": [
        "/missing-events", f"/missing-events?lab={A}", "/missing-events?state=overdue",
        "/missing-events?state=waived", "/missing-events?type=bill.created",
    ],
    "/missing-events/labs": [
        "/missing-events/labs", f"/missing-events/labs?lab={A}",
        "/missing-events/labs?state=overdue",
    ],
    "/missing-events/ask": ["/missing-events/ask", f"/missing-events/ask?lab={A}"],
    "/requests": ["/requests"],
    "/requests/{number}": ["/requests/1"],
    "/requests/{number}/close": ["/requests/1/close"],
    "/requests/{number}/letter/{ending}": [
        "/requests/1/letter/md", "/requests/1/letter/csv", "/requests/1/letter/json",
        "/requests/1/letter/txt",
    ],
    "/loss-windows": ["/loss-windows", "/loss-windows?state=open"],
    "/labs": ["/labs", "/labs?state=silent"],
    "/expected-bills": [
        "/expected-bills", f"/expected-bills?lab={A}", "/expected-bills?state=unseen",
    ],
    "/expected-bills/file": ["/expected-bills/file"],
    "/imports": ["/imports", "/imports?request=1"],
    "/refused": ["/refused", "/refused?reason=wrong", f"/refused?lab={A}"],
    "/refused/{delivery_id}": [f"/refused/{REFUSED_OF_A}"],
    "/log": ["/log", "/log?from=1", "/log?to=99", f"/log?lab={A}", "/log?source=webhook"],
    "/log/unreadable": ["/log/unreadable"],
    "/log/{position}": ["/log/1"],
    "/log/{position}/body": ["/log/1/body"],
    "/system": ["/system"],
}  # fmt: skip
"""Addresses of each path that lab A's key may see."""

OF_LAB_B = [
    f"/labs/{B}/bills/{MARK}bill",
    f"/labs/{B}/bills/{MARK}bill?at=1",
    f"/requests/{NUMBER_OF_B}",
    f"/requests/{NUMBER_OF_B}/close",
    f"/requests/{NUMBER_OF_B}/letter/md",
    f"/refused/{REFUSED_OF_B}",
]
"""Addresses at which there is nothing for lab A's key."""

SECRETS = [
    f"{MARK}{what}" for what in ("test", "completed-status", "url", "late", "asked", " note", " by")
]

NEEDS: dict[tuple[str, str], Scope] = {
    (method, path): options["scope"] for method, path, options in ROUTES if "scope" in options
}
"""The scope that a route needs."""

POSTS = {
    "/imports": {},
    "/expected-bills/file": {},
    "/expected-bills/preview": {"integrator": f"{MARK}-expected", "by": "x"},
    "/expected-bills/expect": {
        "integrator": f"{MARK}-expected", "by": "2024-01-01T10:00", "lab": B,
    },
    "/expected-bills/stop": {"integrator": f"{MARK}-expected"},
    "/refused/preview": {"action": "drop-chosen", "id": REFUSED_OF_B},
    "/refused/decide": {
        "chosen": json.dumps({"action": "drop", "ids": [REFUSED_OF_B], "lab": None, "reason": None})
    },
    "/system/parked/preview": {"bill": json.dumps([B, f"{MARK}parked"])},
    "/system/parked/retry": {"bill": json.dumps([B, f"{MARK}parked"])},
    "/missing-events/preview": {
        "event": json.dumps([B, f"{MARK}bill", "report.completed", f"{MARK}test"])
    },
    "/missing-events/waive": {
        "event": json.dumps([B, f"{MARK}bill", "report.completed", f"{MARK}test"]), "reason": "r",
    },
    "/missing-events/ask": {"lab": B},
    "/requests/{number}/close": {"reason": "r"},
    "/loss-windows/preview": {"window": json.dumps([f"{at:%FT%TZ}" for at in WINDOW_OF_B])},
    "/loss-windows/close": {
        "window": json.dumps([f"{at:%FT%TZ}" for at in WINDOW_OF_B]), "reason": "r",
    },
}  # fmt: skip
"""What lab A's operator posts about lab B."""

REFUSED = {400, 403, 404}
HARMLESS = {"/loss-windows/preview", "/imports", "/expected-bills/file"}
"""Shows only what was posted, or that no file was."""


@pytest.fixture(scope="module")
def server(
    postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LedgerServer]:
    """Give a server whose log holds lab A and lab B."""
    with ExitStack() as stack:
        url = stack.enter_context(ready_database(postgres_url, migrated_template))
        fill(url, with_b=True)
        started = LedgerServer(url, tmp_path_factory.mktemp("page"))
        started = stack.enter_context(started)
        head = started.api.get("/v1/projection").json()["head"]
        assert started.api.get("/v1/projection", params={"min_position": head}).status_code == 200
        yield started


def filled(path: str) -> str:
    return path.replace("{number}", str(NUMBER_OF_B))


def test_every_route_is_walked() -> None:
    assert {path for method, path in WITH_SESSION if method == "GET"} == set(OF_LAB_A) | STREAMS
    assert {path for method, path in WITH_SESSION if method == "POST"} == set(POSTS)
    assert {path for _, path, options in ROUTES if "scope" not in options} == WITHOUT_SESSION


def test_nobody_sees_anything_without_a_session(server: LedgerServer) -> None:
    with browser(server.url) as nobody:
        for path, addresses in OF_LAB_A.items():
            response = nobody.get(addresses[0])
            assert response.status_code == 303, path
            assert response.headers["location"].startswith("/login"), path
        for path in STREAMS:
            assert nobody.get(path).status_code == 303
        for path, form in POSTS.items():
            response = nobody.post(filled(path), data=form)
            assert response.status_code == 401, path


@pytest.mark.parametrize(
    ("name", "scope"), [("reader", "read"), ("operator", "operate"), ("admin", "admin")]
)
def test_a_key_of_lab_a_sees_nothing_of_lab_b(
    server: LedgerServer, name: str, scope: Scope
) -> None:
    with logged_in(server.url, key(name)) as client:
        for path, addresses in OF_LAB_A.items():
            for address in addresses:
                response = client.get(address)
                if SCOPES.index(scope) < SCOPES.index(NEEDS["GET", path]):
                    assert response.status_code == 403, address
                    continue
                assert response.status_code == 200, address
                assert MARK not in response.text, address
        for address in OF_LAB_B:
            response = client.get(address)
            refused = {404} if name == "admin" else {403, 404}
            assert response.status_code in refused, address
            assert not any(secret in response.text for secret in SECRETS), address
        assert f"{MARK}bill" not in client.get(f"/bills?q={MARK}").text


def test_no_event_of_lab_b_has_a_page_for_lab_a(server: LedgerServer) -> None:
    with (
        logged_in(server.url, key("reader")) as client,
        logged_in(server.url, key("readall")) as all_,
    ):
        foreign = [
            position
            for position in range(1, LAST_OF_B + 8)
            if MARK in all_.get(f"/log/{position}/body").text
        ]
        assert foreign
        for position in foreign:
            assert client.get(f"/log/{position}").status_code == 404
            assert client.get(f"/log/{position}/body").status_code == 404


def test_a_read_key_is_refused_when_it_posts_and_sees_no_button(server: LedgerServer) -> None:
    with logged_in(server.url, key("readall")) as client:
        before = head(server)
        for path, form in POSTS.items():
            assert client.post(filled(path), data=form).status_code == 403, path
        assert head(server) == before
        for path in ("/missing-events", f"/labs/{A}/bills/bill", "/requests/1", "/loss-windows"):
            page = client.get(path).text
            actions = [f'action="{post.split("{")[0]}' for post in POSTS]
            assert not any(action in page for action in actions), path


@pytest.mark.parametrize("name", ["operator", "admin"])
def test_an_operator_of_lab_a_changes_nothing_of_lab_b(server: LedgerServer, name: str) -> None:
    with logged_in(server.url, key(name)) as client:
        before = head(server)
        for path, form in POSTS.items():
            response = client.post(filled(path), data=form)
            assert response.status_code in ({200} if path in HARMLESS else REFUSED), path
            assert not any(secret in response.text for secret in SECRETS), path
        assert head(server) == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {},
    ],
)
def test_nothing_is_posted_from_elsewhere(server: LedgerServer, headers: dict[str, str]) -> None:
    with logged_in(server.url, key("operall")) as client:
        before = head(server)
        del client.headers["Sec-Fetch-Site"]
        for path, form in [*POSTS.items(), ("/logout", {}), ("/zone", {"zone": "UTC"})]:
            response = client.post(filled(path), data=form, headers=headers)
            assert response.status_code == 403, path
        assert (
            client.post(
                "/login", data={"key": key("operall"), "name": "x"}, headers=headers
            ).status_code
            == 403
        )
        assert head(server) == before
        assert client.get("/bills").status_code == 200


def test_a_page_of_this_server_may_post_by_its_origin(server: LedgerServer) -> None:
    with browser(server.url) as client:
        del client.headers["Sec-Fetch-Site"]
        client.headers["Origin"] = server.url
        response: httpx.Response = client.post("/login", data={"key": key("reader"), "name": "Ann"})
        assert response.status_code == 303


def head(server: LedgerServer) -> int:
    position: int = server.api.get("/v1/projection").json()["head"]
    return position
