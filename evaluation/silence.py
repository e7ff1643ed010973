"""How often Ledger calls a lab silent that is not, and how soon one that is.

`python -m evaluation.silence [LABS [SEED]]`, with so many labs of each size.

Simulated labs that close at night and on Sundays, and work a half Saturday: with noise, growth and
decline, three holidays each, known for 4 or 13 weeks. Each is judged alone, so that no holiday is
excused by others, for a quarter; then it stops at 10:00 on three working days.
"""

import random
import statistics
import sys
from datetime import timedelta

from tests.support.labs import MONDAY, Counts, Lab, local, simulate, stopped, told

BILLS = (5, 10, 20, 50, 100, 200, 1000, 5000)
LABS = 12
LEARNED = (4, 13)
"""Weeks before the quarter that is judged."""

QUARTER = 13
PATIENCE = timedelta(days=14)


def a_lab(bills: int, seed: int, weeks: int) -> Lab:
    """Return a lab that differs from others."""
    draw = random.Random(f"{bills}/{seed}")
    return Lab(
        bills=bills,
        opens=draw.choice((6, 7, 8, 9)),
        closes=draw.choice((18, 19, 20, 21)),
        saturdays=draw.choice((0, 14, 18)),
        lunch=draw.random() < 0.3,
        noise=draw.choice((0.0, 0.3)),
        growth=draw.choice((-0.01, 0.0, 0.0, 0.02)),
        holidays=tuple(draw.randrange(weeks * 7) for _ in range(3)),
    )


def hours_until_told(counts: Counts, lab: Lab, day: int) -> float:
    """Return after how many hours it is told that a lab stopped at 10:00 on a day."""
    at = local(lab, day, 10)
    found = told(stopped(counts, at), after=at, until=at + PATIENCE)
    return (found[0][0] - at).total_seconds() / 3600 if found else float("inf")


def main(labs: int, seed: int) -> None:
    """Print a line for each size of lab."""
    print(
        "bills a day | labs | alarms in a quarter: mean, most | hours until told: median, most | >2"
    )
    for bills in BILLS:
        alarms, hours = [], []
        for number in range(labs):
            learned = LEARNED[number % 2]
            weeks = learned + QUARTER
            lab = a_lab(bills, seed + number, weeks)
            counts = simulate(lab, seed + number, weeks=weeks)
            begin = MONDAY + timedelta(weeks=learned)
            end = MONDAY + timedelta(weeks=weeks)
            alarms.append(len(told(counts, after=begin, until=end)))
            hours += [
                hours_until_told(counts, lab, learned * 7 + day)
                for day in (1, 17, 45)
                if learned * 7 + day not in lab.holidays
            ]
        late = sum(each > 2 for each in hours)
        print(
            f"{bills:11,} | {labs:4} | {statistics.mean(alarms):24.2f}, {max(alarms)} |"
            f" {statistics.median(hours):23.2f}, {max(hours):.2f}; {late} of {len(hours)} after 2",
            flush=True,
        )


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    main(*given, *[LABS, 1][len(given) :])
