"""`python -m benchmarks`: Ledger against its ceilings and rivals, in ratios.

Each row is measured in several rounds, and in each round all that it compares in turn, on one
machine and one PostgreSQL with fsync and synchronous_commit on. Absolute figures depend on the
machine and on who else uses it; the ratios within a round mean something.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks import (
    append,
    crash,
    follow,
    growth,
    intake,
    lag,
    machine,
    reading,
    rebuild,
    replay,
    report,
    scale,
    size,
    stage,
    together,
    workers,
    wrk,
)
from benchmarks.logs import EVENTS_OF_A_BILL, OPEN_BILLS, Logs
from benchmarks.row import Row, Run
from benchmarks.stage import MeasureError

RESULTS = Path(__file__).parent / "RESULTS.md"

Benchmark = tuple[tuple[str, ...], Callable[[Run], list[Row]]]

# In this order: each log is made from the last smaller one, and the largest only once.
BENCHMARKS: list[Benchmark] = [
    (("1", "2", "3"), intake.measure),
    (("4",), reading.measure),
    (("7",), append.measure),
    (("8",), follow.measure),
    (("9",), lag.measure),
    (("13",), workers.measure),
    (("14",), together.measure),
    (("crash",), crash.measure),
    (("6",), replay.measure),
    (("5",), rebuild.measure),
    (("11",), scale.measure),
    (("10",), growth.measure),
    (("12",), size.measure),
]
"""By the rows of the table that each measures."""

ROWS = [row for rows, _ in BENCHMARKS for row in rows]


def main() -> None:
    """Run what is asked for; exit with 1 if a row could not be measured."""
    given = _arguments()
    try:
        wrk.check()
    except MeasureError as error:
        sys.exit(str(error))
    with stage.postgres() as server:
        run = Run(
            server=server,
            logs=Logs(server),
            rounds=given.rounds,
            seconds=given.seconds,
            quick=given.quick,
        )
        outcomes = _run_all(run, given)
    sys.exit(any(isinstance(outcome, str) for outcome in outcomes.values()))


def _run_all(run: Run, given: argparse.Namespace) -> dict[str, report.Outcome]:
    began = time.monotonic()
    facts = machine.facts(run.server.dsn("log_0"))
    how = _how(run)
    print("\n".join([*(f"{name}: {said}" for name, said in facts.items()), "", *how, ""]))
    outcomes: dict[str, report.Outcome] = {}
    for numbers, measure in BENCHMARKS:
        if set(numbers).isdisjoint(given.only):
            continue
        try:
            outcomes |= _measured(numbers, measure, run)
        except KeyboardInterrupt:
            given.only = []
            outcomes |= dict.fromkeys(numbers, "interrupted")
        facts["Took"] = f"{(time.monotonic() - began) / 60:.1f} minutes"
        if given.output:
            page = report.markdown(facts, how, dict(sorted(outcomes.items(), key=_place)))
            given.output.write_text(page, encoding="utf-8")
    print(f"Took {facts['Took']}.")
    return outcomes


def _measured(
    numbers: tuple[str, ...], measure: Callable[[Run], list[Row]], run: Run
) -> dict[str, report.Outcome]:
    """Measure and print; a failure is a result too, and the others go on."""
    names = ", ".join(numbers)
    began = time.monotonic()
    print(f"... {names}", file=sys.stderr)
    try:
        rows = measure(run)
        print(f"... {names}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    except Exception as error:  # noqa: BLE001 -- whatever it was, the other rows matter as well
        traceback.print_exc()
        print(f"{names}  FAILED: {error}\n", flush=True)
        return {number: f"{type(error).__name__}: {error}" for number in numbers}
    for row in rows:
        print(report.text(row), flush=True)
    return {row.number: row for row in rows}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller logs, in three minutes")
    parser.add_argument("--rounds", type=int, help="default 5; quick 2")
    parser.add_argument("--seconds", type=int, help="of load in each round; default 5, quick 2")
    parser.add_argument("--only", type=_rows, help=f"rows, such as 1,4,5; of {', '.join(ROWS)}")
    parser.add_argument("--output", type=Path, help=f"default {RESULTS.name} for all rows")
    given = parser.parse_args()
    if not (given.output or given.quick or given.only):
        given.output = RESULTS
    given.only = given.only or ROWS
    given.rounds = given.rounds or (2 if given.quick else 5)
    given.seconds = given.seconds or (2 if given.quick else 5)
    return given


def _rows(words: str) -> list[str]:
    rows = [word.strip() for word in words.split(",")]
    if unknown := [row for row in rows if row not in ROWS]:
        raise argparse.ArgumentTypeError(f"there is no row {', '.join(unknown)}")
    return rows


def _how(run: Run) -> list[str]:
    """Say how it is measured."""
    fewer = "1 in rows 6, 9, 10, 11 and 13" if run.quick else "3 in rows 6, 9, 11 and 13"
    how = [
        (
            f"{run.rounds} rounds ({fewer}). In each, all that a row "
            "compares is measured in turn, in the other order in every other round, and the ratio "
            "is taken within the round."
        ),
        (
            f"Load: wrk, 1 thread, {wrk.CONNECTIONS} connections, {run.seconds} s after "
            f"{wrk.WARM_SECONDS} s that are not measured, distinct events of 350 bytes. "
            "Sender, server and PostgreSQL share the machine."
        ),
        (
            f"Logs are made by Ledger's append, of bills with {EVENTS_OF_A_BILL} events, "
            f"{OPEN_BILLS} bills open at a time, and vacuumed before anything is measured on them."
        ),
    ]
    if run.quick:
        how.append(
            "QUICK: fewer rounds, and logs that are smaller than the table says; each row names "
            "the size that it was measured with. The table's own sizes are those of `make bench`."
        )
    return how


def _place(outcome: tuple[str, report.Outcome]) -> tuple[int, str]:
    number = outcome[0].split()[0]
    return (int(number) if number.isdecimal() else 99, outcome[0])


if __name__ == "__main__":
    main()
