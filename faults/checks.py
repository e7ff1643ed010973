"""What must hold after each round: nothing acknowledged is lost, and nothing is invented."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from faults.load import NO_ANSWER, REFUSED, Attempt, Load
from faults.world import WORKERS, World, rows
from ledger.spool.folder import set_aside_in, waiting_in, worker_folders
from tests.support.server import wait_until

SETTLED_SECONDS = 60.0
RECORDED_SECONDS = 15.0
"""Within which an outage is recorded after it ended."""


def wait_until_settled(world: World) -> None:
    """Wait until nothing is on disk, and all that is in the log is folded."""
    wait_until(
        lambda: not waiting_in(world.spool).bytes, "the spool is empty", seconds=SETTLED_SECONDS
    )
    wait_until(
        lambda: len(worker_folders(world.spool)) <= WORKERS,
        "the folders of processes that are gone are removed",
        seconds=SETTLED_SECONDS,
    )
    wait_until(lambda: not world.spooled(), "no record is on disk", seconds=SETTLED_SECONDS)

    def is_folded() -> bool:
        with world.owner() as owner:
            [(head,)] = rows(owner, "SELECT coalesce(max(position), 0) FROM ledger.event_log")
            [(position,)] = rows(owner, "SELECT position FROM state.checkpoint")
        return bool(position >= head)

    wait_until(is_folded, "all events are folded", seconds=SETTLED_SECONDS)


def check(
    world: World, load: Load, *, compares_clocks: bool = True, refuses: bool = False
) -> list[str]:
    """Return what is wrong, in sentences.

    `compares_clocks`: whether the server has the senders' clock. `refuses`: whether there was a
    reason to refuse deliveries.
    """
    problems = [*_log(world, load), *_repeats(world, load), *_spool(world)]
    if (refused := load.with_status(REFUSED)) and not refuses:
        problems.append(f"{len(refused)} deliveries were refused that could be stored")
    if compares_clocks:
        problems += _refusals(world, load)
    done = world.server.run("verify", "--processes", "1", timeout=300)
    if done.returncode:
        problems.append(f"ledger verify: {(done.stdout + done.stderr).decode()}")
    return problems


def _log(world: World, load: Load) -> Iterator[str]:
    """Each acknowledged body is in the log once, at the position that was told."""
    with world.owner() as owner:
        [(number, first, last)] = rows(
            owner, "SELECT count(*), min(position), max(position) FROM ledger.event_log"
        )
        found = rows(
            owner,
            "SELECT body, position FROM ledger.logged_event WHERE position > %s",
            load.head,
        )
    if number and (first, last) != (1, number):
        yield f"{number} positions go from {first} to {last}"
    times = Counter(body for body, _ in found)
    positions = dict(found)
    for body, attempts in load.attempts.items():
        told = [each for each in attempts if each.acknowledged]
        if told and times[body] != 1:
            yield f"acknowledged {told}, and {times[body]} times in the log: {body[:200]!r}"
        for each in told:
            if each.position is not None and positions.get(body) != each.position:
                yield f"told position {each.position}, and is at {positions.get(body)}"
    if unsent := set(times) - load.attempts.keys():
        yield f"{len(unsent)} events in the log were not sent, such as {min(unsent)[:200]!r}"


def _repeats(world: World, load: Load) -> Iterator[str]:
    """Each delivery is noted once at most, and each acknowledged one is noted."""
    with world.owner() as owner:
        found = rows(
            owner,
            "SELECT e.body, count(*) FROM ledger.repeat_delivery r"
            " JOIN ledger.logged_event e USING (position) WHERE e.position > %s GROUP BY e.body",
            load.head,
        )
    repeats = dict(found)
    for body, attempts in load.attempts.items():
        noted = repeats.get(body, 0) + 1
        acknowledged = sum(each.acknowledged for each in attempts)
        if noted > len(attempts):
            yield f"sent {len(attempts)} times, noted {noted} times: {attempts}"
        if noted < acknowledged:
            yield f"acknowledged {acknowledged} times, noted {noted} times: {attempts}"


def _spool(world: World) -> Iterator[str]:
    if number := world.spooled():
        yield f"{number} deliveries are left on disk"
    if aside := set_aside_in(world.spool):
        torn = list((world.spool / "set-aside").iterdir())
        whole = [path for path in torn if path.suffix != ".bin"]
        if whole:
            yield f"{len(whole)} of {aside} files that were set aside hold whole deliveries"


def _refusals(world: World, load: Load) -> Iterator[str]:
    """Each refusal lies in an outage that is known, and without one none is recorded."""
    refused = load.with_status(REFUSED)
    try:
        wait_until(
            lambda: not _unknown(world, refused), "refusals are known", seconds=RECORDED_SECONDS
        )
    except AssertionError:
        unknown = _unknown(world, refused)
        yield f"{len(unknown)} of {len(refused)} refusals lie in no known outage: {unknown[:3]}"
    if not refused and not load.with_status(NO_ANSWER):
        first, last = load.all()[0].sent, load.all()[-1].answered
        with world.owner() as owner:
            recorded = rows(
                owner,
                "SELECT * FROM ledger.refusal WHERE refused_from < %s AND refused_until > %s",
                last,
                first,
            )
        if recorded:
            yield f"nothing was refused, and refusals are recorded: {recorded}"


def _unknown(world: World, refused: list[Attempt]) -> list[Attempt]:
    with world.owner() as owner:
        alive = rows(owner, "SELECT alive_from, alive_until FROM ledger.liveness ORDER BY 1")
        refusals = rows(owner, "SELECT refused_from, refused_until FROM ledger.refusal")
    return [
        each
        for each in refused
        if not any(begin <= each.answered and each.sent <= end for begin, end in refusals)
        and _covered(each.sent, each.answered, alive)
    ]


def _covered(begin: datetime, end: datetime, spans: list[tuple[datetime, datetime]]) -> bool:
    """Return whether spans, in order of their beginnings, cover a time without a gap."""
    for first, last in spans:
        if first > begin:
            break
        begin = max(begin, last)
    return begin >= end
