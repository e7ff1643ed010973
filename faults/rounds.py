"""One round: damage under load, mend it, check, and measure how long what took."""

import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from random import Random

from msgspec import Struct

from faults.checks import check, wait_until_settled
from faults.fault import Fault
from faults.load import NO_ANSWER, RECORDED, REFUSED, SPOOLED, Attempt, Load
from faults.world import World, rows

FIRST = 30
"""Deliveries before the damage."""

LAST = 10
"""Deliveries after it."""

RECOVERY_SECONDS = 90.0
_PAUSE = timedelta(seconds=1)


class Round(Struct):
    """What was measured in a round; times are in seconds."""

    number: int
    fault: str
    held: float = 0.0
    recorded: int = 0
    spooled: int = 0
    spooled_for: float = 0.0
    refused: int = 0
    refused_for: float = 0.0
    unanswered: int = 0
    unanswered_for: float = 0.0
    recovered: float = 0.0
    """From the mending until a delivery was in the log at once again."""
    drained: float = 0.0
    """From the mending until nothing was on disk, and all was folded."""
    slowest: float = 0.0
    problems: list[str] = []

    def line(self) -> str:
        """Return the round in a line."""
        return (
            f"{self.number:4} {self.fault:27} held {self.held:4.1f} s"
            f" | {self.recorded:4} recorded, {self.spooled:3} spooled in {self.spooled_for:4.1f} s,"
            f" {self.refused:3} refused in {self.refused_for:4.1f} s,"
            f" {self.unanswered:3} unanswered in {self.unanswered_for:4.1f} s"
            f" | recovered {self.recovered:4.1f} s, drained {self.drained:4.1f} s,"
            f" slowest {self.slowest:4.1f} s | {'FAILED' if self.problems else 'ok'}"
        )


def chosen(possible: list[Fault], seed: int, number: int) -> Fault:
    """Return the fault of a round: all come once, in an order of the seed's, then all again."""
    cycle, nth = divmod(number, len(possible))
    order = Random(f"{seed}/order/{cycle}").sample(possible, len(possible))
    return order[nth]


def play(
    world: World,
    fault: Fault,
    number: int,
    seed: int,
    *,
    lasts: tuple[float, float] | None = None,
) -> Round:
    """Play a round; what is wrong is in the answer.

    The damage lasts between so many seconds, or as many as the fault does.
    """
    random = Random(f"{seed}/{number}")  # so that the round can be repeated alone
    played = Round(number, fault.name, problems=[])
    with world.owner() as owner:
        [(head,)] = rows(owner, "SELECT coalesce(max(position), 0) FROM ledger.event_log")
    load = Load(world.server, random, f"{seed}-{number}-{time.time_ns()}", head)
    try:
        with load:
            strike = fault.strike(world, load, random)
            _damage(world, load, strike, random.uniform(*lasts or fault.lasts), played)
        mended = time.monotonic()
        wait_until_settled(world)
        played.drained = played.recovered + time.monotonic() - mended
        played.problems += check(
            world, load, compares_clocks=not fault.moves_clock, refuses=fault.refuses
        )
    except Exception as error:  # noqa: BLE001 -- a round that fails is a result
        played.problems.append(f"{type(error).__name__}: {error}")
    _measure(played, load)
    return played


def _damage(
    world: World, load: Load, strike: AbstractContextManager[None], seconds: float, played: Round
) -> None:
    load.wait_for(FIRST, RECORDED)
    began = time.monotonic()
    with strike:
        time.sleep(seconds)
    played.held = time.monotonic() - began
    mended = datetime.now(UTC)
    world.start_what_is_missing()
    load.wait_for(1, RECORDED, seconds=RECOVERY_SECONDS)
    first = next(each for each in load.all() if each.sent >= mended and each.status == RECORDED)
    played.recovered = (first.answered - mended).total_seconds()
    load.wait_for(LAST, RECORDED)


def _measure(played: Round, load: Load) -> None:
    attempts = load.all()
    played.recorded = sum(each.status == RECORDED for each in attempts)
    played.spooled, played.spooled_for = _span(attempts, SPOOLED)
    played.refused, played.refused_for = _span(attempts, REFUSED)
    played.unanswered, played.unanswered_for = _span(attempts, NO_ANSWER)
    longest = max((each.answered - each.sent for each in attempts), default=timedelta())
    played.slowest = longest.total_seconds()


def _span(attempts: list[Attempt], status: int) -> tuple[int, float]:
    """Return how many were answered so, and for how long in sum; pauses of a second end a time."""
    found = [each for each in attempts if each.status == status]
    total, end = timedelta(), None
    for each in found:
        begin = each.sent if end is None or each.sent - end > _PAUSE else end
        end = max(begin, each.answered)
        total += end - begin
    return len(found), total.total_seconds()
