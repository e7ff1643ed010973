"""Reading a bill with five reports, against the same server answering a constant of that shape."""

import io
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import msgspec

from benchmarks import stage
from ledger.database import connect
from ledger.eventlog.transfer import import_lines
from ledger.projection.rebuild import rebuild

BILLS = 2_000
TESTS = 5
LAB = "lab_read"
PATH = f"/v1/labs/{LAB}/bills/read_"
BEGIN = 1_705_747_800


def fill(url: str) -> None:
    """Make the bills that are read, complete and nothing missing."""
    with closing(connect(url, "bench")) as connection:
        content = b"".join(msgspec.json.encode(event) + b"\n" for event in _events())
        import_lines(connection, io.BytesIO(content), exports=False, on_progress=lambda _: None)
    rebuild(url, processes=2, started_at=datetime.now(UTC), on_progress=lambda _a, _b: None)


def measure(url: str, rounds: int, seconds: int) -> tuple[list[float], list[float]]:
    """Return requests per second, of Ledger and of the constant, of each round."""
    ours: list[float] = []
    constant: list[float] = []
    for _ in range(rounds):
        for target, rates in (
            ("ledger.app:create_app", ours),
            ("benchmarks.rivals:make_constant", constant),
        ):
            with stage.served(url, target, factory=True) as address:
                rates.append(stage.read(address, seconds, PATH, BILLS))
    return ours, constant


def _events() -> Iterator[dict[str, object]]:
    for number in range(BILLS):
        tests = [{"_id": f"test_{test}", "status": "completed"} for test in range(TESTS)]
        pending = [{"_id": f"test_{test}", "status": "pending"} for test in range(TESTS)]
        yield _event(number, "bill.created", 0, pending)
        for test in range(TESTS):
            yield _event(number, "report.completed", 60 * (test + 1), tests[test : test + 1])
        yield _event(number, "bill.completed", 600, tests)


def _event(number: int, kind: str, after: int, tests: list[dict[str, str]]) -> dict[str, object]:
    return {
        "labID": LAB,
        "eventType": kind,
        "eventTime": BEGIN + after,
        "data": {
            "billID": f"read_{number}",
            "integratorID": f"booking_{number}",
            "billData": {"status": "completed", "testData": tests},
            "reportURL": f"https://reports.flabs.in/bill/read_{number}",
        },
    }
