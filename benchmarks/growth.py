"""Row 10: intake, reading and following with many events in the log and its state, against few."""

import psycopg

from benchmarks import logs, stage, wrk
from benchmarks.follow import catch_up, drain
from benchmarks.logs import EVENTS_OF_A_BILL, LABS
from benchmarks.rebuild import rebuilt
from benchmarks.row import Figure, Row, Run, Target, ratios

FEW = 50_000
ASPECTS = {"intake": "/s", "reading": "/s", "follow": "events/s"}


def measure(run: Run) -> list[Row]:
    """Measure each aspect with few and with many events in turn.

    A small log would not stay small, so each measurement has a copy of its own.
    """
    many = run.size(5_000_000, 160_000)
    rebuilt(run, FEW)
    grown = rebuilt(run, many)
    rates: dict[str, list[float]] = {f"{a} {s}": [] for a in ASPECTS for s in ("few", "many")}
    for number, name in run.turns(list(rates), long=run.quick):
        aspect, size = name.split()
        seed = f"{name.replace(' ', '')}{number}"
        if size == "many":
            rates[name].append(_measured(run, grown, aspect, many, seed))
        else:
            with run.logs.copied(run.logs.name(FEW)) as url:
                rates[name].append(_measured(run, url, aspect, FEW, seed))
    return [
        Row(
            number=f"10 {aspect}",
            what=f"{aspect} with {many:,} events in the log and its state",
            against=f"the same with {FEW:,}",
            target=Target(at_least=0.9),
            values=ratios(rates[f"{aspect} many"], rates[f"{aspect} few"]),
            figures=[
                Figure(f"with {many:,}", rates[f"{aspect} many"], unit),
                Figure(f"with {FEW:,}", rates[f"{aspect} few"], unit),
            ],
        )
        for aspect, unit in ASPECTS.items()
    ]


def _measured(run: Run, url: str, aspect: str, events: int, seed: str) -> float:
    if aspect == "follow":
        catch_up(url)  # with what the intake's turn has left
        return drain(url, _leave_backlog(url, run.size(50_000, 14_000)))
    seconds = run.size(run.seconds, 1)
    with stage.served(url, stage.LEDGER) as address:
        if aspect == "intake":
            return wrk.send(address, seconds, seed).rate
        return wrk.read(address, seconds, bills=events // EVENTS_OF_A_BILL, labs=LABS).rate


def _leave_backlog(url: str, events: int) -> int:
    """Append about so many events of bills that the log does not have yet; return how many."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT max(position) FROM ledger.event_log").fetchone()
    first = row[0] if row else 0  # more than there are bills
    bills = events // EVENTS_OF_A_BILL
    logs.fill(url, first, first + bills)
    return bills * EVENTS_OF_A_BILL
