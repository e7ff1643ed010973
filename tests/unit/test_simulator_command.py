import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ledger.cli.simulate import simulate as command
from ledger.simulator import (
    Progress,
    SimulationOptionError,
    SimulationOptions,
    read_truth,
    simulate,
)
from ledger.simulator.options import parse_start

pytestmark = pytest.mark.slow

URL = "http://127.0.0.1:9/webhooks/flabs"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def told(result: Result) -> str:
    """Give what was printed, without the frames and breaks that fit it to the terminal."""
    return " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("option", "values", "takes"),
    [
        ("--bills", ["0", "-1"], "takes a whole number from 1, not"),
        ("--labs", ["0"], "takes a whole number from 1, not 0"),
        ("--concurrency", ["0"], "takes a whole number from 1, not 0"),
        ("--drop", ["1.01", "-0.1", "nan"], "takes a probability from 0 to 1, not"),
        ("--late", ["2"], "takes a probability from 0 to 1, not 2"),
        ("--duplicate", ["2"], "takes a probability from 0 to 1, not 2"),
        ("--reorder", ["2"], "takes a probability from 0 to 1, not 2"),
        ("--rate", ["-1", "nan", "inf"], "takes events per second, 0 for as fast as possible"),
        ("--speed", ["0", "-1", "nan", "inf"], "takes a number greater than 0, not"),
        ("--timeout", ["0"], "takes a number greater than 0, not 0"),
        ("--retry-interval", ["0"], "takes a number greater than 0, not 0"),
        ("--start", ["yesterday", "1900-01-01", "2099-12-31T12:00:00Z"], "takes a"),
        ("--token", ["a b", "ä", ""], "takes printable ASCII characters without spaces"),
        ("--url", ["x", "ftp://h/p", "http://", "http://[/", "http://h/\n"], "takes an address"),
    ],
)
def test_a_bad_value_is_wrong_usage_and_the_sentence_names_the_option(
    option: str, values: list[str], takes: str
) -> None:
    for value in values:
        way = [] if option == "--url" else [f"--url={URL}"]
        result = invoke(*way, f"{option}={value}")
        assert result.exit_code == 2, value
        assert f"{option} {takes}" in told(result), value


@pytest.mark.parametrize("arguments", [[], [f"--url={URL}", "--output=x"]])
def test_one_of_url_and_output_must_be_given(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "--url or output: give one of them" in told(result)


def test_a_bad_url_is_not_repeated_because_it_may_hold_a_secret() -> None:
    with pytest.raises(SimulationOptionError) as caught:
        SimulationOptions(url="htp://h/webhooks/flabs/secret-2")
    assert "secret-2" not in str(caught.value)


def test_the_token_is_not_shown_with_the_options() -> None:
    assert "secret-1" not in repr(SimulationOptions(url=URL, token="secret-1"))


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("2024-01-20", 1_705_708_800),
        ("2024-01-20T00:00:00Z", 1_705_708_800),
        ("2024-01-20T01:00:00+01:00", 1_705_708_800),
        ("2024-01-20T00:00", 1_705_708_800),
    ],
)
def test_a_start_is_a_day_or_a_time(text: str, start: int) -> None:
    assert parse_start(text) == start


def written(folder: Path, *arguments: object) -> tuple[list[bytes], Result]:
    output = folder / "day.jsonl"
    result = invoke(f"--output={output}", f"--truth={folder / 'truth.jsonl'}", *arguments)
    return output.read_bytes().splitlines(), result


def test_the_output_holds_what_would_have_arrived(tmp_path: Path) -> None:
    lines, result = written(tmp_path, "--start=2024-01-20", "--drop=0.2", "--duplicate=0.2")
    assert result.exit_code == 0, result.output
    truth = list(read_truth(tmp_path / "truth.jsonl"))
    assert lines == [bytes(line.payload) for line in truth for _ in line.deliveries]
    dropped = {bytes(line.payload) for line in truth if line.fate.dropped}
    assert dropped
    assert not dropped & set(lines)
    assert len(set(lines)) < len(lines)
    assert all(json.loads(line)["eventType"] for line in lines)


def test_the_same_options_write_the_same_bytes(tmp_path: Path) -> None:
    faults = ["--drop=0.1", "--late=0.1", "--duplicate=0.1", "--reorder=0.1"]
    options = ["--start=2024-01-20", "--bills=300", *faults]
    first, _ = written(tmp_path, *options)
    assert written(tmp_path, *options)[0] == first
    assert written(tmp_path, *options, "--seed=2")[0] != first


def test_the_output_can_be_standard_output() -> None:
    result = invoke("--output=-", "--bills=2", "--start=2024-01-20")
    assert result.exit_code == 0
    assert all(json.loads(line) for line in result.stdout.splitlines())
    assert "events happened" in result.stderr


def test_the_day_ends_now_unless_told_otherwise(tmp_path: Path) -> None:
    lines, result = written(tmp_path, "--bills=2000")
    newest = max(json.loads(line)["eventTime"] for line in lines)
    made = (tmp_path / "day.jsonl").stat().st_mtime
    assert result.exit_code == 0
    assert made - 600 < newest <= made


def test_an_output_that_cannot_be_written_fails_with_a_sentence(tmp_path: Path) -> None:
    result = invoke(f"--output={tmp_path / 'no folder' / 'x'}")
    assert result.exit_code == 1
    assert "cannot write" in told(result)
    assert "No space left" in told(invoke("--output=/dev/full"))


def test_the_truth_file_and_the_output_are_two_files(tmp_path: Path) -> None:
    result = invoke(f"--output={tmp_path / 'x'}", f"--truth={tmp_path / 'x'}")
    assert result.exit_code == 2
    assert "--truth takes another file" in told(result)


def test_an_unreachable_receiver_fails_and_says_what_to_look_at() -> None:
    result = invoke(f"--url={URL}", "--bills=1", "--speed=10000", "--timeout=100000")
    assert result.exit_code == 1
    assert "is the receiver running" in told(result)
    assert "deliveries got no answer: cannot connect" in told(result)
    assert "were lost" in told(result)


def test_progress_reaches_the_last_bill(tmp_path: Path) -> None:
    seen: list[Progress] = []
    options: dict[str, Any] = {"bills": 50, "output": tmp_path / "x", "start": 1_705_708_800}
    summary = asyncio.run(simulate(SimulationOptions(**options), on_progress=seen.append))
    assert seen[-1].bills_begun == seen[-1].bills == 50
    assert seen[-1].summary.events == summary.events
    assert seen[-1].under_way == 0
