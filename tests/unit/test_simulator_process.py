"""The command in a process of its own, stopped in the middle."""

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from ledger.simulator import read_truth
from ledger.simulator.truth import read_truth_summary
from tests.support.receiver import Receiver, receiving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return tmp_path / "truth.jsonl"


async def command(*arguments: str) -> asyncio.subprocess.Process:
    """Begin `ledger simulate` in a process of its own."""
    code = "from ledger.cli.simulate import simulate; simulate()"
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *arguments, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip


def stopped(number: int, truth: Path, *arguments: str) -> tuple[int, str, Receiver]:
    """Send a signal to the command once 300 deliveries have come."""

    async def both() -> tuple[int, str, Receiver]:
        async with receiving(lambda _: 200) as receiver:
            process = await command(
                f"--url={receiver.url}", f"--truth={truth}", "--bills=100000", *arguments
            )
            await receiver.wait_for(300)
            process.send_signal(number)
            output, _ = await asyncio.wait_for(process.communicate(), 30)
            assert process.returncode is not None
            return process.returncode, output.decode(), receiver

    return asyncio.run(both())


@pytest.mark.slow
def test_a_killed_run_leaves_a_readable_truth_file(truth: Path) -> None:
    code, _, receiver = stopped(signal.SIGKILL, truth, "--concurrency=8", "--drop=0.1")
    assert code == -signal.SIGKILL
    assert truth.read_bytes().endswith(b"\n")
    lines = list(read_truth(truth))
    assert read_truth_summary(truth) is None
    told = {bytes(line.payload) for line in lines if line.delivered}
    received = set(receiver.bodies)
    assert told <= received
    # Only what was under way has no line.
    assert len(received - told) <= 8
    assert {line.state for line in lines} == {"delivered", "dropped"}


@pytest.mark.slow
def test_an_interrupted_run_tells_all_that_it_did(truth: Path) -> None:
    code, output, receiver = stopped(signal.SIGINT, truth, "--late=0.1")
    assert code == 1
    assert "stopped before the end" in output
    assert "Traceback" not in output
    lines = list(read_truth(truth))
    assert set(receiver.bodies) <= {bytes(line.payload) for line in lines if line.deliveries}
    last = read_truth_summary(truth)
    assert last is not None
    states = Counter[str](line.state for line in lines)
    assert states["unfinished"] > 0
    assert {state: last[state] for state in states} == dict(states)
    assert last["events"] == len(lines)
    assert last["deliveries"] == sum(len(line.deliveries) for line in lines)
