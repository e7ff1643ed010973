"""Row 6: a rebuild, against the `eventsourcing` library replaying as many events into memory.

The library keeps the same JSON, an aggregate a bill, by its recorder for PostgreSQL. It replays by
the cheapest of its ways: sections of the notification log, mapped to domain events, each applied to
a dictionary. Once with the JSON transcoder that it brings, once with one made of msgspec.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import msgspec
from eventsourcing.domain import HasOriginatorIDVersion
from eventsourcing.persistence import JSONTranscoder, Mapper, Transcoder
from eventsourcing.postgres import PostgresFactory

from benchmarks import logs, stage
from benchmarks.apart import apart
from benchmarks.rebuild import rebuild
from benchmarks.row import Figure, Row, Run, Target, ratios
from benchmarks.stage import MeasureError

SECTION = 5_000
"""Events stored in one transaction, and read by one query."""


@dataclass(frozen=True)
class WebhookReceived(HasOriginatorIDVersion[str]):
    """One event of the library, of the bill `originator_id`."""

    originator_id: str
    originator_version: int
    body: dict[str, Any]


class MsgspecTranscoder(Transcoder):
    """Reads JSON as fast as Ledger does."""

    def encode(self, obj: Any) -> bytes:  # noqa: ANN401 -- the library's own signature
        """Write JSON."""
        return msgspec.json.encode(obj)

    def decode(self, data: bytes) -> Any:  # noqa: ANN401 -- the same
        """Read JSON."""
        return msgspec.json.decode(data)


_TRANSCODERS: dict[str, type[Transcoder]] = {"json": JSONTranscoder, "msgspec": MsgspecTranscoder}


def measure(run: Run) -> list[Row]:
    """Rebuild and replay in turn, with one process each."""
    events = run.size(500_000, 60_000)
    log = run.logs.url(events)
    run.server.ensure_database("eventsourcing")
    store = run.server.dsn("eventsourcing")
    bills = events // logs.EVENTS_OF_A_BILL
    apart(_store, store, bills)
    stage.settle(store)
    rates: dict[str, list[float]] = {"Ledger": [], "json": [], "msgspec": []}
    for _, name in run.turns(list(rates), long=True):
        if name == "Ledger":
            rates[name].append(rebuild(log, processes=1).rate)
        else:
            rates[name].append(apart(_replay, store, bills, name))
    by_msgspec = ratios(rates["Ledger"], rates["msgspec"])
    return [
        Row(
            number="6",
            what="rebuild, events/s, one process, writing included",
            against="the eventsourcing library replaying as many into memory, one process",
            target=Target(at_least=1.0),
            values=ratios(rates["Ledger"], rates["json"]),
            figures=[
                Figure("Ledger", rates["Ledger"], "events/s"),
                Figure("eventsourcing", rates["json"], "events/s"),
                Figure("eventsourcing with msgspec as its JSON", rates["msgspec"], "events/s"),
                Figure("ratio to eventsourcing with msgspec", by_msgspec, ""),
            ],
            remarks=[f"{bills * logs.EVENTS_OF_A_BILL:,} events each."],
        )
    ]


def _store(url: str, bills: int) -> None:
    factory = _factory(url)
    recorder = factory.application_recorder()
    mapper: Mapper[str] = factory.mapper(JSONTranscoder())
    coming = _received(bills)
    while section := list(islice(coming, SECTION)):
        recorder.insert_events([mapper.to_stored_event(event) for event in section])
    factory.close()


def _received(bills: int) -> Iterator[WebhookReceived]:
    versions: Counter[str] = Counter()
    for content in logs.bodies(range(bills)):
        body = msgspec.json.decode(content)
        bill = f"{body['labID']}/{body['data']['billID']}"
        versions[bill] += 1
        yield WebhookReceived(bill, versions[bill], body)


def _replay(url: str, bills: int, transcoder: str) -> float:
    """Return the events per second that the library replayed."""
    factory = _factory(url)
    recorder = factory.application_recorder()
    mapper: Mapper[str] = factory.mapper(_TRANSCODERS[transcoder]())
    state: dict[str, dict[str, str]] = {}
    events = last = 0
    began = time.monotonic()
    while section := recorder.select_notifications(last, SECTION, inclusive_of_start=False):
        for notification in section:
            event = mapper.to_domain_event(notification)
            _apply(state.setdefault(event.originator_id, {}), event)
        events += len(section)
        last = section[-1].id
    seconds = time.monotonic() - began
    factory.close()
    if len(state) != bills or any(set(bill.values()) != {"completed"} for bill in state.values()):
        raise MeasureError("the library's replay did not give the bills as they are")
    return events / seconds


def _apply(bill: dict[str, str], event: Any) -> None:  # noqa: ANN401 -- a `WebhookReceived`
    detail = event.body["data"]["billData"]
    bill["bill"] = detail["status"]
    for test in detail["testData"]:
        bill[test["_id"]] = test["status"]


def _factory(url: str) -> PostgresFactory:
    parts = urlsplit(url)
    return PostgresFactory(
        {
            "POSTGRES_DBNAME": parts.path[1:],
            "POSTGRES_HOST": parts.hostname or "",
            "POSTGRES_PORT": str(parts.port),
            "POSTGRES_USER": parts.username or "",
            "POSTGRES_PASSWORD": parts.password or "",
            "ORIGINATOR_ID_TYPE": "text",
        }
    )
