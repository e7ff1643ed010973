"""Payloads as Flabs sends them."""

import itertools
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
