"""Senders that behave like Flabs, and a record of what each of their attempts was told."""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from itertools import count
from random import Random
from typing import Self

from msgspec import Struct

from tests.support.payloads import BASE, event
from tests.support.server import LedgerServer, wait_until

SENDERS = 4
ATTEMPTS = 4
"""Of a delivery that is not acknowledged, as the sender's."""

PAUSE_SECONDS = 0.01
RETRY_SECONDS = 0.3
ANSWER_SECONDS = 12.0
REPEATED = 0.05
"""Share of acknowledged deliveries that are sent once more."""

NO_ANSWER = 0
RECORDED = 200
SPOOLED = 202
REFUSED = 503


class Attempt(Struct, frozen=True):
    """One delivery: when it was sent and answered, and with which status (0: not at all)."""

    sent: datetime
    answered: datetime
    status: int
    position: int | None

    @property
    def acknowledged(self) -> bool:
        """Whether Ledger promised to keep it."""
        return self.status in {RECORDED, SPOOLED}


class Load:
    """Deliveries of several senders at once, while its `with` block lasts."""

    def __init__(self, server: LedgerServer, random: Random, name: str, head: int) -> None:
        """`name` makes the bodies unlike those of other loads; `head` is the log's before it."""
        self._server = server
        self._name = name
        self.head = head
        self._seeds = [random.random() for _ in range(SENDERS)]
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(SENDERS)
        ]
        self.attempts: dict[bytes, list[Attempt]] = defaultdict(list)
        self.filler = 0
        """Bytes by which bodies are made longer."""

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more, and wait for the last answers."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def all(self) -> list[Attempt]:
        """Return the attempts so far, in the order in which they were sent."""
        found = [attempt for attempts in list(self.attempts.values()) for attempt in list(attempts)]
        return sorted(found, key=lambda attempt: attempt.sent)

    def with_status(self, *statuses: int, since: datetime | None = None) -> list[Attempt]:
        """Return the attempts that were answered so, of those sent since a time."""
        return [
            attempt
            for attempt in self.all()
            if attempt.status in statuses and (since is None or attempt.sent >= since)
        ]

    def wait_for(self, more: int, *statuses: int, seconds: float = 60.0) -> None:
        """Wait until that many more attempts were answered so."""
        since = datetime.now(UTC)
        wait_until(
            lambda: len(self.with_status(*statuses, since=since)) >= more,
            f"{more} more answers {statuses}",
            seconds=seconds,
        )

    def _run(self, sender: int) -> None:
        random = Random(self._seeds[sender])
        connection = _Connection(self._server)
        for body in self._bodies(sender, random):
            if self._stop.is_set():
                break
            self._deliver(connection, body)
            if random.random() < REPEATED and not self._stop.is_set():
                self._attempt(connection, body)
            self._stop.wait(PAUSE_SECONDS)
        connection.close()

    def _bodies(self, sender: int, random: Random) -> Iterator[bytes]:
        """Give histories of bills, and now and then something that is no JSON."""
        for number in count():
            lab, bill = f"lab{sender % 2}", f"{self._name}-{sender}-{number}"
            if random.random() < 0.02:
                yield f"no JSON {bill} \x00".encode()
            tests = {"t1": "pending", "t2": "pending"}
            yield self._body(lab, bill, "bill.created", 0, tests)
            for nth in ("t1", "t2"):
                tests = {**tests, nth: "completed"}
                if random.random() < 0.9:
                    yield self._body(lab, bill, "report.completed", int(nth[1:]) * 60, tests)
            if random.random() < 0.9:
                yield self._body(lab, bill, "bill.completed", 240, tests)

    def _body(self, lab: str, bill: str, kind: str, after: int, tests: dict[str, str]) -> bytes:
        payload = event(lab, bill, kind, at=BASE + after, tests=dict(tests), integrator=bill)
        if self.filler:
            payload["filler"] = "x" * self.filler
        return json.dumps(payload).encode()

    def _deliver(self, connection: "_Connection", body: bytes) -> None:
        for _ in range(ATTEMPTS):
            if self._attempt(connection, body) or self._stop.wait(RETRY_SECONDS):
                return

    def _attempt(self, connection: "_Connection", body: bytes) -> bool:
        sent = datetime.now(UTC)
        status, position = connection.post(body)
        attempt = Attempt(sent, datetime.now(UTC), status, position)
        self.attempts[body].append(attempt)
        return attempt.acknowledged


class _Connection:
    def __init__(self, server: LedgerServer) -> None:
        self._http = HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_SECONDS)
        self._headers = {"Authorization": f"Bearer {server.token}"}

    def post(self, body: bytes) -> tuple[int, int | None]:
        """Return the status, or 0 without an answer, and the position."""
        try:
            self._http.request("POST", "/webhooks/flabs", body, self._headers)
            answer = self._http.getresponse()
            content = answer.read()
        except (OSError, HTTPException):
            self._http.close()
            return NO_ANSWER, None
        said = json.loads(content)
        return answer.status, said.get("position")

    def close(self) -> None:
        self._http.close()
