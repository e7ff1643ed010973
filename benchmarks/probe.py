"""Sends events of its own while others load the server, and learns when the state has them.

A thread posts one every 20 ms and then updates a row elsewhere; another listens for the state's
changes. The client is a bare socket, so that it takes little from what it measures.
"""

import http.client
import json
import queue
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg

from benchmarks import stage
from benchmarks.stage import MeasureError

INTERVAL = 0.02
"""Seconds between two events."""

PATIENCE = 30.0
"""Seconds after which an event that is not in the state never will be."""

LOOK_SECONDS = 0.005
"""How long the state's notice is waited for before the state is looked at anyway."""

TABLE = "CREATE TABLE probed (number bigint); INSERT INTO probed VALUES (0)"


class _Answered(NamedTuple):
    position: int
    at: float


class Probed(NamedTuple):
    """In milliseconds: from each 2xx until the state had the event, and of each UPDATE."""

    lags: list[float]
    updates: list[float]


def probe(url: str, address: str, seconds: float, seed: str) -> Probed:
    """Probe for some seconds; for a process of its own."""
    return Prober(url, address, seed).run(seconds)


class Prober:
    """One thread posts, and this one watches."""

    def __init__(self, url: str, address: str, seed: str) -> None:
        self._url = url
        self._client = http.client.HTTPConnection(urlsplit(address).netloc, timeout=PATIENCE)
        self._seed = seed
        self._answered: queue.SimpleQueue[_Answered] = queue.SimpleQueue()
        self._over = threading.Event()

    def run(self, seconds: float) -> Probed:
        """Post for some seconds, and watch until the last event is in the state."""
        with (
            psycopg.connect(self._url, autocommit=True) as connection,
            ThreadPoolExecutor(1) as posting,
        ):
            connection.execute("LISTEN ledger_state")
            updates = posting.submit(self._post, seconds)
            return Probed(self._watch(connection), updates.result())

    def _post(self, seconds: float) -> list[float]:
        updates: list[float] = []
        try:
            with psycopg.connect(self._url, autocommit=True) as connection:
                begin = time.monotonic()
                number = 0
                while (now := time.monotonic()) < begin + seconds:
                    number = max(number + 1, int((now - begin) / INTERVAL))  # never to catch up
                    time.sleep(max(0.0, begin + number * INTERVAL - now))
                    position = self._send(number)
                    began = time.monotonic()
                    self._answered.put(_Answered(position, began))
                    connection.execute("UPDATE probed SET number = number + 1")
                    updates.append((time.monotonic() - began) * 1000)
        finally:
            self._over.set()
            self._client.close()
        return updates

    def _send(self, number: int) -> int:
        bill = {"billID": f"{self._seed}_{number}", "billData": {"status": "pending"}}
        body = {"labID": "lab_probe", "eventType": "bill.created", "eventTime": 1_705_747_800}
        headers = {"Authorization": f"Bearer {stage.TOKEN}"}
        content = json.dumps({**body, "data": bill}).encode()
        self._client.request("POST", "/webhooks/flabs", content, headers)
        answer = self._client.getresponse()
        said = answer.read()
        if answer.status != http.client.OK:
            raise MeasureError(f"the prober was answered {answer.status}: {said!r}")
        return int(json.loads(said)["position"])

    def _watch(self, connection: psycopg.Connection) -> list[float]:
        lags: list[float] = []
        waiting: deque[_Answered] = deque()
        while waiting or not (self._over.is_set() and self._answered.empty()):
            for _ in connection.notifies(timeout=LOOK_SECONDS, stop_after=1):
                pass
            row = connection.execute("SELECT position FROM state.checkpoint").fetchone()
            now = time.monotonic()
            while not self._answered.empty():
                waiting.append(self._answered.get())
            while waiting and row and waiting[0].position <= row[0]:
                lags.append(max(0.0, now - waiting.popleft().at) * 1000)
            if waiting and now - waiting[0].at > PATIENCE:
                raise MeasureError(f"position {waiting[0].position} did not come into the state")
        return lags
