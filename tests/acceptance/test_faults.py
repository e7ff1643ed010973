"""The short form of `make faults`: a few faults under load, with a fixed seed."""

import re
from collections.abc import Iterator
from random import Random

import pytest

from faults import database, processes
from faults.checks import check, wait_until_settled
from faults.fault import FAULTS
from faults.load import Load
from faults.rounds import play
from faults.world import World, small_disk

pytestmark = pytest.mark.slow

SEED = 1
MODULES = (database, processes)
SHORT = ("drain-killed", "postgres-immediate-stop", "worker-killed")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with (
        small_disk() as (disk, _),
        World(tmp_path_factory.mktemp("world"), disk) as world,
    ):
        yield world


def test_what_was_acknowledged_is_in_the_log_once_after_each_fault(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(SHORT, 1):
        played = play(world, FAULTS[name], number, SEED, lasts=(0.3, 0.5))
        with capsys.disabled():
            print(f"\nseed {SEED} {played.line()}", end="")  # noqa: T201 -- so that it can be repeated
        assert played.problems == []


def test_the_checks_see_what_is_lost_repeated_and_never_sent(world: World) -> None:
    with Load(world.server, Random(SEED), "checked", _head(world)) as load:
        load.wait_for(20, 200)
    wait_until_settled(world)
    assert check(world, load) == []
    lost, other = load.head + 1, load.head + 2
    with world.owner() as owner:
        owner.execute("ALTER TABLE ledger.event_log DISABLE TRIGGER ALL")
        owner.execute("DELETE FROM ledger.event_log WHERE position = %s", (lost,))
        owner.execute("UPDATE ledger.event_log SET body = 'x' WHERE position = %s", (other,))
        owner.execute(
            "INSERT INTO ledger.repeat_delivery SELECT lab_id, position, now(), 'webhook'"
            " FROM ledger.event_log, generate_series(1, 9) WHERE position = %s",
            (other + 1,),
        )
        owner.execute(
            "INSERT INTO ledger.refusal SELECT gen_random_uuid(), 1, received_at, now(), 1"
            " FROM ledger.event_log WHERE position = %s",
            (other,),
        )
    found = "\n".join(check(world, load))
    for words in (
        " positions go from ",
        "0 times in the log",
        "1 events in the log were not sent, such as b'x'",
        "nothing was refused, and refusals are recorded",
        "ledger verify: ",
    ):
        assert words in found
    assert re.search(r"noted 1\d times", found)  # it may have been sent again


def _head(world: World) -> int:
    with world.owner() as owner:
        row = owner.execute("SELECT coalesce(max(position), 0) FROM ledger.event_log").fetchone()
    assert row
    return int(row[0])
