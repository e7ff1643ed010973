"""Row 8: draining a backlog, against the rate at which the intake can make one."""

import time
from contextlib import closing

from benchmarks import stage, wrk
from benchmarks.apart import apart
from benchmarks.logs import EVENTS_OF_A_BILL, fill
from benchmarks.rebuild import rebuilt
from benchmarks.row import Figure, Row, Run, Target, ratios
from benchmarks.stage import MeasureError
from ledger.eventlog import read
from ledger.postgres.connect import connect
from ledger.projection.projector import follow_once

BEFORE = 50_000
"""Events of the log that the state has already."""

BACKLOG = "backlog"


def measure(run: Run) -> list[Row]:
    """Drain a backlog alone, and load the intake alone, in turn."""
    events = _make_backlog(run)
    intake = stage.new_database(run.server, "follow_intake")
    rates: dict[str, list[float]] = {"follow": [], "intake": []}
    for number, name in run.turns(list(rates)):
        if name == "follow":
            with run.logs.copied(BACKLOG) as url:
                rates[name].append(drain(url, events))
        else:
            with stage.served(intake, stage.LEDGER) as address:
                rates[name].append(wrk.send(address, run.seconds, f"follow{number}").rate)
    return [
        Row(
            number="8",
            what="follow: draining a backlog, events/s, one process",
            against="row 1's rate, measured alone",
            target=Target(at_least=1.0),
            values=ratios(rates["follow"], rates["intake"]),
            figures=[
                Figure("follow", rates["follow"], "events/s"),
                Figure("intake", rates["intake"], "/s"),
            ],
            remarks=[f"A backlog of {events:,} events, behind a log of {BEFORE:,}."],
        )
    ]


def drain(url: str, events: int) -> float:
    """Fold all that waits, so many events, in a process of its own; return events per second."""
    done, seconds = apart(_drain, url)
    if done != events:
        raise MeasureError(f"{done:,} events were folded, not {events:,}")
    return events / seconds


def catch_up(url: str) -> None:
    """Fold all that waits."""
    apart(_drain, url)


def _make_backlog(run: Run) -> int:
    """Make a log of which the state lacks some bills; return how many events it lacks."""
    rebuilt(run, BEFORE)
    url = stage.copy_database(run.server, run.logs.name(BEFORE), BACKLOG)
    bills = run.size(200_000, 35_000) // EVENTS_OF_A_BILL
    first = BEFORE // EVENTS_OF_A_BILL
    fill(url, first, first + bills)
    stage.settle(url)
    return bills * EVENTS_OF_A_BILL


def _drain(url: str) -> tuple[int, float]:
    events = 0
    with closing(connect(url, "projector")) as connection:
        read.keep_to_indexes(connection)  # as the projector does
        head = read.head(connection)
        began = time.monotonic()
        while done := follow_once(connection, head).events:
            events += done
        return events, time.monotonic() - began
