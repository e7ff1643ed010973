"""A month in a file: days, whole bills lost, outages of the receiver, times of reception."""

import json
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from ledger.cli.simulate import simulate as command
from ledger.eventlog.export_lines import ExportLine
from ledger.simulator import EventTruth, Outage, read_truth, read_truth_outages
from ledger.simulator.history import COMPLETED, DAY, History, TestData, bills, events
from ledger.simulator.options import parse_outage
from ledger.simulator.outages import Outages, draw_outages
from ledger.simulator.plan import Faults, plan
from ledger.simulator.truth import read_truth_summary

pytestmark = pytest.mark.slow

START = 1_705_708_800  # 2024-01-20, midnight UTC
URL = "http://127.0.0.1:9/webhooks/flabs"
MONTH = ("--bills=400", "--days=4", "--start=2024-01-20")
FAULTS = ("--drop=0.05", "--late=0.2", "--duplicate=0.1", "--lose-bills=0.05", "--outages=6")


def history(*, days: int | None, seed: int = 7, test_data: TestData = "snapshot") -> History:
    return History(seed=seed, start=START, bills=900, labs=5, test_data=test_data, days=days)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def told(result: Result) -> str:
    return " ".join(result.output.replace("│", " ").split())


def written(folder: Path, *arguments: object) -> tuple[list[bytes], list[EventTruth]]:
    output, truth = folder / "month.jsonl", folder / "truth.jsonl"
    result = invoke(f"--output={output}", f"--truth={truth}", *arguments)
    assert result.exit_code == 0, result.output
    return output.read_bytes().splitlines(), list(read_truth(truth))


def unix(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def test_the_bills_are_spread_over_the_days() -> None:
    begun = Counter((own[0].event_time - START) // DAY for own in bills(history(days=9)))
    assert begun == dict.fromkeys(range(9), 100)
    assert max(event.event_time for event in events(history(days=9))) <= START + 9 * DAY


def test_a_month_shares_no_bill_with_a_day() -> None:
    ids = [{event.bill_id for event in events(history(days=days))} for days in (None, 1, 30)]
    assert not ids[0] & ids[1]
    assert not ids[1] & ids[2]


@pytest.mark.parametrize("test_data", ["snapshot", "delta"])
def test_no_deletion_comes_between_the_last_report_and_the_completion(test_data: TestData) -> None:
    deleted = 0
    for own in (
        own for seed in range(5) for own in bills(history(days=3, seed=seed, test_data=test_data))
    ):
        types = [event.event_type for event in own]
        if types[-1] != "bill.deleted":
            continue
        deleted += 1
        status = json.loads(own[-2].body)["data"]["billData"]["status"]
        assert "bill.completed" in types or status not in COMPLETED
    assert deleted > 50


def test_whole_bills_are_lost_and_the_fates_of_the_others_stay() -> None:
    faults = {"drop": 0.1, "late": 0.1, "duplicate": 0.1}
    some = list(plan(bills(history(days=3)), Faults(**faults, lose_bills=0.1), 7))
    none = {
        each.event.body: each.fate for each in plan(bills(history(days=3)), Faults(**faults), 7)
    }
    gone = {each.event.bill_id for each in some if each.fate.bill_lost is True}
    assert 60 < len(gone) < 120
    for each in some:
        if each.event.bill_id in gone:
            assert each.fate.dropped
            assert each.fate.bill_lost is True
        else:
            assert each.fate == none[each.event.body]


def test_outages_that_overlap_or_touch_are_one() -> None:
    outages = Outages([Outage(50, 60), Outage(10, 20), Outage(20, 30), Outage(15, 18)])
    assert list(outages) == [Outage(10, 30), Outage(50, 60)]
    covered = [second for second in range(70) if outages.cover(second)]
    assert covered == [*range(10, 30), *range(50, 60)]


def test_random_outages_are_long_short_and_flapping() -> None:
    month = history(days=30)
    drawn = [list(draw_outages(month, count)) for count in range(10)]
    for fewer, more in pairwise(drawn):
        assert more[: len(fewer)] == fewer
    kinds = [drawn[count + 1][len(drawn[count]) :] for count in range(9)]
    for long, short, flapping in (kinds[0:3], kinds[3:6], kinds[6:9]):
        assert [each.end - each.begin >= 600 for each in long] == [True]
        assert [each.end - each.begin < 360 for each in short] == [True]
        assert len(flapping) > 3
        assert all(b.begin - a.end <= 150 for a, b in pairwise(flapping))
    assert list(draw_outages(history(days=30, seed=8), 9)) != drawn[9]


def test_an_attempt_in_an_outage_fails_and_four_lose_the_event(tmp_path: Path) -> None:
    lines, truth = written(tmp_path, *MONTH, *FAULTS, "--received")
    outages = Outages(read_truth_outages(tmp_path / "truth.jsonl"))
    states: Counter[str] = Counter()
    for event in truth:
        at = json.loads(bytes(event.payload))["eventTime"]
        states[event.state] += 1
        failed = [each for each in event.deliveries if each.error]
        came = [each for each in event.deliveries if not each.error]
        assert {each.error for each in failed} <= {"receiver away"}
        for each in event.deliveries:
            assert unix(each.sent_at) == at + (each.attempt - 1) * 120
            assert outages.cover(unix(each.sent_at)) == bool(each.error)
        assert event.state == ("dropped" if event.fate.dropped else "delivered" if came else "lost")
        if event.state == "lost":
            assert [each.attempt for each in failed] == list(range(event.fate.attempt, 5))
        elif event.state == "dropped":
            assert not event.deliveries
    assert min(states[state] for state in ("delivered", "dropped", "lost")) > 5
    assert any(event.delivered and event.deliveries[0].error for event in truth)
    assert len(lines) == sum(not each.error for event in truth for each in event.deliveries)
    summary = read_truth_summary(tmp_path / "truth.jsonl")
    assert summary is not None
    assert summary["bills_lost"] == len(
        {
            json.loads(bytes(event.payload))["data"]["billID"]
            for event in truth
            if event.fate.bill_lost is True
        }
    )


def test_the_lines_carry_the_time_of_reception_in_its_order(tmp_path: Path) -> None:

    lines, truth = written(tmp_path, *MONTH, *FAULTS, "--received")
    read = [msgspec.json.decode(line, type=ExportLine) for line in lines]
    assert [line.position for line in read] == list(range(1, len(read) + 1))
    assert {line.source for line in read} == {"webhook"}
    times = [line.received_at for line in read]
    assert times == sorted(times)
    sent = Counter(
        (bytes(event.payload), datetime.fromtimestamp(unix(each.sent_at), UTC))
        for event in truth
        for each in event.deliveries
        if not each.error
    )
    assert sent == Counter(
        (bytes(line.body), line.received_at)
        for line in read
        if not isinstance(line.body, msgspec.UnsetType)
    )


def test_without_received_the_lines_are_the_payloads_alone(tmp_path: Path) -> None:
    with_times, _ = written(tmp_path, *MONTH, *FAULTS, "--received")
    alone, _ = written(tmp_path, *MONTH, *FAULTS)
    assert [json.dumps(json.loads(line)["body"]) for line in with_times] == [
        json.dumps(json.loads(line)) for line in alone
    ]


def test_the_same_month_has_the_same_bytes(tmp_path: Path) -> None:
    first, _ = written(tmp_path, *MONTH, *FAULTS, "--received")
    assert written(tmp_path, *MONTH, *FAULTS, "--received")[0] == first


def test_a_given_outage_loses_what_happened_in_it_but_the_last_six_minutes(tmp_path: Path) -> None:
    outage = "2024-01-21T08:00..2024-01-21T10:00:30Z"
    _, truth = written(tmp_path, "--bills=2000", *MONTH[1:], "--outage", outage)
    begin, end = START + DAY + 8 * 3600, START + DAY + 10 * 3600 + 30
    assert read_truth_outages(tmp_path / "truth.jsonl") == [Outage(begin, end)]
    lost = [begin <= json.loads(bytes(event.payload))["eventTime"] < end - 360 for event in truth]
    assert [event.state == "lost" for event in truth] == lost
    assert sum(lost) > 50


def test_a_day_without_outages_has_no_line_of_them(tmp_path: Path) -> None:
    _, truth = written(tmp_path, "--bills=5", "--start=2024-01-20", "--drop=0.1")
    lines = (tmp_path / "truth.jsonl").read_bytes().splitlines()
    assert len(lines) == len(truth) + 1
    assert read_truth_outages(tmp_path / "truth.jsonl") == []
    assert b"bill" + b"_lost" not in b"".join(lines)
    assert b"bills_lost" not in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--days=0"], "--days takes a whole number from 1, not 0"),
        (["--lose-bills=2"], "--lose-bills takes a probability from 0 to 1, not 2"),
        (["--outages=-1"], "--outages takes a whole number from 0, not -1"),
        (["--outage=2024-01-20"], "--outage takes two times like"),
        (["--outage=2024-01-20..x"], "--outage takes a day like 2024-01-20 or a time"),
        (["--outage=2024-01-21..2024-01-20"], "--outage takes FROM..TO with FROM before TO"),
        (["--days=40000", "--start=2024-01-20"], "--start takes a time such that the day lies"),
    ],
)
def test_a_bad_value_is_wrong_usage(arguments: list[str], says: str, tmp_path: Path) -> None:
    result = invoke(f"--output={tmp_path / 'x'}", *arguments)
    assert result.exit_code == 2
    assert says in told(result)


@pytest.mark.parametrize("option", ["--outages=1", "--outage=2024-01-20..2024-01-21", "--received"])
def test_a_receiver_that_is_sent_to_has_its_own_outages_and_times(option: str) -> None:
    result = invoke(f"--url={URL}", option)
    assert result.exit_code == 2
    assert "goes with output only" in told(result)


def test_an_outage_is_two_times() -> None:
    assert parse_outage("2024-01-20..2024-01-20T01:00:00+01:00") == Outage(START, START)
