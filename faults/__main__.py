"""`python -m faults`: does damage under load, a fault a round, and checks what was promised.

The seed decides which fault comes in which round, and its details. Exits with 1 if anything was
wrong; then it prints the command that repeats the round.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from random import SystemRandom

from faults import clock, containers, database, processes, replica
from faults.fault import FAULTS, Fault
from faults.rounds import Round, chosen, play
from faults.world import World, small_disk

MODULES = (clock, containers, database, processes, replica)
"""Which fill the list of faults when they are imported."""

WORLD_ROUNDS = 25
"""After which PostgreSQL and the server begin anew, so that no log grows for ever."""


SHOWN = 5
"""Problems of a round that are printed."""


def main() -> None:
    """Play the rounds, print what was measured, exit."""
    os.environ.setdefault("LEDGER_TEST_FORK", "no")  # what is damaged is what runs in production
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # end what was started
    seed = SystemRandom().randrange(10**6) if given.seed is None else given.seed
    print(f"seed {seed}")
    wrong = run(seed, given.rounds, first=given.first, names=given.only)
    sys.exit(1 if wrong else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, help="default: any, which is printed")
    parser.add_argument("--first", type=int, default=1, help="number of the first round")
    parser.add_argument("--only", nargs="+", choices=sorted(FAULTS), help="faults to choose among")
    return parser.parse_args()


def run(seed: int, rounds: int, *, first: int = 1, names: list[str] | None = None) -> list[Round]:
    """Play so many rounds from a number on; return those in which something was wrong."""
    numbers = list(range(first, first + rounds))
    played: list[Round] = []
    said: set[str] = set()
    while numbers:
        played += _in_one_world(seed, numbers[:WORLD_ROUNDS], names, said)
        numbers = numbers[WORLD_ROUNDS:]
    _print_table(played)
    return [each for each in played if each.problems]


def _in_one_world(
    seed: int, numbers: list[int], names: list[str] | None, said: set[str]
) -> list[Round]:
    played = []
    folder = Path(tempfile.mkdtemp(prefix="ledger-faults-"))
    with small_disk() as (disk, reason), ExitStack() as stack:
        if reason and not said:
            print(f"PostgreSQL has no file system of its own: {reason}")
        worlds = _Worlds(stack, folder, disk)
        possible = _possible(disk, names, said)
        for number in numbers:
            fault = chosen(possible, seed, number)
            played.append(play(worlds.of(fault), fault, number, seed))
            print(played[-1].line(), flush=True)
            if played[-1].problems:
                break
    if played[-1].problems:
        _print_problems(played[-1], seed, names, folder)
        rest = numbers[len(played) :]
        return played + (_in_one_world(seed, rest, names, said) if rest else [])
    shutil.rmtree(folder)
    return played


class _Worlds:
    """One with PostgreSQL in a container and one without, each made when it is needed."""

    def __init__(self, stack: ExitStack, folder: Path, disk: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._disk = disk
        self._made: dict[bool, World] = {}

    def of(self, fault: Fault) -> World:
        """Return the one in which a fault is possible."""
        if fault.contained not in self._made:
            folder = self._folder / ("contained" if fault.contained else "plain")
            folder.mkdir()
            world = World(folder, None if fault.contained else self._disk)
            self._made[fault.contained] = self._stack.enter_context(world)
        return self._made[fault.contained]


def _possible(disk: Path, names: list[str] | None, said: set[str]) -> list[Fault]:
    possible = []
    for name, fault in sorted(FAULTS.items()):
        if names and name not in names:
            continue
        if (reason := fault.reason(disk)) is None:
            possible.append(fault)
        elif name not in said:
            print(f"did not run: {name}: {reason}")
            said.add(name)
    if not possible:
        sys.exit("no fault can be played here")
    return possible


def _print_problems(played: Round, seed: int, names: list[str] | None, folder: Path) -> None:
    for problem in played.problems[:SHOWN]:
        print(f"     {problem}")
    if (more := len(played.problems) - SHOWN) > 0:
        print(f"     and {more} more")
    only = f" --only {' '.join(names)}" if names else ""
    print(f"     again: python -m faults --seed {seed} --first {played.number} --rounds 1{only}")
    print(f"     what the processes said: {folder}", flush=True)


def _print_table(played: list[Round]) -> None:
    found: dict[str, list[Round]] = defaultdict(list)
    for each in played:
        found[each.fault].append(each)
    print(
        "\nSeconds, the longest of all rounds of a fault:\n"
        f"{'fault':27} {'rounds':>6} {'failed':>6} {'refused':>8} {'spooled':>8}"
        f" {'unanswered':>10} {'recovered':>9} {'drained':>8} {'slowest':>8}"
    )
    for name, rounds in sorted(found.items()):
        print(
            f"{name:27} {len(rounds):6} {sum(bool(each.problems) for each in rounds):6}"
            f" {max(each.refused_for for each in rounds):8.1f}"
            f" {max(each.spooled_for for each in rounds):8.1f}"
            f" {max(each.unanswered_for for each in rounds):10.1f}"
            f" {max(each.recovered for each in rounds):9.1f}"
            f" {max(each.drained for each in rounds):8.1f}"
            f" {max(each.slowest for each in rounds):8.1f}"
        )


if __name__ == "__main__":
    main()
