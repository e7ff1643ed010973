"""The page as a person uses it: log in, look for a bill, waive, ask support, close."""

import html
import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psycopg
import pytest

from ledger.model.operators import Operator
from ledger.operations import sessions
from ledger.operations.api_keys import Grant, NewApiKey, create_key, digest_of, revoke_key
from ledger.operations.api_keys import Scope as KeyScope
from ledger.postgres.connect import connect
from tests.support.page import browser, logged_in, names_of
from tests.support.payloads import BASE, Payload, event
from tests.support.server import KEY, LedgerServer, wait_until

pytestmark = pytest.mark.slow

HOSTILE = [
    "<script>document.title='run'</script>",
    '"><img src=x onerror=alert(1)>',
    "a/b?c=d&e#f%2F",
    "\u202egnp.exe",
    "line\nbreak\ttab\u0007",
    "👩‍👩‍👧‍👦" * 20,
    "{{ 7 * 7 }}{% raw %}",
    "../../etc/passwd",
]


def send(server: LedgerServer, payloads: list[Payload]) -> None:
    """Send events and wait until the projection has them."""
    position = 0
    for payload in payloads:
        answer = server.anonymous.post(
            "/webhooks/flabs", json=payload, headers={"Authorization": f"Bearer {server.token}"}
        )
        assert answer.status_code == 200, answer.text
        position = answer.json()["position"]
    seen = server.api.get("/v1/projection", params={"min_position": position})
    assert seen.status_code == 200


def lost(lab: str, bill: str = "bill") -> list[Payload]:
    """Make a bill whose report.completed of one test never came."""
    done: dict[str, str | None] = {"t1": "completed"}
    return [
        event(lab, bill, tests={"t1": None}, integrator=f"i-{lab}"),
        event(lab, bill, "bill.completed", at=BASE + 60, tests=done, status="completed"),
    ]


def new_key(url: str, scope: KeyScope) -> NewApiKey:
    with closing(connect(url, "test")) as connection:
        return create_key(connection, "test", Grant(scope), by=Operator("ann"))


@pytest.fixture(scope="module")
def server(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LedgerServer]:
    """Give a server at which lost events are overdue at once."""
    settings = {
        "LEDGER_RETRY_INTERVAL": "1", "LEDGER_RETRY_COUNT": "0", "LEDGER_RETRY_TIMEOUT": "1",
    }  # fmt: skip
    with LedgerServer(
        module_database_url, tmp_path_factory.mktemp("page"), settings=settings
    ) as started:
        yield started


def test_a_wrong_key_does_not_log_in_and_is_not_repeated(server: LedgerServer) -> None:
    with browser(server.url) as client:
        response = client.post("/login", data={"key": "secret-guess", "name": "Ann"})
        assert response.status_code == 401
        assert "secret-guess" not in response.text
        assert "set-cookie" not in response.headers


def test_the_cookie_cannot_be_read_by_scripts_nor_sent_by_other_sites(server: LedgerServer) -> None:
    with browser(server.url) as client:
        response = client.post("/login", data={"key": KEY, "name": "Ann"})
        cookie = response.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "path=/" in cookie
        assert KEY not in cookie


def test_over_https_the_cookie_is_bound_to_the_host(server: LedgerServer) -> None:
    with browser(server.url) as client:
        headers = {"Host": "ledger.example", "Origin": "https://ledger.example"}
        response = client.post("/login", data={"key": KEY, "name": "Ann"}, headers=headers)
        cookie = response.headers["set-cookie"]
        assert cookie.startswith("__Host-")
        assert "; Secure" in cookie
        headers["Origin"] = "http://ledger.example"
        refused = client.post("/login", data={"key": KEY, "name": "Ann"}, headers=headers)
        assert refused.status_code == 401
        assert "HTTPS" in refused.text


def test_a_session_ends_with_the_log_out(server: LedgerServer) -> None:
    with logged_in(server.url, KEY) as client:
        token = client.cookies["ledger-session"]
        assert client.get("/bills").status_code == 200
        assert client.post("/logout").status_code == 303
        client.cookies.set("ledger-session", token)
        assert client.get("/bills").status_code == 303


def test_a_session_ends_with_its_key(server: LedgerServer, module_database_url: str) -> None:
    key = new_key(module_database_url, "read")
    with logged_in(server.url, key.key) as client:
        assert client.get("/bills").status_code == 200
        with closing(connect(module_database_url, "test")) as connection:
            revoke_key(connection, key.key_id, by=Operator("ann"))
        wait_until(lambda: client.get("/bills").status_code == 303, "the session ends")


def test_the_database_knows_neither_key_nor_token(
    server: LedgerServer, module_database_url: str
) -> None:
    with logged_in(server.url, KEY) as client:
        token = client.cookies["ledger-session"]
    with psycopg.connect(module_database_url) as connection:
        rows = connection.execute("SELECT s::text FROM ledger.session s").fetchall()
    text = "".join(row[0] for row in rows)
    assert token not in text
    assert digest_of(KEY).hex() not in text


def test_a_forged_session_is_none(server: LedgerServer, module_database_url: str) -> None:
    """Who can write to the table, and knows no key, cannot make a session of the administrator."""
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO ledger.session VALUES"
            " (%s, 'admin', sha256('x'), 'x', now(), now() + interval '1 hour')",
            (sessions.digest_of("forged"),),
        )
    with browser(server.url) as client:
        client.cookies.set("ledger-session", "forged")
        assert client.get("/bills").status_code == 303


def test_a_link_logs_in_once(server: LedgerServer, module_database_url: str) -> None:
    with closing(connect(module_database_url, "test")) as connection:
        token = sessions.make_link(connection, "admin", digest_of(KEY), operator="Ann")
    with browser(server.url) as client:
        assert client.get(f"/login/link/{token}").headers["location"] == "/"
        assert client.get("/bills").status_code == 200
    with browser(server.url) as second:
        assert second.get(f"/login/link/{token}").status_code == 401
        assert second.get("/bills").status_code == 303


def test_an_old_link_does_not_log_in(server: LedgerServer, module_database_url: str) -> None:
    with closing(connect(module_database_url, "test")) as connection:
        token = sessions.make_link(connection, "admin", digest_of(KEY), operator="Ann")
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        connection.execute("UPDATE ledger.login_link SET expires_at = now() - interval '1 s'")
    with browser(server.url) as client:
        assert client.get(f"/login/link/{token}").status_code == 401


def test_who_comes_from_another_site_is_not_asked_to_log_in_again(server: LedgerServer) -> None:
    with logged_in(server.url, KEY) as client:
        cookies = dict(client.cookies)
        client.cookies.clear()  # as a browser does, with SameSite=Strict
        page = client.get("/bills?q=x", headers={"Sec-Fetch-Site": "cross-site"})
        assert 'content="0; url=/bills?q=x"' in page.text
        client.cookies.update(cookies)
        assert client.get("/bills?q=x").status_code == 200


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_an_id_holds_is_shown_and_not_run(
    server: LedgerServer, lab: str, text: str
) -> None:
    test: dict[str, str | None] = {text: "completed"}
    send(
        server,
        [
            event(lab, text, "bill.completed", tests=test, status=text, integrator=text, url=text),
            event(lab, text, "report.completed", at=BASE + 1, tests={f"{text}2": "completed"}),
        ],
    )
    with logged_in(server.url, KEY, name="<b>Ann</b>") as client:
        found = client.get("/bills", params={"lab": lab}).text
        (path,) = set(re.findall(r'href="(/labs/[^"]+/bills/[^"]+)"', found))
        pages = [found, *(client.get(html.unescape(path)).text for path in [path])]
        pages += [
            client.get("/missing-events", params={"lab": lab}).text,
            client.get("/bills", params={"q": text}).text,
            client.get("/log").text,
        ]
        assert "<h1>Bill" in pages[1]
        for page in pages:
            assert_harmless(page)
        name = names_of_decoded(pages[2])[0]
        assert_harmless(client.post("/missing-events/preview", data={"event": name}).text)


def names_of_decoded(page: str) -> list[str]:
    return [html.unescape(one) for one in re.findall(r'name="event" value="([^"]*)"', page)]


def assert_harmless(page: str) -> None:
    assert "<script>" not in page
    assert "<img src=x" not in page
    assert "<b>Ann" not in page
    assert "\u202e" not in re.sub(r'"[^"]*"', "", page)  # but for values of attributes
    assert "49" not in re.findall(r"Bill\s+(.*)", page)[:1]


def test_a_bill_is_found_by_any_of_its_ids(server: LedgerServer, lab: str) -> None:
    send(server, lost(lab, f"b-{lab}"))
    with logged_in(server.url, KEY) as client:
        for text in (f"b-{lab}", f"b-{lab}"[:-2], f"i-{lab}", lab):
            assert f"b-{lab}" in client.get("/bills", params={"q": text}).text or text == lab
        assert f"lab={lab}" in client.get("/bills", params={"q": lab}).text
        assert "No bill has such an id" in client.get("/bills", params={"q": "none-such"}).text


def test_a_bill_is_shown_as_it_was_known(server: LedgerServer, lab: str) -> None:
    send(server, lost(lab))
    first, last = [
        one["position"]
        for one in server.api.get(f"/v1/labs/{lab}/bills/bill/events").json()["items"]
    ]
    with logged_in(server.url, KEY) as client:
        now = client.get(f"/labs/{lab}/bills/bill").text
        then = client.get(f"/labs/{lab}/bills/bill?at={first}").text
        assert "The bill is completed" in now
        assert "Missing events</h2>" in now
        assert "The bill is open" in then
        assert "Missing events</h2>" not in then
        assert client.get(f"/labs/{lab}/bills/bill?at={first - 1}").status_code == 200
        assert client.get(f"/labs/{lab}/bills/bill?at={last}").status_code == 200
        assert client.get(f"/labs/{lab}/bills/bill?at=x").status_code == 400


def test_a_body_is_downloaded_byte_for_byte(server: LedgerServer, lab: str) -> None:
    body = (
        b'{"labID": "%b", "eventType": "bill.created", "eventTime": 1705747800, '
        b'"data": {"billID": "n", "x": 123456789012345678901234567890.00, "x": 1e999}}  '
    ) % lab.encode()
    answer = server.anonymous.post(
        "/webhooks/flabs", content=body, headers={"Authorization": f"Bearer {server.token}"}
    )
    position = answer.json()["position"]
    with logged_in(server.url, KEY) as client:
        assert client.get(f"/log/{position}/body").content == body
        assert "123456789012345678901234567890.00" in client.get(f"/log/{position}").text
        disposition = client.get(f"/log/{position}/body").headers["content-disposition"]
        assert disposition.startswith("attachment")


def test_what_was_chosen_is_waived_after_a_look_at_it(server: LedgerServer, lab: str) -> None:
    send(server, lost(lab))
    with logged_in(server.url, KEY, name="Ann of the desk") as client:
        (name,) = names_of(client.get("/missing-events", params={"lab": lab}).text)
        preview = client.post("/missing-events/preview", data={"event": name})
        assert "Waive 1 missing event?" in preview.text
        assert waived(server, lab) == 0
        form = {"event": name, "reason": "known", "action": "waive"}
        outcome = client.post("/missing-events/waive", data=form)
        assert "Waived: 1 of 1" in outcome.text
        assert waived(server, lab) == 1
        assert "Ann of the desk" in client.get(f"/labs/{lab}/bills/bill").text
        form["action"] = "unwaive"
        assert "taken back: 1 of 1" in client.post("/missing-events/waive", data=form).text
        assert waived(server, lab) == 0
        form = {"event": name, "reason": " ", "action": "waive"}
        assert client.post("/missing-events/waive", data=form).status_code == 400


def waived(server: LedgerServer, lab: str) -> int:
    filters = {"lab_id": lab, "state": "waived"}
    return len(server.api.get("/v1/missing-events", params=filters).json()["items"])


def test_support_is_asked_and_the_request_closed(server: LedgerServer, lab: str) -> None:
    send(server, lost(lab))
    wait_until(lambda: overdue(server, lab), "the event is overdue")
    with logged_in(server.url, KEY, name="Ann") as client:
        preview = client.get("/missing-events/ask", params={"lab": lab})
        assert "<b>1</b> event that is lost for certain" in " ".join(preview.text.split())
        made = client.post("/missing-events/ask", data={"lab": lab, "note": "<b>soon</b>"})
        assert made.status_code == 303
        address = made.headers["location"]
        page = client.get(address).text
        assert "Missing webhooks: request" in page
        assert "<b>soon" not in page
        number = int(address.partition("?")[0].rpartition("/")[2])
        for ending in ("md", "csv", "json", "txt", "xlsx"):
            letter = client.get(f"/requests/{number}/letter/{ending}")
            assert letter.status_code == 200
            assert letter.headers["content-disposition"].startswith("attachment")
        assert client.get(f"/requests/{number}/letter/exe").status_code == 404
        assert "1 event and 0 loss windows" in client.get(f"/requests/{number}/close").text
        closed = client.post(f"/requests/{number}/close", data={"reason": "will not come"})
        assert closed.status_code == 303
        page = client.get(closed.headers["location"]).text
        assert "will not come" in page
        assert "Close it" not in page
        again = client.post("/missing-events/ask", data={"lab": lab})
        assert again.status_code == 400


def overdue(server: LedgerServer, lab: str) -> bool:
    filters = {"lab_id": lab, "state": "overdue"}
    return bool(server.api.get("/v1/missing-events", params=filters).json()["items"])


def test_a_filter_that_means_nothing_is_refused(server: LedgerServer) -> None:
    with logged_in(server.url, KEY) as client:
        for address in (
            "/bills?state=gone", "/bills?since=yesterday", "/bills?cursor=x", "/bills?q=%00",
            "/missing-events?type=x", "/log?from=-1", "/log?from=99999999999999999999999",
            "/loss-windows?state=x", "/requests?cursor=%00", "/labs?cursor=W10",
        ):  # fmt: skip
            response = client.get(address)
            assert response.status_code == 400, address
            assert "<h1>" in response.text
            assert "Traceback" not in response.text


def test_lists_go_on_where_they_ended(server: LedgerServer, lab: str) -> None:
    send(server, [event(lab, f"n{number:03}") for number in range(60)])
    with logged_in(server.url, KEY) as client:
        first = client.get("/bills", params={"lab": lab}).text
        (following,) = re.findall(r'href="([^"]+)" rel="next"', first)
        second = client.get(html.unescape(following)).text
        bills = [set(re.findall(r"/bills/(n\d+)", page)) for page in (first, second)]
        assert [len(one) for one in bills] == [50, 10]
        assert not bills[0] & bills[1]
        assert "there are more" in first


def test_times_are_shown_in_the_reader_s_zone(server: LedgerServer, lab: str) -> None:
    send(server, lost(lab))
    with logged_in(server.url, KEY) as client:
        address = f"/labs/{lab}/bills/bill"
        assert "2024-01-20 10:50:00 <small>UTC" in client.get(address).text
        chosen = client.post("/zone", data={"zone": "Asia/Kolkata", "back": address})
        assert chosen.headers["location"] == address
        page = client.get(address).text
        assert "2024-01-20 16:20:00 <small>IST" in page
        refused = client.post("/zone", data={"zone": "../../etc/passwd"})
        assert refused.status_code == 400


def test_an_unknown_path_is_a_page_to_a_browser_and_a_problem_to_others(
    server: LedgerServer,
) -> None:
    with browser(server.url) as client:
        assert "<h1>There is nothing here" in client.get("/nowhere").text
        api = client.get("/v1/nowhere")
        assert api.headers["content-type"].startswith("application/problem+json")
        plain = client.get("/nowhere", headers={"Accept": "*/*"})
        assert plain.headers["content-type"].startswith("application/problem+json")


def test_pages_hold_no_script_and_allow_none_but_the_server_s(server: LedgerServer) -> None:
    with logged_in(server.url, KEY) as client:
        for path in ("/", "/bills", "/missing-events", "/login", "/nowhere"):
            response = client.get(path)
            assert "default-src 'none'" in response.headers["content-security-policy"], path
            assert response.headers["x-content-type-options"] == "nosniff"
            assert not re.findall(r"<script(?! src=)", response.text)
            assert not re.findall(r'\sstyle="|\son\w+="', response.text)
        for address in set(re.findall(r'(?:src|href)="(/assets/[^"]+)"', client.get("/").text)):
            asset = client.get(address)
            assert asset.status_code == 200
            assert "immutable" in asset.headers["cache-control"]


def test_without_the_database_a_page_says_so(
    database_url: str, tmp_path: Path, postgres_url: str
) -> None:
    with LedgerServer(database_url, tmp_path) as server, logged_in(server.url, KEY) as client:
        assert client.get("/bills").status_code == 200
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("ALTER TABLE ledger.session RENAME TO session_away")
        old: httpx.Response = client.get("/bills")
        assert old.status_code == 503
        assert "ledger migrate" in old.text
        name = database_url.rpartition("/")[2].partition("?")[0]
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )
        try:
            began = time.monotonic()
            away = client.get("/bills")
            assert away.status_code == 503
            assert "does not answer" in away.text
            assert time.monotonic() - began < 20
        finally:
            with psycopg.connect(postgres_url, autocommit=True) as connection:
                connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


@pytest.mark.one_server("no body can be erased")
def test_a_body_that_may_hold_a_person_s_data_is_shown_to_who_asks_and_may(
    server: LedgerServer, module_database_url: str, lab: str
) -> None:
    payload = {**event(lab, "b", "lead.created"), "phone": "555-0100"}
    answer = server.anonymous.post(
        "/webhooks/flabs", json=payload, headers={"Authorization": f"Bearer {server.token}"}
    )
    position = answer.json()["position"]
    asking = {"body": "yes"}
    with logged_in(server.url, new_key(module_database_url, "read").key) as reader:
        assert "555-0100" not in reader.get(f"/log/{position}").text
        assert reader.get(f"/log/{position}", params=asking).status_code == 403
        assert reader.get(f"/log/{position}/body").status_code == 403
        assert reader.get(f"/log/{position}/body", params=asking).status_code == 403
    with logged_in(server.url, KEY) as client:
        assert "555-0100" not in client.get(f"/log/{position}").text
        assert "555-0100" in client.get(f"/log/{position}", params=asking).text
        assert "555-0100" in client.get(f"/log/{position}/body", params=asking).text
        erased = server.api.post(f"/v1/events/{position}/erase", json={"reason": "asked for"})
        assert erased.status_code == 200
        assert "was erased" in client.get(f"/log/{position}", params=asking).text
        assert client.get(f"/log/{position}/body", params=asking).status_code == 403
