"""`python -m evaluation.recall`: how much of what was lost Ledger finds, and how much it makes up.

Simulates months of several labs with known truth, in both readings of `testData`, lives through
them day by day with a support that answers some of what it is asked, and prints precision and
recall. Exits with 1 if either is below 1 for what is certain, or if anything was asked for that was
not lost, or asked for twice.
"""

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from benchmarks import stage
from evaluation.recall_month import Setup, run_month
from evaluation.recall_score import Found, Score
from ledger import __version__
from ledger.model.bill import FOLD_VERSION
from ledger.simulator.history import TestData

QUICK_BILLS, QUICK_DAYS = 3_000, 10
READINGS: tuple[TestData, ...] = ("snapshot", "delta")


def main() -> None:
    """Run the month in each reading, print what was measured, exit."""
    given = _arguments()
    right = True
    with stage.postgres() as server, tempfile.TemporaryDirectory(prefix="ledger-recall-") as folder:
        for reading in READINGS:
            url = stage.new_database(server, f"recall_{reading}")
            place = Path(folder) / reading
            place.mkdir()
            setup = Setup(
                bills=given.bills,
                days=given.days,
                labs=given.labs,
                seed=given.seed,
                test_data=reading,
            )
            if reading == READINGS[0]:
                _say_where(url)
            began = time.monotonic()
            score = run_month(url, setup, place)
            _tell(setup, score, time.monotonic() - began)
            right = right and score.certain_is_right
    print("\ncertain: precision and recall are 1" if right else "\ncertain: NOT as it must be")
    sys.exit(0 if right else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="evaluation.recall", description=__doc__)
    parser.add_argument("--bills", type=int, help="of each reading (default 20000)")
    parser.add_argument("--days", type=int, help="that they are spread over (default 30)")
    parser.add_argument("--labs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_BILLS} bills in {QUICK_DAYS} days"
    )
    given = parser.parse_args()
    given.bills = given.bills or (QUICK_BILLS if given.quick else 20_000)
    given.days = given.days or (QUICK_DAYS if given.quick else 30)
    return given


def _say_where(url: str) -> None:
    with psycopg.connect(url) as connection:
        version = connection.info.parameter_status("server_version")
    print(
        f"Ledger {__version__}, fold {FOLD_VERSION}, PostgreSQL {version}, "
        f"Python {platform.python_version()}"
    )


def _tell(setup: Setup, score: Score, seconds: float) -> None:
    counts = score.counts
    print(f"\n{setup.test_data}: {setup.command()}")
    print(
        f"  {counts['events']:,} events, {counts['looks']} looks, {counts['requests']} requests "
        f"with {counts['lines']:,} lines, {seconds:.0f} s"
    )
    print(f"  {'':56}{'right':>11}{'listed':>11}{'there':>11}  precision  recall")
    for what, found in _founds(score):
        print(
            f"  {what:56}{found.right:11,}{found.listed:11,}{found.there:11,}"
            f"{found.precision:11.4f}{found.recall:8.4f}"
        )
    print("  must be 0:")
    for what, count in _faults(score):
        print(f"  {count:9,}  {what}")
    for what, examples in score.examples.items():
        for example in examples:
            print(f"             {what}: {example}")
    print("  the lost events, each by the best that tells of it:")
    for what, count in score.fates.most_common():
        print(f"  {count:9,}  {what}")
    print("  and else:")
    for what in sorted(counts.keys() - {"events", "looks", "requests", "lines"}):
        print(f"  {counts[what]:9,}  {what}")


def _founds(score: Score) -> Iterator[tuple[str, Found]]:
    yield "certain, at all looks: item, due time, proof, request", score.certain_by_rules
    yield "certain, asked for: overdue and not yet asked for", score.asked_by_rules
    yield "certain, in truth: sent by the lab and lost", score.certain_in_truth
    yield "possible, at all looks: as the rules say", score.possible_by_rules
    yield "possible, in truth: sent by the lab and lost", score.possible_in_truth
    yield "loss windows, at all looks: seconds of labs", score.windows
    yield "unseen bills, at all looks", score.unseen


def _faults(score: Score) -> Iterator[tuple[str, int]]:
    usual = [
        f"{certainty}: asked for{how}"
        for certainty in ("certain", "possible")
        for how in (" before it was due", ", and came by itself", ", and never sent", " twice")
    ]
    usual += ["lost to an outage, and in no window", "seconds of windows asked for twice"]
    for what in [*usual, *(other for other in score.faults if other not in usual)]:
        yield what, score.faults[what]


if __name__ == "__main__":
    main()
