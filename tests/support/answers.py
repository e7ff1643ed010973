"""What the tests ask of a server's answers."""

from datetime import UTC, datetime
from typing import Any

import httpx

from tests.support.server import LedgerServer

READS = (
    "/v1/bills",
    "/v1/reports",
    "/v1/events",
    "/v1/events/unreadable",
    "/v1/changes",
    "/v1/missing-events",
    "/v1/projection",
    "/v1/labs/no_lab/bills/no_bill",
    "/v1/labs/no_lab/bills/no_bill/events",
)
LISTS = READS[:6]


def at(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


def assert_problem(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    detail: str = problem["detail"]
    return detail


def answers_of(server: LedgerServer) -> list[Any]:
    """Return all that the state says, but for what depends on the time of the question."""
    bills = server.items("/v1/bills", limit=1000)
    missing = server.items("/v1/missing-events", limit=1000)
    unreadable = server.items("/v1/events/unreadable", limit=1000)
    for item in missing:
        del item["state"]
    reports = server.items("/v1/reports", limit=1000)
    return [bills, reports, missing, unreadable]
