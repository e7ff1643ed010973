"""The desk as the tests use it: a server for which all that is missing is overdue at once."""

from types import MappingProxyType
from typing import Any

import httpx

from tests.support.answers import parsed
from tests.support.payloads import BASE, Payload, event
from tests.support.server import LedgerServer

Item = dict[str, Any]

AT_ONCE = MappingProxyType(
    {
        "LEDGER_RETRY_INTERVAL": "1",
        "LEDGER_RETRY_COUNT": "0",
        "LEDGER_RETRY_TIMEOUT": "0",
    }
)
"""The sender never retries."""

DONE = "completed"

HOSTILE = (
    "a|b", "a\nb", "a\r\n\r\n# b", "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", '"q"', "it's", "`code`",
    "``", "<script>alert(1)</script>", "</table>", "&amp;", "[x](http://x)", "![x](y)", "*b*_i_",
    "\\", "a;b,c", "{x}", "%s%n", "[bold]x[/bold]", "\x1b[31mred", "\x07", "\u202eabc", "\u2028x",
    "e\u0301", "漢字", "\U0001f9ea", " lead", "trail ", "x" * 200, "\U0001f9ea" * 200, "null",
    "http://x/y", "mailto:a@b", "1e5", "007", "_x0041_", "a\x0bb",
)  # fmt: skip
"""Identifiers that mean something to what a form is read with."""


class Desk(LedgerServer):
    """A server, and what an operator says to it."""

    def post(self, path: str, **body: object) -> httpx.Response:
        """Say something with the key."""
        return self.api.post(path, json=body)

    def put(self, path: str, **body: object) -> httpx.Response:
        """Set something with the key."""
        return self.api.put(path, json=body)

    def missing(self, **filters: object) -> list[Item]:
        """Return what is missing."""
        return self.items("/v1/missing-events", **filters)

    def report(self, **question: object) -> Item:
        """Return the reconciliation."""
        answer = self.get("/v1/reconciliation", **question)
        assert answer.status_code == 200, answer.text
        report: Item = answer.json()
        return report

    def ask(self, **body: object) -> Item:
        """Make a support request, for which there must be something."""
        answer = self.post("/v1/support-requests", **body)
        assert answer.status_code == 201, answer.text
        request: Item = answer.json()
        return request

    def asked(self, number: int) -> Item:
        """Return a support request."""
        answer = self.get(f"/v1/support-requests/{number}")
        assert answer.status_code == 200, answer.text
        request: Item = answer.json()
        return request

    def waive(self, lab: str, bill: str = "b", **more: object) -> httpx.Response:
        """Waive the report that `lost_report` leaves missing."""
        return self.post("/v1/missing-events/waive", **{**named(lab, bill), "reason": "r", **more})

    def unwaive(self, lab: str, bill: str = "b", **more: object) -> httpx.Response:
        """Take back the waiver of the report that `lost_report` leaves missing."""
        return self.post("/v1/missing-events/unwaive", **{**named(lab, bill), **more})

    def lose(self, lab: str, *bills: str, test: str = "t", integrator: str | None = None) -> None:
        """Deliver all of some bills but a report."""
        for bill in bills or ("b",):
            self.record(*lost_report(lab, bill, test=test, integrator=integrator))
        self.settle()


def lost_report(
    lab: str, bill: str = "b", *, test: str = "t", integrator: str | None = None
) -> list[Payload]:
    """Make the events of a bill whose `report.completed` of its only test was lost."""
    return [
        event(lab, bill, tests={test: None}, integrator=integrator),
        event(lab, bill, "bill.completed", at=BASE + 60, tests={test: DONE}, integrator=integrator),
    ]


def found_report(lab: str, bill: str = "b", *, test: str = "t", at: int = BASE + 30) -> Payload:
    """Make the event that was lost."""
    return event(lab, bill, "report.completed", at=at, tests={test: DONE})


def lost_end(lab: str, bill: str = "b") -> list[Payload]:
    """Make the events of a bill whose `bill.completed` is possibly missing."""
    return [
        event(lab, bill, tests={"t": None}),
        event(lab, bill, "report.completed", at=BASE + 60, tests={"t": DONE}),
    ]


def named(lab: str, bill: str = "b", *, test: str | None = "t") -> Item:
    """Name the missing event of `lost_report`."""
    return {
        "lab_id": lab,
        "bill_id": bill,
        "event_type": "report.completed",
        "test_id": test,
    }


def last_received(desk: LedgerServer, lab: str, bill: str = "b") -> Any:  # noqa: ANN401 -- a time
    """Return when the last event of a bill was received."""
    return parsed(desk.items(f"/v1/labs/{lab}/bills/{bill}/events")[-1]["received_at"])
