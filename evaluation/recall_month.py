"""A simulated month as Ledger lives through it, day by day, judged at each look."""

import asyncio
import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psycopg

from evaluation.recall_check import Checker
from evaluation.recall_score import Score
from evaluation.recall_support import Arrival, Support, export_line
from evaluation.recall_truth import Sent, Truth
from ledger.eventlog.export_lines import ExportLine
from ledger.eventlog.import_files import ImportFile
from ledger.eventlog.import_values import Options
from ledger.model.event import RANK
from ledger.model.missing_events import retry_budget
from ledger.model.operators import Operator
from ledger.operations.expected_bills import Expectation, expect
from ledger.operations.policy import Policy
from ledger.operations.reconciliation.report import Question, reconcile
from ledger.operations.support_requests.imports import import_file
from ledger.operations.support_requests.make import make_request
from ledger.operations.support_requests.queries import read_request
from ledger.postgres.connect import connect
from ledger.simulator import SimulationOptions, simulate
from ledger.simulator.history import TestData

START = 1_704_067_200  # 2024-01-01, midnight UTC
MORNING = 6 * 3_600
EVENING = 18 * 3_600 + 417
AFTER = timedelta(days=2)
"""How long Ledger is looked at after the last event."""

POLICY = Policy(
    events=tuple(RANK),
    retry_interval=timedelta(seconds=120),
    retry_count=3,
    budget=retry_budget(interval=120, count=3, timeout=10),
    ask_again_after=timedelta(days=7),
)
POSSIBLE_DAY = 7
"""Every seventh request asks for what is possible, too."""

PATIENCE = 120.0
WHO = "recall"


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What month it is; equal values make the same month."""

    bills: int
    days: int
    labs: int
    seed: int
    test_data: TestData
    drop: float = 0.02
    late: float = 0.08
    duplicate: float = 0.05
    lose_bills: float = 0.01

    @property
    def outages(self) -> int:
        """Two in five days, and one of each kind at the least."""
        return max(3, self.days * 2 // 5)

    def options(self, folder: Path) -> SimulationOptions:
        """Say it to the simulator."""
        return SimulationOptions(
            bills=self.bills,
            days=self.days,
            labs=self.labs,
            seed=self.seed,
            start=START,
            test_data=self.test_data,
            drop=self.drop,
            late=self.late,
            duplicate=self.duplicate,
            lose_bills=self.lose_bills,
            outages=self.outages,
            output=folder / "month.jsonl",
            received=True,
            truth=folder / "truth.jsonl",
        )

    def command(self) -> str:
        """Say it to a shell."""
        return (
            f"ledger simulate --bills {self.bills} --days {self.days} --labs {self.labs}"
            f" --seed {self.seed} --{self.test_data} --start 2024-01-01 --drop {self.drop}"
            f" --late {self.late} --duplicate {self.duplicate} --lose-bills {self.lose_bills}"
            f" --outages {self.outages} --received --output month.jsonl --truth truth.jsonl"
        )


def run_month(url: str, setup: Setup, folder: Path) -> Score:
    """Simulate a month in a folder, live through it on a migrated, empty database, and judge."""
    options = setup.options(folder)
    asyncio.run(simulate(options))
    truth = Truth.read(folder / "truth.jsonl")
    end = datetime.fromtimestamp(options.history().end, UTC)
    with closing(connect(url, "recall")) as connection:
        _write_liveness(url, truth, end + AFTER)
        month = _Month(url, connection, setup, truth, list(_arrivals(folder, truth)))
        month.expect()
        for day in range(1, setup.days + AFTER.days + 1):
            midnight = datetime.fromtimestamp(START, UTC) + timedelta(days=day)
            month.look(midnight + timedelta(seconds=MORNING), ask=day)
            month.look(midnight + timedelta(seconds=EVENING))
        return month.end()


class _Month:
    def __init__(
        self,
        url: str,
        connection: psycopg.Connection,
        setup: Setup,
        truth: Truth,
        arrivals: list[Arrival],
    ) -> None:
        self._url = url
        self._connection = connection
        self._setup = setup
        self._arrivals = arrivals
        self._support = Support(truth, setup.seed)
        self._checker = Checker(truth, POLICY.ask_again_after, setup.seed)
        self._requests = 0
        self._done = 0

    def expect(self) -> None:
        """Let the integrators tell of most of their bookings."""
        expected = (
            Expectation(integrator_id, by, lab)
            for integrator_id, by, lab in self._checker.expectations
        )
        expect(self._url, expected, by=Operator(WHO), patience=PATIENCE)

    def look(self, now: datetime, *, ask: int = 0) -> None:
        """Take in what has come by a time, compare what is listed then; on day `ask`, ask."""
        self._take_in(now)
        question = Question(as_of=now)
        with reconcile(self._connection, POLICY, question) as (report, missing):
            self._checker.look(now, report, list(missing))
        if not ask:
            return
        # One day for all labs, the next lab by lab.
        labs = [None] if ask % 2 else [f"lab_{1 + lab:04}" for lab in range(self._setup.labs)]
        for lab_id in labs:
            possible = ask % POSSIBLE_DAY == 0
            made = make_request(
                self._url,
                POLICY,
                lab_id=lab_id,
                include_possible=possible,
                note=None,
                by=Operator(WHO),
                patience=PATIENCE,
                now=now,
            )
            request = made and made[0]
            self._checker.asked(now, request, lab_id=lab_id, possible=possible)
            if request:
                self._requests += 1
                self._support.ask(request.lines, request.loss_windows, now)

    def end(self) -> Score:
        """Compare what there is in the end."""
        requests = [
            read_request(self._connection, number) for number in range(1, self._requests + 1)
        ]
        return self._checker.end(requests)

    def _take_in(self, now: datetime) -> None:
        arrived = list(self._support.answers_until(now))
        while self._done < len(self._arrivals) and self._arrivals[self._done][0] <= now:
            arrived.append(self._arrivals[self._done])
            self._done += 1
        arrived.sort(key=lambda arrival: (arrival[0], arrival[3], arrival[1]))
        self._checker.received(arrived)
        import_file(
            self._url,
            self._connection,
            ImportFile(io.BytesIO(b"".join(map(export_line, arrived)))),
            Options(by=Operator("benchmark"), exports=True),
            patience=PATIENCE,
            on_progress=lambda _: None,
        )


def _arrivals(folder: Path, truth: Truth) -> Iterator[Arrival]:
    """Yield what the output of the simulation says was received."""
    by_body: dict[bytes, Sent] = {event.body: event for event in truth.events()}
    decoder = msgspec.json.Decoder(ExportLine)
    with (folder / "month.jsonl").open("rb") as file:
        for number, text in enumerate(file):
            line = decoder.decode(text)
            assert isinstance(line.body, msgspec.Raw)  # noqa: S101 -- the simulator's own form
            yield line.received_at, number, by_body[bytes(line.body)], False


def _write_liveness(url: str, truth: Truth, end: datetime) -> None:
    """Write what a receiver that was away in the outages would have: when it was alive."""
    begin = datetime.fromtimestamp(START, UTC) - timedelta(hours=1)
    with psycopg.connect(url, autocommit=True) as connection:
        for outage in truth.outages:
            _alive(connection, begin, datetime.fromtimestamp(outage.begin, UTC))
            begin = datetime.fromtimestamp(outage.end, UTC)
        _alive(connection, begin, max(begin, end + timedelta(days=1)))


def _alive(connection: psycopg.Connection, begin: datetime, end: datetime) -> None:
    connection.execute(
        "INSERT INTO ledger.liveness (instance, alive_from, alive_until)"
        " VALUES (gen_random_uuid(), %s, %s)",
        (begin, end),
    )
