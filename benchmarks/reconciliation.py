"""`python -m benchmarks.reconciliation`: the report's cost with what is missing, not with the log.

Two databases in which the same number of bills has something missing, one of them with fifty times
as many bills; the report of each in turn, each time in a process of its own.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from benchmarks import stage
from ledger import __version__
from ledger.eventlog.import_events import import_events
from ledger.eventlog.import_files import ImportFile
from ledger.eventlog.import_values import Options
from ledger.model.operators import Operator
from ledger.operations.policy import Policy
from ledger.operations.reconciliation.report import Question, reconcile
from ledger.operations.render import write_report
from ledger.postgres.connect import connect
from ledger.projection.rebuild import rebuild
from ledger.settings import Settings

LABS = 8


def main() -> None:
    """Measure, or, as a child, make one report."""
    arguments = argparse.ArgumentParser(prog="benchmarks.reconciliation")
    arguments.add_argument("--bills", type=int, default=1_000_000, help="of the large database")
    arguments.add_argument("--few", type=int, default=20_000, help="bills of the small one")
    arguments.add_argument("--missing", type=int, default=10_000, help="bills that lack an event")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--report-of", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.report_of:
        _report(given.report_of)
        return
    with stage.postgres() as server:
        urls = {}
        for name, bills in (("few", given.few), ("many", given.bills)):
            urls[name] = stage.new_database(server, name)
            _fill(urls[name], bills, given.missing)
        seconds: dict[str, list[float]] = {name: [] for name in urls}
        mebibytes: dict[str, list[float]] = {name: [] for name in urls}
        for _ in range(given.rounds):
            for name, url in urls.items():
                took, peak, overdue = _measured(url)
                if overdue != given.missing:
                    sys.exit(f"{overdue} events are overdue, not {given.missing}")
                seconds[name].append(took)
                mebibytes[name].append(peak)
    print(f"Ledger {__version__}: a report on {given.missing:,} missing events, JSON,")
    print(f"with {given.few:,} bills and with {given.bills:,}, median of {given.rounds}:")
    for what, unit, values in (("time", "s", seconds), ("peak memory", "MiB", mebibytes)):
        few, many = statistics.median(values["few"]), statistics.median(values["many"])
        ratios = sorted(b / a for a, b in zip(values["few"], values["many"], strict=True))
        print(
            f"  {what:12} {few:7.2f} {unit} and {many:7.2f} {unit}, ratio "
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def _fill(url: str, bills: int, missing: int) -> None:
    print(f"making {bills:,} bills ...", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "export.jsonl"
        with path.open("wb") as file:
            for line in _lines(bills, missing):
                file.write(line)
        with closing(connect(url, "bench")) as connection, path.open("rb") as lines:
            import_events(
                connection,
                ImportFile(lines),
                Options(by=Operator("benchmark"), exports=True),
                on_progress=lambda _: None,
            )
    rebuild(url, processes=2, started_at=datetime.now(UTC), on_progress=lambda _a, _b: None)


def _lines(bills: int, missing: int) -> Iterator[bytes]:
    begin = datetime(2024, 1, 1, tzinfo=UTC)
    every = bills // missing
    for number in range(bills):
        at = begin + timedelta(seconds=number)
        # Of these the bill.created was lost, as the completion proves.
        kind = "bill.completed" if number % every == 0 else "bill.created"
        body = {
            "labID": f"lab_{number % LABS}",
            "eventType": kind,
            "eventTime": int(at.timestamp()),
            "data": {"billID": f"bill_{number}", "integratorID": f"booking_{number}"},
        }
        line = {"position": number + 1, "received_at": at, "source": "webhook", "body": body}
        yield msgspec.json.encode(line) + b"\n"


def _report(url: str) -> None:
    with closing(connect(url, "bench")) as connection, Path(os.devnull).open("wb") as nowhere:
        began = time.monotonic()
        question = Question(as_of=datetime.now(UTC))
        policy = Policy.of(Settings())
        with reconcile(connection, policy, question) as (report, missing_events):
            write_report(report, missing_events, "json", nowhere)
        seconds = time.monotonic() - began
        print(json.dumps({"seconds": seconds, "overdue": report.totals["overdue"]}))


def _measured(url: str) -> tuple[float, float, int]:
    read, write = os.pipe()
    command = [sys.executable, "-m", "benchmarks.reconciliation", "--report-of", url]
    child = os.posix_spawn(
        sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)]
    )
    os.close(write)
    with os.fdopen(read) as output:
        said = json.loads(output.read())
    _, status, usage = os.wait4(child, 0)
    if status:
        sys.exit("a report failed")
    return said["seconds"], usage.ru_maxrss / 1024, said["overdue"]


if __name__ == "__main__":
    main()
