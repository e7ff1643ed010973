"""Logs of a given size, made by the product's own append, and deliveries to append.

A bill has seven events of about 350 bytes: it is created, its five reports are completed one after
the other, it is completed. A hundred bills are open at a time, so that the events of a bill lie
among those of others, as they come.
"""

import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context

from benchmarks import stage
from ledger.embedded import EmbeddedPostgres
from ledger.eventlog.append import Delivery, append
from ledger.postgres.connect import connect

LABS = 20
TESTS = 5
EVENTS_OF_A_BILL = TESTS + 2
OPEN_BILLS = 100
BATCH = 2_000
"""Events in one transaction; also how many bills make it worth while to start processes."""

WRITERS = 2

_BEGIN = 1_705_747_800  # 2024-01-20
_KINDS = ("bill.created", *["report.completed"] * TESTS, "bill.completed")
_STATUS = ("pending", "completed")


class Logs:
    """Databases of one server with logs of several sizes, each made once, from the last smaller."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._bills: dict[str, int] = {"log_0": 0}
        self._copies = 0
        stage.new_database(server, "log_0")

    def name(self, events: int) -> str:
        """Return the name of the database with about so many events, whole bills; make it first."""
        bills = events // EVENTS_OF_A_BILL
        name = f"log_{bills}"
        if name not in self._bills:
            base = max(
                (n for n in self._bills if self._bills[n] < bills), key=self._bills.__getitem__
            )
            url = stage.copy_database(self._server, base, name)
            fill(url, self._bills[base], bills)
            stage.settle(url)
            self._bills[name] = bills
        return name

    def url(self, events: int) -> str:
        """Return the address of that database, which is nobody's own: leave its log as it is."""
        return self._server.dsn(self.name(events))

    @contextmanager
    def copied(self, name: str) -> Iterator[str]:
        """Yield the address of a copy of a database that is thrown away in the end."""
        self._copies += 1
        copy = f"copy_{self._copies}"
        url = stage.copy_database(self._server, name, copy)
        try:
            yield url
        finally:
            stage.drop_database(self._server, copy)


def fill(url: str, first: int, end: int) -> None:
    """Append the events of the bills `first` to `end` - 1; many from two processes."""
    if end - first <= BATCH:
        _write(url, first, end, 1)
        return
    with ProcessPoolExecutor(WRITERS, mp_context=get_context("spawn")) as pool:
        shares = [pool.submit(_write, url, first + n, end, WRITERS) for n in range(WRITERS)]
        for share in shares:
            share.result()


def deliveries(numbers: range) -> list[Delivery]:
    """Return what an intake would append of these bills."""
    now = datetime.now(UTC)
    return [Delivery.of(body, received_at=now, source="webhook") for body in bodies(numbers)]


def bodies(numbers: range) -> Iterator[bytes]:
    """Yield the events of these bills, as they come."""
    chance = random.Random(numbers.start)
    coming = iter(numbers)
    opened: list[tuple[int, Iterator[bytes]]] = []
    while True:
        while len(opened) < OPEN_BILLS and (number := next(coming, None)) is not None:
            opened.append((number, _events(number)))
        if not opened:
            return
        place = chance.randrange(len(opened))
        body = next(opened[place][1], None)
        if body is None:
            opened[place] = opened[-1]
            opened.pop()
        else:
            yield body


def _events(number: int) -> Iterator[bytes]:
    """Yield the events of a bill; a report.completed lists its test, the others list all."""
    for nth, kind in enumerate(_KINDS):
        done = nth > TESTS
        listed = range(nth - 1, nth) if 0 < nth <= TESTS else range(TESTS)
        tests = ",".join(
            f'{{"_id":"test_{test}","status":"{_STATUS[nth > 0]}"}}' for test in listed
        )
        yield (
            f'{{"labID":"lab_{number % LABS}","eventType":"{kind}","eventTime":{_BEGIN + 60 * nth},'
            f'"data":{{"billID":"bill_{number}","integratorID":"your_unique_integrator_id_{number}",'
            f'"billData":{{"status":"{_STATUS[done]}","testData":[{tests}]}},'
            f'"reportURL":"https://reports.flabs.in/bill/bill_{number}"}}}}'
        ).encode()


def _write(url: str, first: int, end: int, step: int) -> None:
    waiting: list[Delivery] = []
    with closing(connect(url, "bench")) as connection:
        for body in bodies(range(first, end, step)):
            waiting.append(Delivery.of(body, received_at=datetime.now(UTC), source="webhook"))
            if len(waiting) == BATCH:
                append(connection, waiting)
                waiting = []
        if waiting:
            append(connection, waiting)
