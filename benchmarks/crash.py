"""`python -m benchmarks.crash`: processes are killed under full load; nothing acknowledged is lost.

wrk notes the position of every event that was answered with 200. In one round the server's worker
and the projector are killed, in the next every process of PostgreSQL, with SIGKILL, and started
again while wrk goes on. It proves what a commit promises when processes die; that it outlives a
loss of power is for fsync, which is on, and for the disk.
"""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import psycopg

from benchmarks import report, stage, wrk
from benchmarks.apart import children
from benchmarks.row import Figure, Row, Run, Target
from benchmarks.stage import MeasureError

SEED = "crash"
SECONDS, QUICK_SECONDS = 9, 6
"""Of load in a round; after a third of it the processes are killed."""


class Outcome(NamedTuple):
    """What became of a round: events acknowledged in all, those of them after the kill, missing."""

    acknowledged: int
    after_kill: int
    missing: int
    verified: str


class Stand:
    """PostgreSQL, `ledger serve` and `ledger project` in a folder of their own."""

    def __init__(self, cleanup: ExitStack) -> None:
        self._cleanup = cleanup
        self.folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="ledger-")))
        self._postgres = stage.start_postgres(self.folder)
        cleanup.callback(self._stop_postgres)
        self.url = stage.new_database(self._postgres, "crash")
        self.address, self._serve = cleanup.enter_context(stage.ledger_serve(self.url))
        self._project = cleanup.enter_context(stage.ledger_project(self.url))

    def _stop_postgres(self) -> None:
        self._postgres.stop()  # the one that runs then

    def kill_worker(self) -> None:
        """Kill the worker, which its supervisor replaces, and the projector, which is here."""
        for process in [*children(self._serve), self._project]:
            os.kill(process, signal.SIGKILL)
        self._project = self._cleanup.enter_context(stage.ledger_project(self.url))

    def kill_postgres(self) -> None:
        """Kill every process of PostgreSQL, then start it again where it was."""
        for process in [self._postgres.pid, *children(self._postgres.pid)]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._postgres.kill()  # waits for its end
        self._postgres = stage.start_postgres(self.folder, port=self._postgres.port)


VICTIMS: dict[str, Callable[[Stand], None]] = {
    "worker and projector": Stand.kill_worker,
    "all of PostgreSQL": Stand.kill_postgres,
}


def main() -> None:
    """Measure, print, exit with 1 on a loss."""
    wrk.check()
    (row,) = measure()
    print(report.text(row))
    sys.exit(0 if row.reached else 1)


def measure(run: Run | None = None) -> list[Row]:
    """Run a round for each part that is killed."""
    seconds = QUICK_SECONDS if run and run.quick else SECONDS
    outcomes = {what: _round(kill, seconds) for what, kill in VICTIMS.items()}
    row = Row(
        number="crash",
        what="events acknowledged under full load and missing after a kill",
        against="-",
        target=Target(at_most=0, unit="events"),
        values=[outcome.missing for outcome in outcomes.values()],
        figures=[
            Figure(f"{what} killed: {words}", [value], "events")
            for what, outcome in outcomes.items()
            for words, value in (
                ("acknowledged", outcome.acknowledged),
                ("of them after the kill", outcome.after_kill),
                ("found", outcome.acknowledged - outcome.missing),
                ("missing", outcome.missing),
            )
        ],
        remarks=[f"{what} killed: {outcome.verified}" for what, outcome in outcomes.items()],
    )
    return [row]


def _round(kill: Callable[[Stand], None], seconds: int) -> Outcome:
    with ExitStack() as cleanup:
        stand = Stand(cleanup)
        file = stand.folder / "acknowledged"
        load = wrk.send_noting(stand.address, seconds, SEED, file)
        try:
            time.sleep(seconds / 3)
            before = len(_noted(file))
            kill(stand)
        finally:
            load.communicate()
        noted = _noted(file)
        if len(noted) == before:
            raise MeasureError("nothing was acknowledged after the kill")
        found = _in_log(stand.url)
        # The bodies differ, so that each has a position of its own.
        missing = len(noted) - len(set(noted) & found)
        return Outcome(len(noted), len(noted) - before, missing, stage.ledger_verify(stand.url))


def _noted(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().splitlines(keepends=True) if line[-1] == "\n"]


def _in_log(url: str) -> set[int]:
    """Return the positions of what wrk sent, having made sure that the log has no gap."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*), count(DISTINCT position), max(position) FROM ledger.event_log"
        ).fetchone()
        if not row or len(set(row)) != 1:
            raise MeasureError(f"events, different positions, last position: {row}")
        query = "SELECT position FROM ledger.event_log WHERE position(%s::bytea IN body) > 0"
        return {position for (position,) in connection.execute(query, [f"bill_{SEED}_".encode()])}


if __name__ == "__main__":
    main()
