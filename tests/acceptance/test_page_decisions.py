"""What an operator decides on the page: each is shown first, then done, then told."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.support.page import logged_in
from tests.support.payloads import BASE, Payload, event
from tests.support.server import KEY, LedgerServer, wait_until

pytestmark = pytest.mark.slow

DONE: dict[str, str | None] = {"t1": "completed"}


@pytest.fixture(scope="module")
def server(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LedgerServer]:
    """Give a server at which lost events are overdue at once."""
    settings = {
        "LEDGER_RETRY_INTERVAL": "1", "LEDGER_RETRY_COUNT": "0", "LEDGER_RETRY_TIMEOUT": "1",
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("page")
    with LedgerServer(module_database_url, folder, settings=settings) as started:
        yield started


@pytest.fixture
def page(server: LedgerServer) -> Iterator[httpx.Client]:
    """Give a browser of Ann, who may do everything."""
    with logged_in(server.url, KEY) as client:
        yield client


def send(server: LedgerServer, *payloads: Payload, token: str | None = None) -> None:
    """Send events and, if they are taken, wait until the projection has them."""
    position = 0
    for payload in payloads:
        answer = server.anonymous.post(
            "/webhooks/flabs",
            json=payload,
            headers={"Authorization": f"Bearer {token or server.token}"},
        )
        position = answer.json().get("position", 0)
    assert server.api.get("/v1/projection", params={"min_position": position}).status_code == 200


def text_of(response: httpx.Response) -> str:
    """Return what a page says, without its markup."""
    assert response.status_code == 200, response.text
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", response.text)).split())


def hidden(response: httpx.Response, name: str) -> str:
    """Return the value of a field or button."""
    found = re.search(rf'name="{name}" value="([^"]*)"', response.text)
    assert found, name
    return html.unescape(found[1])


def test_refused_deliveries_are_accepted_or_dropped_after_a_look(
    server: LedgerServer, page: httpx.Client
) -> None:
    lab = "lab_<refused>"
    send(server, *[event(lab, f"r{n}") for n in range(3)], token="wrong")
    wait_until(lambda: "r2" in page.get("/refused").text, "all are in the box")
    listed = page.get("/refused", params={"lab": lab})
    assert "the token was wrong" in text_of(listed)
    ids = re.findall(r'name="id" value="([^"]*)"', listed.text)
    assert len(ids) == 3
    assert f'"labID":"{lab}"'.replace('"', "&#34;").replace("<", "&lt;").replace(">", "&gt;") in (
        page.get(f"/refused/{ids[0]}").text.replace(" ", "")
    )
    look = page.post("/refused/preview", data={"action": "accept-chosen", "id": ids[0]})
    assert "Accept 1 refused delivery?" in text_of(look)
    assert server.api.get(f"/v1/labs/{lab}/bills/r0").status_code == 404
    done = page.post("/refused/decide", data={"chosen": hidden(look, "chosen")})
    assert "Accepted: 1 delivery 1 is new in the log" in text_of(done)
    wait_until(
        lambda: server.api.get(f"/v1/labs/{lab}/bills/r0").status_code == 200, "it is folded"
    )
    look = page.post("/refused/preview", data={"action": "drop-all", "lab": lab})
    assert "Drop 2 refused deliveries?" in text_of(look)
    send(server, event(lab, "r3"), token="wrong")  # which nobody has looked at
    wait_until(lambda: "r3" in page.get("/refused").text, "it is in the box")
    done = page.post("/refused/decide", data={"chosen": hidden(look, "chosen")})
    assert "Dropped: 2 deliveries" in text_of(done)
    look = page.post("/refused/preview", data={"action": "drop-all", "lab": lab})
    assert "Drop 1 refused delivery?" in text_of(look)
    page.post("/refused/decide", data={"chosen": hidden(look, "chosen")})
    assert "No refused delivery meets" in text_of(page.get("/refused", params={"lab": lab}))
    for form in ({"action": "accept-chosen"}, {"action": "burn-all"}, {"action": "accept-x"}):
        assert page.post("/refused/preview", data=form).status_code == 400
    assert page.post("/refused/decide", data={"chosen": "[]"}).status_code == 400


def test_a_bill_is_expected_and_no_longer(page: httpx.Client) -> None:
    form = {"integrator": "<i>nt", "by": "2024-01-20T10:00", "lab": ""}
    look = page.post("/expected-bills/preview", data=form)
    assert "An event of it is expected by 2024-01-20 10:00:00 UTC" in text_of(look)
    assert "No bill is expected" in text_of(page.get("/expected-bills"))
    done = page.post("/expected-bills/expect", data={**form, "by": hidden(look, "by")})
    assert done.status_code == 303
    assert "The bill is expected." in text_of(page.get(done.headers["location"]))
    assert "<i>nt any unseen" in text_of(page.get("/expected-bills?state=unseen"))
    look = page.post("/expected-bills/preview", data={"action": "stop", "integrator": "<i>nt"})
    assert "Stop expecting <i>nt ?" in text_of(look)
    assert page.post("/expected-bills/stop", data={"integrator": "<i>nt"}).status_code == 303
    assert "No bill is expected" in text_of(page.get("/expected-bills"))
    for wrong in ({"by": "soon"}, {"by": "9999-12-31T23:59"}, {"integrator": ""}, {"lab": "x\0"}):
        assert page.post("/expected-bills/preview", data={**form, **wrong}).status_code == 400
    assert page.post("/expected-bills/stop", data={"integrator": "other"}).status_code == 404


def test_a_moment_is_taken_in_the_reader_s_zone(page: httpx.Client) -> None:
    assert page.post("/zone", data={"zone": "Asia/Kolkata", "back": "/"}).status_code == 303
    form = {"integrator": "zoned", "by": "2024-01-20T10:00", "lab": ""}
    look = page.post("/expected-bills/preview", data=form)
    assert hidden(look, "by") == "2024-01-20T04:30:00+00:00"


def test_a_file_of_expected_bills_is_looked_at_first(page: httpx.Client) -> None:
    text = "integrator_id,expected_by\nfrom-file,2024-01-20T10:00:00Z\nbad,soon\n"
    files = {"file": ("bills.csv", text)}
    look = page.post("/expected-bills/file", files=files)
    assert "1 expected bill 1 line says nothing" in text_of(look)
    assert "from-file" not in page.get("/expected-bills").text
    done = page.post("/expected-bills/file", files=files, data={"sure": hidden(look, "sure")})
    assert "bills.csv is imported" in text_of(done)
    assert "from-file" in page.get("/expected-bills?state=unseen").text


def lost(server: LedgerServer, lab: str) -> tuple[Payload, int]:
    """Lose a report's event, ask support for it, and return it with the request's number."""
    send(
        server,
        event(lab, "bill", tests={"t1": None}),
        event(lab, "bill", "bill.completed", at=BASE + 60, tests=DONE, status="completed"),
    )
    overdue = {"lab_id": lab, "state": "overdue"}
    wait_until(
        lambda: server.api.get("/v1/missing-events", params=overdue).json()["items"], "it is lost"
    )
    made = server.api.post("/v1/support-requests", json={"lab_id": lab})
    return event(lab, "bill", "report.completed", at=BASE + 50, tests=DONE), made.json()["number"]


def test_the_answer_of_support_is_imported_after_a_look_and_says_what_it_settled(
    server: LedgerServer, page: httpx.Client
) -> None:
    payload, number = lost(server, "lab_answered")
    assert 'name="file"' in page.get(f"/requests/{number}").text
    answer = json.dumps(payload) + '\n{"no": "webhook"}\n'
    address = f"/imports?request={number}"
    files = {"file": ("answer.jsonl", answer)}
    head = server.api.get("/v1/projection").json()["head"]
    look = page.post(address, files=files)
    assert "1 new event 0 in the log already 1 that is no webhook" in text_of(look)
    assert server.api.get("/v1/projection").json()["head"] == head
    sure = {"sure": hidden(look, "sure")}
    other = page.post(address, files={"file": ("answer.jsonl", answer * 2)}, data=sure)
    assert "another file than the one that was looked at" in text_of(other)
    done = page.post(address, files=files, data=sure)
    assert "answer.jsonl is imported" in text_of(done)
    assert "1 line of support requests settled" in text_of(done)
    assert f"Request {number} report.completed of test t1" in text_of(done)
    again = page.post(address, files=files)
    assert "There is nothing new in it" in text_of(again)
    assert server.api.get(f"/v1/support-requests/{number}").json()["state"] != "open"


def test_a_file_that_is_none_is_refused_in_words(page: httpx.Client) -> None:
    nothing = page.post("/imports", data={"sure": ""}, files={"other": ("x", "y")})
    assert "no file was chosen" in text_of(nothing)
    assert 'role="alert"' in page.post("/imports", files={"file": ("x.pdf", b"%PDF-1.7\0")}).text


def test_a_large_file_is_taken(page: httpx.Client) -> None:
    line = json.dumps(event("lab_large", "bill")).encode() + b" " * 1_000 + b"\n"
    look = page.post("/imports", files={"file": ("large.jsonl", line * 15_000)})
    assert "1 new event 14,999 in the log already" in text_of(look)


def test_missing_events_are_grouped_by_lab(server: LedgerServer, page: httpx.Client) -> None:
    lost(server, "lab_grouped")
    said = text_of(page.get("/missing-events/labs?state=requested&lab=lab_grouped"))
    assert "lab_grouped 1 0" in said
    assert "Nothing is missing" in text_of(page.get("/missing-events/labs?lab=nowhere"))


def test_the_log_is_filtered(server: LedgerServer, page: httpx.Client) -> None:
    lab = "lab_filtered"
    send(server, *[event(lab, f"f{n}") for n in range(60)])
    send(server, event(lab, "f0", "bill.deleted", at=BASE + 9))
    newest = page.get("/log", params={"lab": lab})
    assert newest.text.count("/bills/f") == 50
    assert "These are the newest" in newest.text
    earlier = re.search(r'href="([^"]*)" rel="prev"', newest.text)
    assert earlier
    before = page.get(html.unescape(earlier[1]))
    assert before.text.count("/bills/f") == 11
    assert "This is the beginning" in before.text
    deleted = page.get("/log", params={"lab": lab, "type": "bill.deleted"})
    assert deleted.text.count("/bills/f") == 1
    assert "No event meets" in page.get("/log", params={"lab": lab, "source": "import"}).text
    assert page.get("/log?source=rumour").status_code == 400


def test_a_parked_bill_is_folded_again(
    server: LedgerServer, page: httpx.Client, module_database_url: str
) -> None:
    send(server, event('lab_"parked"', "p<1>"))
    with psycopg.connect(module_database_url) as connection:
        connection.execute(
            "INSERT INTO state.parked_bill VALUES (%s, %s, 1, 'an <error>')",
            ('lab_"parked"', "p<1>"),
        )
        connection.execute("DELETE FROM state.bill WHERE bill_id = 'p<1>'")
    listed = page.get("/system")
    assert "an <error>" in text_of(listed)
    look = page.post("/system/parked/preview", data={"bill": hidden(listed, "bill")})
    assert "Fold 1 parked bill again?" in text_of(look)
    done = page.post("/system/parked/retry", data={"bill": hidden(look, "bill")})
    assert "Folded again: 1 of 1" in text_of(done)
    assert server.api.get('/v1/labs/lab_"parked"/bills/p<1>').status_code == 200
    gone = page.post("/system/parked/retry", data={"bill": hidden(look, "bill")})
    assert gone.status_code == 400


def test_labs_that_are_not_registered_as_expected_are_listed(
    page: httpx.Client, module_database_url: str
) -> None:
    with psycopg.connect(module_database_url) as connection:
        connection.execute(
            "INSERT INTO ledger.flabs_check (account, checked_at, succeeded_at)"
            " VALUES ('acc', now(), now())"
        )
        connection.execute(
            "INSERT INTO ledger.flabs_lab (lab_id, name, first_listed_at)"
            " VALUES ('lab_<branch>', 'A branch', now())"
        )
    said = text_of(page.get("/labs"))
    assert "lab_<branch> in the account, but not subscribed" in said
    assert "The account was looked at" in said


def test_labs_are_shown_with_their_deliveries_an_hour(
    page: httpx.Client, module_database_url: str
) -> None:
    with psycopg.connect(module_database_url) as connection:
        connection.execute("INSERT INTO state.lab VALUES ('lab_hourly', now(), now())")
        connection.execute(
            "INSERT INTO state.lab_hour SELECT 'lab_hourly', date_trunc('hour', now(), 'UTC') - h,"
            " n, now() FROM (VALUES (interval '48 h', 36), ('2 h', 2400)) AS came (h, n)"
        )
    try:
        assert "100.0 before 1.5" in text_of(page.get("/labs"))
    finally:
        with psycopg.connect(module_database_url) as connection:
            for table in ("lab", "lab_hour"):
                connection.execute(f"DELETE FROM state.{table} WHERE lab_id = 'lab_hourly'")


def test_the_system_shows_no_secret(server: LedgerServer, page: httpx.Client) -> None:
    said = page.get("/system").text
    assert "LEDGER_RETRY_COUNT" in said
    for secret in (KEY, server.token, str(Path(server.settings["LEDGER_DATABASE_URL"]))):
        assert secret not in said
