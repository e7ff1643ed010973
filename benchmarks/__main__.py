"""`python -m benchmarks`: prints the medians of several rounds, as ratios.

Absolute figures depend on the machine and on who else uses it; within one round all are measured in
turn, so that their ratios mean something.
"""

import argparse
import statistics
import time
from datetime import UTC, datetime

import psycopg

from benchmarks import reading, stage
from ledger import __version__
from ledger.projection.rebuild import rebuild


def main() -> None:
    """Run all."""
    arguments = argparse.ArgumentParser(prog="benchmarks")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=5, help="of load in each round")
    given = arguments.parse_args()
    with stage.postgres() as server:
        url = stage.new_database(server, "bench")
        _say_where(url)
        _intake(url, given.rounds, given.seconds)
        _rebuild(url, given.rounds)
        _reading(stage.new_database(server, "reading"), given.rounds, given.seconds)


def _say_where(url: str) -> None:
    with psycopg.connect(url) as connection:
        settings = [
            connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
            for name in ("server_version", "fsync", "synchronous_commit")
        ]
    version, fsync, commit = (row[0] for row in settings if row)
    print(f"Ledger {__version__}, PostgreSQL {version}, fsync {fsync}, commit {commit}")


def _intake(url: str, rounds: int, seconds: int) -> None:
    targets = {
        "ledger": ("ledger.app:create_app", True),
        "obvious": ("benchmarks.rivals:make_obvious", True),
        "raw": ("benchmarks.rivals:raw", False),
    }
    rates: dict[str, list[float]] = {name: [] for name in targets}
    slow: dict[str, list[float]] = {name: [] for name in targets}
    for number in range(rounds):
        for name, (target, factory) in targets.items():
            if name == "obvious":
                _move_sequence(url)
            with stage.served(url, target, factory=factory) as address:
                rate, milliseconds = stage.load(address, seconds, f"{name}{number}")
            rates[name].append(rate)
            slow[name].append(milliseconds)
    print(f"intake, {stage.CONNECTIONS} connections, one worker, median of {rounds}:")
    for name in targets:
        print(
            f"  {name:8} {statistics.median(rates[name]):8,.0f}/s"
            f"   p99 {statistics.median(slow[name]):6.1f} ms"
        )
    _ratio("ledger / raw", rates["ledger"], rates["raw"])
    _ratio("ledger / obvious", rates["ledger"], rates["obvious"])
    _ratio("p99 of ledger / of obvious", slow["ledger"], slow["obvious"])


def _move_sequence(url: str) -> None:
    # The obvious handler takes its positions from a sequence, in the same table.
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT setval('obvious_position', (SELECT max(position) FROM event_log))"
        )


def _rebuild(url: str, rounds: int) -> None:
    events = 0
    rates: list[float] = []
    copied: list[float] = []
    for _ in range(rounds):
        began = time.monotonic()
        made = rebuild(
            url, processes=2, started_at=datetime.now(UTC), on_progress=lambda _done, _total: None
        )
        events = made.counts.events
        rates.append(events / (time.monotonic() - began))
        copied.append(_copy_out(url))
    print(f"rebuild of {events:,} events, two processes, median of {rounds}:")
    print(f"  ledger   {statistics.median(rates):8,.0f} events/s")
    _ratio("ledger / COPY of the log to nowhere, one process", rates, copied)


def _reading(url: str, rounds: int, seconds: int) -> None:
    reading.fill(url)
    ours, constant = reading.measure(url, rounds, seconds)
    print(f"reading a bill with {reading.TESTS} reports, {stage.CONNECTIONS} connections:")
    print(f"  ledger   {statistics.median(ours):8,.0f}/s")
    print(f"  constant {statistics.median(constant):8,.0f}/s")
    _ratio("ledger / constant", ours, constant)


def _copy_out(url: str) -> float:
    began, rows = time.monotonic(), 0
    query = "COPY event_log TO STDOUT (FORMAT binary)"
    with psycopg.connect(url) as connection, connection.cursor().copy(query) as copy:
        for _ in copy:
            rows += 1
    return rows / (time.monotonic() - began)


def _ratio(what: str, ours: list[float], theirs: list[float]) -> None:
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    print(f"  {what}: {statistics.median(ratios):.2f}  ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
