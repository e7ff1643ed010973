"""Row 13: `ledger serve` with several workers, which share the log through its lane."""

import os

import psycopg

from benchmarks import stage, wrk
from benchmarks.logs import EVENTS_OF_A_BILL, LABS
from benchmarks.rebuild import rebuilt
from benchmarks.row import Figure, Row, Run
from benchmarks.stage import MeasureError

EVENTS = 50_000
WORKERS = (1, 2, 4)
SHOWN = (
    "Shown here, on {cores} cores that the workers share with wrk and PostgreSQL: that they share "
    "one log, whose positions stayed without gaps and repeats, and what they cost each other."
)
NOT_SHOWN = (
    "Not shown: how far they carry on more cores, for here they only divide the same ones. All "
    "appends go through one lane: past what that carries, more workers do not help the intake; "
    "they do help reading."
)


def measure(run: Run) -> list[Row]:
    """Load the intake and read, with each number of workers in turn."""
    rebuilt(run, EVENTS)
    seconds = run.size(run.seconds, 1)
    sent: dict[str, list[float]] = {str(count): [] for count in WORKERS}
    read: dict[str, list[float]] = {str(count): [] for count in WORKERS}
    for number, count in run.turns(list(sent), long=True):
        with run.logs.copied(run.logs.name(EVENTS)) as url:
            with stage.ledger_serve(url, workers=int(count)) as (address, _):
                bills = EVENTS // EVENTS_OF_A_BILL
                read[count].append(wrk.read(address, seconds, bills=bills, labs=LABS).rate)
                sent[count].append(wrk.send(address, seconds, f"workers{number}").rate)
            _check_positions(url)
    return [
        Row(
            number="13",
            what="`ledger serve` with 1, 2, 4 workers, requests/s",
            against="-",
            figures=[
                Figure(f"{what}, {count} worker{'s'[: int(count) > 1]}", values[count], "/s")
                for what, values in (("intake", sent), ("reading", read))
                for count in values
            ],
            remarks=[SHOWN.format(cores=os.cpu_count()), NOT_SHOWN],
        )
    ]


def _check_positions(url: str) -> None:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*), count(DISTINCT position), max(position) FROM ledger.event_log"
        ).fetchone()
    if not row or len(set(row)) != 1:
        raise MeasureError(f"events, different positions, last position: {row}")
