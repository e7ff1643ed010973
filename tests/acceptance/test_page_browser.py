"""The page in a real browser: nothing runs that should not, and everybody can use it."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.chromium import axe, chromium
from tests.support.payloads import BASE, Payload, event
from tests.support.server import KEY, LedgerServer, wait_until

pytestmark = pytest.mark.slow

LAB = "lab_<i>x</i>"
SCRIPT = "<script>document.title='run'</script>\u202e"
BILL = "bill_1"

PAGES = [
    "/", "/bills", "/bills?q=bill", "/labs/lab_%3Ci%3Ex%3C%2Fi%3E/bills/bill_1", "/missing-events",
    "/missing-events/ask", "/requests", "/loss-windows", "/labs", "/log", "/log/1",
    "/log/unreadable", "/log?type=bill.created", "/missing-events/labs", "/expected-bills",
    "/expected-bills/file", "/imports", "/refused", "/system", "/nowhere",
]  # fmt: skip


def payloads() -> list[Payload]:
    """Make a bill with a lost report, a hostile one, and an unreadable event."""
    done: dict[str, str | None] = {"t1": "completed", SCRIPT: "completed"}
    return [
        event(LAB, BILL, tests={"t1": None}, integrator="int_1"),
        event(LAB, BILL, "bill.completed", at=BASE + 60, tests=done, status="completed"),
        event(LAB, SCRIPT, "bill.completed", tests=done, status=SCRIPT, url="javascript:alert(1)"),
        {"labID": LAB, "eventType": "bill.created", "x": SCRIPT},
    ]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give a browser that the tests of the module share."""
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def server(
    browser: Browser, module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LedgerServer]:
    """Give a server at which lost events are overdue at once; none where there is no browser."""
    assert browser.is_connected()
    settings = {
        "LEDGER_RETRY_INTERVAL": "1", "LEDGER_RETRY_COUNT": "0", "LEDGER_RETRY_TIMEOUT": "1",
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("browser")
    with LedgerServer(module_database_url, folder, settings=settings) as started:
        position = 0
        for payload in payloads():
            answer = started.anonymous.post(
                "/webhooks/flabs",
                json=payload,
                headers={"Authorization": f"Bearer {started.token}"},
            )
            position = answer.json()["position"]
        started.api.get("/v1/projection", params={"min_position": position})
        overdue = {"state": "overdue"}
        wait_until(
            lambda: len(started.api.get("/v1/missing-events", params=overdue).json()["items"]) > 2,
            "the lost events are overdue",
        )
        with psycopg.connect(module_database_url, autocommit=True) as connection:
            wait_until(
                lambda: connection.execute(COUNTED).fetchone() == (True,),
                "the deliveries are counted",
            )
        yield started


COUNTED = "SELECT coalesce(sum(deliveries) > 3, false) FROM ledger.delivery_hour"


@pytest.fixture
def page(browser: Browser, server: LedgerServer, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Give a tab that is logged in; the parameter is the form of the screen."""
    options: dict[str, Any] = getattr(request, "param", {})
    # So that axe can be run in the page, whose policy allows no script but the server's own.
    context = browser.new_context(**{"bypass_csp": True, **options})
    tab = context.new_page()
    problems: list[str] = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("dialog", lambda dialog: problems.append(dialog.message))
    tab.goto(f"{server.url}/login")
    tab.fill("[name=name]", "Ann")
    tab.fill("[name=key]", KEY)
    tab.click("text=Log in >> nth=-1")
    tab.wait_for_url(f"{server.url}/")
    yield tab
    assert problems == []
    context.close()


def test_the_overview_draws_deliveries_by_hour_and_outcome(
    page: Page, server: LedgerServer
) -> None:
    page.goto(server.url)
    chart = page.locator("svg[aria-label='deliveries by hour']")
    expect(chart.locator("rect.recorded").first).to_be_visible()
    expect(chart.locator("rect.unreadable").first).to_be_visible()
    page.locator("summary").first.click()
    expect(
        page.locator("section", has_text="Deliveries an hour").locator("tbody tr")
    ).to_have_count(24)


VIOLATIONS = """
rules => axe.run(rules ? {runOnly: rules} : {})
    .then(found => found.violations.map(one => [one.id, one.nodes.map(node => node.html)]))
"""


def test_everybody_can_use_every_page(page: Page, server: LedgerServer) -> None:
    for path in PAGES:
        page.goto(server.url + path)
        page.evaluate(axe())
        assert page.evaluate(VIOLATIONS, None) == [], path


@pytest.mark.parametrize("page", [{"color_scheme": "dark"}], indirect=True)
def test_every_page_can_be_read_in_the_dark(page: Page, server: LedgerServer) -> None:
    for path in PAGES:
        page.goto(server.url + path)
        page.evaluate(axe())
        assert page.evaluate(VIOLATIONS, ["color-contrast"]) == [], path


@pytest.mark.parametrize("page", [{"viewport": {"width": 375, "height": 800}}], indirect=True)
def test_every_page_fits_a_phone(page: Page, server: LedgerServer) -> None:
    for path in PAGES:
        page.goto(server.url + path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    for path in ("/", PAGES[3], "/missing-events"):
        page.goto(server.url + path)
        page.evaluate(axe())
        assert page.evaluate(VIOLATIONS, None) == [], path


@pytest.mark.parametrize("page", [{"bypass_csp": False}], indirect=True)
def test_nothing_that_an_id_holds_is_run(page: Page, server: LedgerServer) -> None:
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    for path in PAGES[:-1]:
        page.goto(server.url + path)
        assert page.title() != "run", path
    page.goto(f"{server.url}/bills")
    page.click("a >> text=script")
    expect(page.locator("h1")).to_contain_text("<script>")
    assert page.title() != "run"
    assert page.locator("a[href^='javascript']").count() == 0
    assert refused == []


def test_a_lost_event_is_asked_for_by_keyboard_and_mouse(page: Page, server: LedgerServer) -> None:
    page.click("text=lost for certain")
    expect(page.locator("h1")).to_have_text("Missing events")
    page.check("#all")
    page.click("text=Ask support for all")
    page.fill("textarea", "please")
    page.locator("text=Make the request").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[role=status]")).to_contain_text("was made")
    expect(page.locator("#letter")).to_contain_text("Missing webhooks: request 1")
    page.click("text=Close it")
    page.fill("[name=reason]", "found on paper")
    page.click("main button.main")
    expect(page.locator("main")).to_contain_text("found on paper")
    page.go_back()
    assert server.api.get("/v1/support-requests/1").json()["state"] == "closed"


def test_the_slider_shows_what_was_known(page: Page, server: LedgerServer) -> None:
    page.goto(f"{server.url}/labs/lab_%3Ci%3Ex%3C%2Fi%3E/bills/bill_1")
    page.locator("#known").focus()
    page.keyboard.press("Home")
    page.wait_for_url("**?at=1")
    expect(page.locator("main")).to_contain_text("This is what was known at position 1")
    expect(page.locator("main")).to_contain_text("The bill is open")


def test_the_fault_is_marked_in_the_body(page: Page, server: LedgerServer) -> None:
    page.goto(f"{server.url}/log/unreadable")
    page.click("td[data-label=Position] a >> nth=0")
    expect(page.locator("main .notice")).to_contain_text("missing_field")
    expect(page.locator("#body mark")).to_have_text("{")


def deliver(server: LedgerServer, bill: str) -> None:
    server.anonymous.post(
        "/webhooks/flabs",
        json=event("lab_live", bill),
        headers={"Authorization": f"Bearer {server.token}"},
    )


def test_a_page_says_that_something_is_new_and_moves_nothing(
    page: Page, server: LedgerServer
) -> None:
    page.goto(f"{server.url}/log")
    rows = page.locator("tbody tr").count()
    note = page.locator(".newer")
    expect(note).to_be_hidden()
    top = page.locator("table").bounding_box()
    deliver(server, "live_1")
    expect(note).to_be_visible()
    assert page.locator("tbody tr").count() == rows
    assert page.locator("table").bounding_box() == top
    note.click()
    expect(page.locator("tbody tr")).to_have_count(rows + 1)


def test_what_is_live_can_be_paused_on_every_page(page: Page, server: LedgerServer) -> None:
    with page.expect_request("**/live"):
        page.goto(server.url)
    page.check("#pause")
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{server.url}/log")
    expect(page.locator("#pause")).to_be_checked()
    assert not any(url.endswith("/live") for url in requested)
    with page.expect_request("**/live"):
        page.uncheck("#pause")


def test_a_file_is_looked_at_and_imported_where_the_request_is(
    page: Page, server: LedgerServer
) -> None:
    made = server.api.post("/v1/support-requests", json={})
    number = made.json()["number"] if made.status_code == 201 else 1
    page.goto(f"{server.url}/requests/{number}")
    answer = event(LAB, BILL, "report.completed", at=BASE + 50, tests={"t1": "completed"})
    page.set_input_files(
        "[name=file]",
        {"name": "answer.jsonl", "mimeType": "text/plain", "buffer": json.dumps(answer).encode()},
    )
    page.click("text=Look at the file")
    expect(page.locator("#upload-outcome")).to_contain_text("1 new event")
    page.click("text=Import 1 event")
    expect(page.locator("#upload-outcome")).to_contain_text("answer.jsonl is imported")
    expect(page.locator("h1")).to_have_text(f"Request {number}")
    page.set_input_files(
        "[name=file]", {"name": "x.pdf", "mimeType": "x/y", "buffer": b"%PDF-1.7\0"}
    )
    page.click("text=Look at the file")
    expect(page.locator("#upload-outcome [role=alert]")).to_be_visible()


def test_a_page_can_be_read_without_scripts(browser: Browser, server: LedgerServer) -> None:
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(f"{server.url}/login")
    tab.fill("[name=name]", "Ann")
    tab.fill("[name=key]", KEY)
    tab.locator("main button.main").click()
    tab.goto(f"{server.url}/labs/lab_%3Ci%3Ex%3C%2Fi%3E/bills/bill_1")
    expect(tab.locator("ol.known a").first).to_be_visible()
    tab.locator("ol.known a").first.click()
    expect(tab.locator("main")).to_contain_text("This is what was known")
    context.close()
