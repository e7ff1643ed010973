"""Bodies and deliveries for tests: what Flabs would send, and what nobody should."""

import json
import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from ledger.eventlog.append import Delivery, Source

START = 1_705_747_800
"""The event time that `at` counts from, in Unix seconds."""

RECEIVED = datetime(2024, 1, 20, 12, tzinfo=UTC)
"""The time of reception that `received` counts from."""

TYPES = ("bill.created", "report.completed", "bill.completed", "bill.deleted")


def body(
    event_type: str = "bill.created",
    *,
    bill: str = "B",
    lab: str = "L",
    at: int = 0,
    tests: dict[str, str | None] | None = None,
    status: str | None = None,
    **data: str | None,
) -> bytes:
    """Write the body of a readable event."""
    bill_data: dict[str, Any] = {"status": status}
    if tests is not None:
        bill_data["testData"] = [{"_id": test, "status": said} for test, said in tests.items()]
    payload = {
        "labID": lab,
        "eventType": event_type,
        "eventTime": START + at,
        "data": {"billID": bill, "billData": bill_data, **data},
    }
    return json.dumps(payload).encode()


def respelled(event: bytes) -> bytes:
    """Write the same JSON value with other white space and another order of keys."""
    value = json.loads(event)
    return json.dumps(dict(reversed(value.items())), indent=1).encode()


def delivery(event: bytes, *, received: float = 0, source: Source = "webhook") -> Delivery:
    """Make a delivery of a body, received so many seconds after `RECEIVED`."""
    moment = RECEIVED + timedelta(seconds=received)
    return Delivery.of(event, received_at=moment, source=source)


def deliveries(events: Iterable[bytes]) -> list[Delivery]:
    """Make a delivery of each body, received one second after the other."""
    return [delivery(event, received=second) for second, event in enumerate(events)]


def mixed_history(count: int, *, seed: int = 1, bills: int = 20) -> list[Delivery]:
    """Make deliveries of every kind: bills in all states, unreadable bodies, other types."""
    chance = random.Random(seed)
    events: list[bytes] = []
    for number in range(count):
        kind = chance.random()
        bill = f"bill_{chance.randrange(bills):03}"
        lab = f"lab_{chance.randrange(3)}"
        if kind < 0.08:
            events.append(f"broken {number}".encode())
        elif kind < 0.12:
            events.append(body(bill=bill, lab=lab, at=number).replace(b'"eventTime"', b'"when"'))
        elif kind < 0.16:
            events.append(body("lead.created", bill=bill, lab=lab, at=number))
        else:
            tests = {
                f"test_{test}": chance.choice(("completed", "pending", None))
                for test in range(chance.randrange(4))
            }
            event_type = chance.choices(TYPES, weights=(4, 5, 3, 1))[0]
            status = chance.choice((None, "completed", "open"))
            integrator = chance.choice((None, "one", "two"))
            events.append(
                body(
                    event_type,
                    bill=bill,
                    lab=lab,
                    at=chance.randrange(count),
                    tests=tests,
                    status=status,
                    integratorID=integrator,
                )
            )
    return deliveries(events)


HOSTILE = {
    "empty": b"",
    "white space": b" \t ",
    "NUL": b"\x00",
    "each byte": bytes(range(256)),
    "invalid UTF-8": b'{"a":"\xff\xfe"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "leading space": b" {}",
    "trailing space": b"{} ",
    "trailing line end": b'{"a":1}\n',
    "line ends inside": b'{\r\n"a":1,\n"b":2\r\n}',
    "vertical tab": b"\x0b{}",
    "file separator": b"{}\x1c",
    "next line": b'"\xc2\x85"',
    "line separator": b'{"a":"\xe2\x80\xa8"}',
    "not JSON": b"hello",
    "NaN": b"NaN",
    "null": b"null",
    "number": b"1",
    "string": b'"text"',
    "array": b"[1,2]",
    "escaped NUL": b'{"a":"\\u0000"}',
    "half a surrogate pair": b'{"a":"\\ud800"}',
    "doubled key": b'{"a":1,"a":2}',
    "minus zero": b'{"a":-0.0}',
    "number as written": b'{"a":1.500}',
    "number beyond every range": b'{"a":1e999999}',
    "very long number": b'{"a":' + b"1" * 5000 + b"}",
    "deep": b"[" * 199 + b"]" * 199,
    "too deep": b"[" * 100_000 + b"]" * 100_000,
    "two values": b"{}{}",
}
"""Bodies that are no events, by what is wrong with them."""
