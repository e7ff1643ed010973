"""Payloads as Flabs sends them."""

import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any

Payload = dict[str, Any]

BASE = 1_705_747_800
"""An event time: 2024-01-20T10:50:00Z."""

_counter = itertools.count()


def event(
    lab: str,
    bill: str,
    kind: str = "bill.created",
    *,
    at: int = BASE,
    tests: Mapping[str, str | None] | Iterable[tuple[str, str | None]] | None = None,
    status: str | None = None,
    integrator: str | None = None,
    url: str | None = None,
) -> Payload:
    """Make a payload; what is None is left out."""
    bill_data: Payload = {}
    if status is not None:
        bill_data["status"] = status
    if tests is not None:
        bill_data["testData"] = [
            {"_id": test, "status": said} for test, said in dict(tests).items()
        ]
    data: Payload = {"billID": bill}
    if integrator is not None:
        data["integratorID"] = integrator
    if bill_data:
        data["billData"] = bill_data
    if url is not None:
        data["reportURL"] = url
    return {"labID": lab, "eventType": kind, "eventTime": at, "data": data}


def distinct(lab: str, count: int) -> list[Payload]:
    """Make that many events of as many bills."""
    return [event(lab, f"bill_{next(_counter)}") for _ in range(count)]


def whole_day(lab: str) -> list[Payload]:
    """Make the history of the contract's example: two tests, all is completed."""
    both: dict[str, str | None] = {"test_001": "completed", "test_002": "completed"}
    url = "https://reports.example/bill_12345"
    return [
        event(lab, "bill_12345", tests={"test_001": None, "test_002": "pending"}, integrator="x"),
        event(lab, "bill_12345", "report.completed", at=BASE + 60, tests={"test_001": "completed"}),
        event(lab, "bill_12345", "report.completed", at=BASE + 120, tests=both),
        event(
            lab, "bill_12345", "bill.completed", at=BASE + 180, tests=both, status="completed",
            url=url, integrator="x",
        ),
    ]  # fmt: skip


def lines(*payloads: Payload) -> bytes:
    return b"".join(json.dumps(payload).encode() + b"\n" for payload in payloads)


def history(lab: str, count: int) -> bytes:
    """Make events of bills, of which some are open, some complete, some lack events."""
    tests: dict[str, str | None] = {"t1": "completed", "t2": "completed"}
    payloads: list[Payload] = []
    for number in range(count):
        bill = f"b{number:05}"
        payloads.append(event(lab, bill, tests={"t1": None, "t2": None}, integrator=f"i{number}"))
        if number % 2:
            payloads.append(event(lab, bill, "report.completed", at=BASE + 5, tests={"t1": "x"}))
        if number % 3:
            payloads.append(event(lab, bill, "bill.completed", at=BASE + 9, tests=tests))
    return lines(*payloads)
