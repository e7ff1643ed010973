"""`python -m benchmarks.page`: each page's first byte, beside the API call that it stands on.

A million bills of a thousand labs with five events each, of the last thirty days. Of one bill in a
hundred an event was lost. `--folder` keeps the database, for another run.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import httpx
import msgspec
import psycopg

from benchmarks import stage
from ledger import __version__
from ledger.eventlog.append import Delivery, append
from ledger.postgres.connect import connect
from ledger.projection.rebuild import rebuild

DAYS = 30
EVENTS_OF_A_BILL = 5
LOST = 100
"""Of one bill in so many the last report.completed was lost."""

BATCH = 2_000
WRITERS = 2

FRESH_SECONDS = 10.5
"""After which the overview counts again."""

MOST_SECONDS = 1 / 3
MOST_RATIO = 3.0

SAME_LAB, SAME_BILL = "lab_7", "bill_1007"

PAGES = {
    "/": None,  # counts what several calls would; counted anew for each measurement
    "/bills": "/v1/bills?limit=51",
    "/bills?state=open": "/v1/bills?limit=51&state=open",
    "/bills?missing=yes": None,
    f"/bills?lab={SAME_LAB}": f"/v1/bills?limit=51&lab_id={SAME_LAB}",
    f"/bills?q={SAME_BILL}": None,
    f"/labs/{SAME_LAB}/bills/{SAME_BILL}": f"/v1/labs/{SAME_LAB}/bills/{SAME_BILL}?known_at=%now"
    f" /v1/labs/{SAME_LAB}/bills/{SAME_BILL}/events",
    "/missing-events": "/v1/missing-events?limit=51",
    "/missing-events?state=overdue": "/v1/missing-events?limit=51&state=overdue",
    "/missing-events/labs?state=overdue": None,
    "/requests": "/v1/support-requests?limit=51",
    "/requests/1": "/v1/support-requests/1",
    "/expected-bills": "/v1/expected-bills?limit=51",
    "/loss-windows": "/v1/loss-windows",
    "/labs": None,
    "/log": "/v1/events?limit=51&after=%newest",
    "/log?from=%middle": "/v1/events?limit=51&after=%middle",
    "/log?type=bill.deleted": None,
    f"/log?lab={SAME_LAB}": None,
    "/log/%middle": None,
    "/log/unreadable": "/v1/events/unreadable?limit=51",
    "/refused": "/v1/refused-deliveries?limit=51",
    "/system": "/v1/projection /v1/keys?limit=101",
}
"""Pages, and the calls of the API that each stands on, where there are some."""


def main() -> None:
    """Make the database, unless there is one, and measure each page on it."""
    arguments = argparse.ArgumentParser(prog="benchmarks.page")
    arguments.add_argument("--bills", type=int, default=1_000_000)
    arguments.add_argument("--labs", type=int, default=1_000)
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--folder", type=Path, help="where the database is kept")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="ledger-bench-") as folder:
        place = given.folder or Path(folder)
        is_new = not (place / "postgres").exists()
        with stage.start_postgres(place) as server:
            url = server.dsn("page")
            if is_new:
                stage.new_database(server, "page")
                _fill(url, given.bills, given.labs)
            with stage.ledger_project(url), stage.ledger_serve(url) as (address, _):
                measured = list(_measure(address, given.rounds))
    print(f"Ledger {__version__}: first byte of each page, ms, median of {given.rounds} (slowest),")
    print(f"with {given.bills:,} bills of {given.labs:,} labs; beside it the API's calls.\n")
    print("| Page | ms | slowest | API | ms | ratio |\n|---|---|---|---|---|---|")
    for page, page_times, call, call_times in measured:
        mine, slowest = statistics.median(page_times), max(page_times)
        its = statistics.median(call_times) if call_times else None
        is_slow = mine > MOST_SECONDS or (its is not None and mine > MOST_RATIO * max(its, 0.005))
        row = [
            f"`{page}`{' SLOW' if is_slow else ''}",
            f"{mine * 1000:.1f}",
            f"{slowest * 1000:.1f}",
        ]
        row += [f"`{call}`", f"{its * 1000:.1f}", f"{mine / its:.1f}"] if its else ["-", "", ""]
        print(f"| {' | '.join(row)} |")


def _fill(url: str, bills: int, labs: int) -> None:
    began = datetime.now(UTC) - timedelta(days=DAYS)
    print(f"making {bills:,} bills ...", file=sys.stderr)
    with ProcessPoolExecutor(WRITERS, mp_context=get_context("spawn")) as pool:
        shares = [pool.submit(_write, url, n, bills, labs, began) for n in range(WRITERS)]
        for share in shares:
            share.result()
    with psycopg.connect(url, autocommit=True) as owner:
        for begin, end in ((0, 10), (10.1, 20), (20.2, DAYS)):  # two outages
            owner.execute(
                "INSERT INTO ledger.liveness VALUES (gen_random_uuid(), %s, %s)",
                (began + timedelta(days=begin), began + timedelta(days=end)),
            )
    rebuild(url, processes=2, started_at=datetime.now(UTC), on_progress=lambda _a, _b: None)
    stage.settle(url)


def _write(url: str, first: int, bills: int, labs: int, began: datetime) -> None:
    waiting: list[Delivery] = []
    step = timedelta(days=DAYS) / bills
    with closing(connect(url, "bench")) as connection:
        for number in range(first, bills, WRITERS):
            received = began + step * number
            for kind, tests in _events(number):
                late = 120 if number % 50 == 0 else 1
                body = _body(number, labs, kind, tests, received - timedelta(seconds=late))
                waiting.append(Delivery.of(body, received_at=received, source="webhook"))
            if len(waiting) >= BATCH:
                append(connection, waiting)
                waiting = []
        append(connection, waiting)


def _events(number: int) -> Iterator[tuple[str, dict[str, str]]]:
    tests = {f"test_{number % 500}": "completed", f"test_{number % 7}x": "completed"}
    yield "bill.created", dict.fromkeys(tests, "pending")
    for nth, test in enumerate(tests):
        if nth == 0 or number % LOST:
            yield "report.completed", {test: "completed"}
    yield "lead.created", {}
    if number % 10 != 1:  # some bills are still open
        yield "bill.completed", tests


def _body(number: int, labs: int, kind: str, tests: dict[str, str], happened: datetime) -> bytes:
    nth = {"bill.created": 0, "report.completed": 1}.get(kind, 2)
    data = {
        "billID": f"bill_{number}",
        "integratorID": f"booking_{number}",
        "billData": {
            "status": "completed" if kind == "bill.completed" else "pending",
            "testData": [{"_id": test, "status": status} for test, status in tests.items()],
        },
        "reportURL": f"https://reports.example/bill_{number}",
        "nth": len(tests) and next(iter(tests)),
    }
    return msgspec.json.encode(
        {
            "labID": f"lab_{number % labs}",
            "eventType": kind,
            "eventTime": int(happened.timestamp()) + nth,
            "data": data,
        }
    )


Times = list[float]


def _measure(address: str, rounds: int) -> Iterator[tuple[str, Times, str | None, Times]]:
    origin = {"Sec-Fetch-Site": "same-origin"}
    with (
        httpx.Client(base_url=address, headers=origin, timeout=120, trust_env=False) as person,
        httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {stage.KEY}"},
            timeout=120,
            trust_env=False,
        ) as caller,
    ):
        assert person.post("/login", data={"key": stage.KEY, "name": "bench"}).status_code == 303  # noqa: S101
        head = caller.get("/v1/projection").json()["head"]
        if not caller.get("/v1/support-requests").json()["items"]:
            caller.post("/v1/support-requests", json={"lab_id": SAME_LAB})
        for page, call in PAGES.items():
            page, named = _filled(page, head), call and _filled(call, head)  # noqa: PLW2901
            page_times, call_times = [], []
            for nth in range(rounds + 1):
                if page == "/" and nth:
                    time.sleep(FRESH_SECONDS)
                page_times.append(_first_byte(person, page))
                if named:
                    call_times.append(sum(_first_byte(caller, one) for one in named.split()))
            yield page, page_times[1:], named, call_times[1:]


def _filled(path: str, head: int) -> str:
    now = f"{datetime.now(UTC):%FT%TZ}"
    for name, value in (("now", now), ("newest", str(head - 50)), ("middle", str(head // 2))):
        path = path.replace(f"%{name}", value)
    return path


def _first_byte(client: httpx.Client, path: str) -> float:
    began = time.perf_counter()
    with client.stream("GET", path) as response:
        took = time.perf_counter() - began
        response.read()
    if response.status_code != 200:
        raise stage.MeasureError(f"{path} answered {response.status_code}: {response.text[:500]}")
    return took


if __name__ == "__main__":
    main()
