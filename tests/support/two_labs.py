"""A log of lab A and of lab B, and the same log without lab B. All that is of lab B is marked."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter

import psycopg
from msgspec.structs import replace

from ledger.eventlog.append import Delivery, append
from ledger.model.event import event_columns
from ledger.model.operator_events import AnyDecision
from ledger.operations.api_keys import digest_of, make_key
from ledger.operations.refused_deliveries.keep import Bounds, Refused, keep
from ledger.postgres.connect import connect
from tests.support.decisions import (
    CREATED,
    decided,
    expected_bill,
    report_of,
    request_made,
    requested,
    span,
    subscribed,
    waived,
    window_closed,
)
from tests.support.histories import body

A = "lab-a"
MARK = "zqzqzq"
"""Stands in every id and text of lab B, and nowhere else."""

B = f"{MARK}-lab"
DAY = timedelta(days=1)
LAST_OF_A = 25
"""The last log position of lab A; what comes after is of lab B."""

FIRST = datetime(2024, 1, 1, 12, tzinfo=UTC)
NUMBER_OF_B = 2
"""The number of the support request that asks for events of lab B alone."""

KEYS = {
    name: (make_key(name.ljust(10, "0")), scope, labs, about)
    for name, scope, labs, about in (
        ("reader", "read", [A], "reads lab A"),
        ("operator", "operate", [A], "operates lab A"),
        ("admin", "admin", [A], "administers lab A"),
        ("readall", "read", None, f"reads all, {MARK} too"),
        ("operall", "operate", None, f"operates all, {MARK} too"),
        ("adminb", "admin", [B], f"administers {MARK}"),
        ("both", "read", [A, B], f"reads both, {MARK} too"),
    )
}


def key(name: str) -> str:
    """Return an API key."""
    return KEYS[name][0]


def id_of(name: str) -> str:
    """Return the id of an API key."""
    return key(name).split("_")[1]


TOKENS = {"tokenofa": [A], "tokenofb": [B], "tokenofboth": [A, B], "tokenofall": None}
"""The labs of webhook tokens, by id."""

Received = tuple[float, bytes]
"""The day after `FIRST` on which a body was received, and the body."""

SHARED_INTEGRATOR = "int-shared"
WINDOW = (datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 5, tzinfo=UTC))
WINDOW_OF_B = (datetime(2024, 1, 8, tzinfo=UTC), datetime(2024, 1, 9, tzinfo=UTC))
ALIVE = ((FIRST - DAY, WINDOW[0]), (WINDOW[1], WINDOW_OF_B[0]), (WINDOW_OF_B[1], FIRST + 10 * DAY))


def _history(lab: str, mark: str, days: Sequence[float], integrator: str) -> list[Received]:
    """Make the events of a lab: two bills with lost events, an unreadable and a foreign one."""
    first, last = days[0], days[-1]
    test: dict[str, str | None] = {f"{mark}test": "completed"}
    done = f"{mark}completed-status"
    url = f"https://reports.example/{mark}url"

    def event(kind: str, bill: str, at: int, **more: str | None) -> bytes:
        return body(kind, bill=f"{mark}{bill}", lab=lab, at=at, tests=test, **more)

    return [
        (first, event("bill.created", "bill", 0, integratorID=integrator)),
        (first, event("bill.completed", "bill", 60, status=done, reportURL=url)),
        (first, event("bill.completed", "late", 60, integratorID=f"{mark}integrator")),
        (first, event("report.completed", "late", 70)),
        (first, event("bill.completed", "asked", 60)),
        (first, event("bill.completed", "waived", 60)),
        (first, event("lead.created", "bill", 5)),
        (last, f'{{"labID": "{lab}", "eventType": "bill.created", "x": "{mark}"}}'.encode()),
        (last, event("bill.created", "newest", 90)),
    ]


def _decisions_of_a() -> list[AnyDecision]:
    return [
        expected_bill(SHARED_INTEGRATOR + "-only-b", lab=A),
        expected_bill(SHARED_INTEGRATOR, lab=A),
        subscribed(A, ["bill.created", "report.completed", "bill.completed"]),
        waived(key=(A, "waived")),
    ]


def _decisions_of_b() -> list[AnyDecision]:
    return [
        expected_bill(f"{MARK}-expected", lab=B),
        expected_bill(f"{MARK}-no-lab"),
        expected_bill(SHARED_INTEGRATOR, lab=B),
        subscribed(B, ["report.completed", "bill.created"]),
        waived(key=(B, f"{MARK}waived")),
        replace(requested(key=(B, f"{MARK}asked"), request=1), integrator_id=MARK),
        replace(request_made(NUMBER_OF_B, lab=B, lines=1), note=f"{MARK} note", by=f"{MARK} by"),
        requested(report_of(f"{MARK}test"), NUMBER_OF_B, key=(B, f"{MARK}bill")),
        replace(window_closed(span(*WINDOW_OF_B, B)), reason=f"{MARK} reason", by=f"{MARK} by"),
    ]


def _request_for_all(*, with_b: bool) -> list[AnyDecision]:
    """Make a request of an operator who asks for all labs."""
    labs = [A, B] if with_b else [A]
    made = request_made(1, lines=len(labs), windows=[span(*WINDOW, *labs)])
    return [
        replace(made, note=f"{MARK} note" if with_b else None),
        requested(CREATED, key=(A, "asked"), request=1),
    ]


def _log(*, with_b: bool) -> list[Delivery]:
    """Make the log in the order of reception; without lab B, something of no lab stands for it."""
    events = [(False, *one) for one in _history(A, "", (0, 5), SHARED_INTEGRATOR)]
    events += [(True, *one) for one in _history(B, MARK, (0, 9), f"{SHARED_INTEGRATOR}-only-b")]
    events.append((True, 9, f'{{"nothing": "{MARK}"}}'.encode()))
    decisions = [(False, one) for one in _decisions_of_a()]
    decisions += [(False, one) for one in _request_for_all(with_b=with_b)]
    decisions += [(True, one) for one in _decisions_of_b()]
    deliveries = [
        (is_of_b, Delivery.of(content, received_at=FIRST + day * DAY, source="webhook"))
        for is_of_b, day, content in sorted(events, key=itemgetter(1))
    ]
    deliveries += [(is_of_b, decided(decision)) for is_of_b, decision in decisions]
    return [
        one if with_b or not is_of_b else _filler(number, one.received_at)
        for number, (is_of_b, one) in enumerate(deliveries)
    ]


def _filler(number: int, received_at: datetime) -> Delivery:
    return Delivery.of(b"%d" % number, received_at=received_at, source="webhook")


def _refused(*, with_b: bool) -> list[Refused]:
    """Make refused deliveries: two of lab A and, among them, two of lab B."""
    made = []
    for number, bill in enumerate(("refused1", "refused2")):
        for lab, mark in ((A, ""), (B, MARK)):
            if with_b or not mark:
                content = body(lab=lab, bill=f"{mark}{bill}")
                at = FIRST + timedelta(days=9, seconds=number)
                one = Delivery.of(content, received_at=at, source="webhook")
                made.append(Refused(one, "wrong", "192.0.2.1", 1, at))
    return made


def refused_id(bill: str, lab: str = A) -> str:
    """Return the id of the refused delivery of a bill."""
    return event_columns(body(lab=lab, bill=bill)).digest.hex()[:16]


def fill(url: str, *, with_b: bool) -> None:
    """Write the log, when an instance was alive, and the API keys."""
    with connect(url, "test") as connection:
        append(connection, _log(with_b=with_b))
        bounds = Bounds(rows=1000, bytes=10**6, age=DAY)
        keep(connection, _refused(with_b=with_b), bounds, FIRST + 9 * DAY)
    with psycopg.connect(url, autocommit=True) as owner:
        for begin, end in ALIVE:
            owner.execute(
                "INSERT INTO ledger.liveness VALUES (gen_random_uuid(), %s, %s)", (begin, end)
            )
        for token_id, labs in TOKENS.items():
            if with_b or labs == [A]:
                owner.execute(
                    "INSERT INTO ledger.webhook_token"
                    " (token_id, digest, labs, name, created_at, created_by)"
                    " VALUES (%s, sha256(%s), %s, %s, %s, 'ann')",
                    (token_id, token_id.encode(), labs, "" if labs == [A] else MARK, FIRST),
                )
        for name, (secret, scope, labs, about) in KEYS.items():
            if with_b or MARK not in about:
                owner.execute(
                    "INSERT INTO ledger.api_key"
                    " (key_id, name, scope, labs, created_at, created_by, digest)"
                    " VALUES (%s, %s, %s, %s, %s, 'ann', %s)",
                    (id_of(name), about, scope, labs, FIRST, digest_of(secret)),
                )
