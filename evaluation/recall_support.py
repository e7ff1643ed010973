"""Flabs' support, simulated: answers some of what it is asked, days later, from its archive."""

import heapq
import random
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

import msgspec

from evaluation.recall_judge import Fact
from evaluation.recall_truth import Sent, Truth
from ledger.eventlog.append import Source
from ledger.eventlog.export_lines import ExportLine
from ledger.operations.read_models import LossWindow, RequestLine

NEVER, WHOLE_BILL = 0.2, 0.2
"""Shares of the lines that are never answered, and of those answered by all events of the bill."""

FASTEST, SLOWEST = 6 * 3_600, 96 * 3_600
"""Seconds from a question to its answer."""

Arrival = tuple[datetime, int, Sent, bool]
"""When an event is received, its number among all arrivals, and whether in a support file."""


class Support:
    """Holds the answers that are under way."""

    def __init__(self, truth: Truth, seed: int) -> None:
        self._truth = truth
        self._chance = random.Random(f"{seed}/support").random
        self._under_way: list[Arrival] = []
        self._numbers = 0

    def ask(self, lines: Iterable[RequestLine], windows: list[LossWindow], now: datetime) -> None:
        """Take a request. What was never sent is not found, and not answered."""
        for line in lines:
            fact = fact_of(line)
            lost = [event for event in self._truth.meant_by(fact) if event.cause]
            wanted = lost[: line.count]
            if wanted and self._chance() >= NEVER:
                if self._chance() < WHOLE_BILL:
                    wanted = list(self._truth.bills[line.lab_id, line.bill_id])
                self._send(wanted, now)
        for window in windows:
            if self._chance() >= NEVER:
                begin, end = window.begin.timestamp(), window.end.timestamp()
                within = [
                    event
                    for event in self._truth.events()
                    if event.key[0] in window.labs and begin <= event.at < end
                ]
                self._send(within, now)

    def answers_until(self, now: datetime) -> Iterator[Arrival]:
        """Yield what has come by a time and was not yielded before."""
        while self._under_way and self._under_way[0][0] <= now:
            yield heapq.heappop(self._under_way)

    def _send(self, events: Iterable[Sent], now: datetime) -> None:
        due = now + timedelta(seconds=FASTEST + int(self._chance() * (SLOWEST - FASTEST)))
        for event in events:
            if event.at <= now.timestamp():  # the archive holds nothing of what is to come
                self._numbers += 1
                heapq.heappush(self._under_way, (due, self._numbers, event, True))


def fact_of(line: RequestLine) -> Fact:
    """Say what a line of a request asks for."""
    return Fact(line.lab_id, line.bill_id, line.event_type, line.test_id or "")


def export_line(arrival: Arrival) -> bytes:
    """Write an arrival as a line that `ledger import` takes in with the time of its reception."""
    received_at, _, event, imported = arrival
    source: Source = "import" if imported else "webhook"
    body = msgspec.Raw(event.body)
    return msgspec.json.encode(ExportLine(1, received_at, source, body=body)) + b"\n"
