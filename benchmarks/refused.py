"""What a flood of wrong tokens costs honest deliveries: `python -m benchmarks.refused [SECONDS]`.

Needs no wrk. One process sends honest deliveries on some connections, on each the next one when the
last is answered. Another sends readable events with a wrong token at a given rate, each on a
connection of its own, because a refusal ends one. Three servers take turns: without a flood, with
one and no box, with one and the box. What the box costs is the difference of the last two.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from urllib.parse import urlsplit

import psycopg

from benchmarks import stage

CONNECTIONS = 32
FLOOD = 1_000
"""Wrong tokens a second."""

ROUNDS = 3
CASES = {
    "quiet": (False, {}),
    "flood, no box": (True, {"LEDGER_REFUSED_ROWS": "0"}),
    "flood, box": (True, {}),
}


def delivery(seed: str, number: int, token: str) -> bytes:
    """Return a request with an event that no other has."""
    body = json.dumps(
        {
            "labID": "lab_67890",
            "eventType": "report.completed",
            "eventTime": 1_705_747_800,
            "data": {
                "billID": f"bill_{seed}_{number}",
                "reportURL": "https://x.example/" + "r" * 120,
            },
        }
    ).encode()
    head = (
        f"POST /webhooks/flabs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def answered(reader: asyncio.StreamReader) -> int:
    """Read one answer and return its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head[9:12])


async def send(port: int, seconds: float, seed: str) -> tuple[float, float]:
    """Send honest deliveries; return how many a second, and the 99th percentile in ms."""
    numbers, times = count(), []
    end = time.perf_counter() + seconds

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < end:
            writer.write(delivery(seed, next(numbers), stage.TOKEN))
            if (status := await answered(reader)) != 200:
                raise stage.MeasureError(f"an honest delivery was answered with {status}")
            times.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return len(times) / seconds, statistics.quantiles(times, n=100)[98] * 1000


async def flood(port: int, seed: str) -> None:
    """Send wrong tokens until the process is ended."""
    begin, waiting = time.perf_counter(), asyncio.Semaphore(64)

    async def one(number: int) -> None:
        async with waiting:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(delivery(seed, number, "wrong"))
                await reader.read()
                writer.close()

    tasks: set[asyncio.Task[None]] = set()
    for number in count():
        task = asyncio.create_task(one(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.sleep(max(0.0, begin + number / FLOOD - time.perf_counter()))


@contextmanager
def flooded(port: int, seed: str, *, on: bool) -> Iterator[None]:
    """Flood from another process, if there is to be a flood."""
    if not on:
        yield
        return
    command = [sys.executable, "-m", "benchmarks.refused", "flood", str(port), seed]
    process = subprocess.Popen(command)
    time.sleep(1.0)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def main(seconds: float) -> None:
    """Measure the cases in turn and print medians and ratios."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CASES}
    boxed = 0
    with stage.postgres() as server:
        url = stage.new_database(server, "refused")
        for turn in range(ROUNDS):
            for name, (on, settings) in CASES.items():
                with stage.ledger_serve(url, more=settings) as (address, _):
                    port = urlsplit(address).port or 0
                    seed = f"{turn}{len(name)}"
                    with flooded(port, f"f{seed}", on=on):
                        asyncio.run(send(port, 1.0, f"w{seed}"))
                        found[name].append(asyncio.run(send(port, seconds, f"h{seed}")))
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT count(*) FROM ledger.refused_delivery").fetchone()
            boxed = row[0] if row else 0
    medians = {
        name: tuple(statistics.median(each[index] for each in loads) for index in (0, 1))
        for name, loads in found.items()
    }
    base = medians["flood, no box"]
    for name, (rate, p99) in medians.items():
        print(
            f"{name:<14} {rate:>8,.0f}/s  p99 {p99:6.1f} ms   "
            f"{rate / base[0]:.2f} and {p99 / base[1]:.2f} of a flood without the box"
        )
    print(f"{boxed:,} deliveries are in the box; {FLOOD:,} wrong tokens a second were sent")


if __name__ == "__main__":
    if sys.argv[1:2] == ["flood"]:
        asyncio.run(flood(int(sys.argv[2]), sys.argv[3]))
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 8.0)
