"""`ledger simulate`: a Flabs of our own, for the demo, tests and load."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

if TYPE_CHECKING:
    from rich.console import Console

    from ledger.flabs import Progress, SimulationOptions, SimulationSummary

PLAIN_INTERVAL = 5.0
"""Seconds between two lines of progress where there is no terminal."""

EPILOG = """\
The truth file is JSON Lines, one line for each event: number, state (delivered, dropped, lost,
unfinished), delivered, outcome (what the receiver answered), fate (what was decided beforehand),
deliveries (each HTTP attempt: attempt, repeat, sent_at, seconds, status, error, outcome, position)
and payload (the body, byte for byte). Its last line is {"summary": ...}; without it, the
simulation was killed, and events then under way have no line. An event that is not delivered may
have reached the receiver all the same if an attempt ended with an error other than
"cannot connect".

Deliveries under way at the same time may overtake each other; --concurrency 1 keeps their order.

Exit codes: 0 done, 1 stopped early or nothing was delivered, 2 wrong usage.
"""


@click.command("simulate", epilog=EPILOG)
@click.option(
    "--bills",
    type=int,
    default=100,
    show_default=True,
    metavar="N",
    help="Bills to make, about 5 events each; at most 5,000 a day, more take more days.",
)
@click.option(
    "--labs",
    type=int,
    default=3,
    show_default=True,
    metavar="N",
    help="Labs that the bills are spread over.",
)
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    metavar="S",
    help="The same seed, start, bills and labs make the same events, byte for byte.",
)
@click.option(
    "--start",
    "--day",
    metavar="TIME",
    help="When the simulated day begins: 2024-01-20 (midnight, UTC) or "
    "2024-01-20T07:00:00Z. [default: so that it ends now]",
)
@click.option(
    "--snapshot/--delta",
    default=True,
    show_default=True,
    help="What a report.completed lists: all tests of the bill, or its own alone.",
)
@click.option(
    "--drop",
    type=float,
    default=0.0,
    metavar="P",
    help="Probability that all four attempts of an event are lost on the way.",
)
@click.option(
    "--late",
    type=float,
    default=0.0,
    metavar="P",
    help="Probability that an event arrives only with its 2nd, 3rd or 4th attempt.",
)
@click.option(
    "--duplicate",
    type=float,
    default=0.0,
    metavar="P",
    help="Probability that an event is sent again although it was acknowledged.",
)
@click.option(
    "--reorder",
    type=float,
    default=0.0,
    metavar="P",
    help="Probability that an event is sent after later events of its bill.",
)
@click.option(
    "--url", metavar="URL", help="Where to send, such as http://127.0.0.1:8000/webhooks/flabs."
)
@click.option(
    "--token", metavar="TOKEN", help="A webhook token of the receiver. [default: send none]"
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the payloads as JSON Lines instead of sending them, for `ledger import`; "
    "- is standard output.",
)
@click.option(
    "--truth",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write what was done with each event, see below. An old file is overwritten.",
)
@click.option(
    "--rate",
    type=float,
    default=0.0,
    metavar="R",
    help="Deliveries begun per second, retries and repeats not counted; "
    "0 is as fast as possible. [default: 0]",
)
@click.option(
    "--concurrency",
    type=int,
    default=16,
    show_default=True,
    metavar="N",
    help="Deliveries under way at a time.",
)
@click.option(
    "--speed",
    type=float,
    default=1.0,
    show_default=True,
    metavar="X",
    help="Makes the sender's clock X times as fast: divides both times below.",
)
@click.option(
    "--retry-interval",
    type=float,
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Between a failed attempt and the next one.",
)
@click.option(
    "--timeout",
    type=float,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="For one attempt.",
)
def simulate(*, start: str | None, snapshot: bool, **given: Any) -> None:  # noqa: ANN401 the options as click hands them over; SimulationOptions checks them
    """Send a simulated lab day to a receiver, as Flabs would, faults included.

    Any 2xx within the time-out is success; else there are at most three retries, and then the
    event is lost. Give --url, or --output to write a file.

    \b
    ledger simulate --url http://127.0.0.1:8000/webhooks/flabs --token T --drop 0.02 --speed 60
    ledger simulate --bills 1000 --output day.jsonl --truth truth.jsonl
    """  # noqa: D301 \b tells click not to rewrap
    from rich.console import Console

    from ledger.flabs import SimulationError, SimulationOptionError, SimulationOptions
    from ledger.flabs.options import parse_start

    to_standard_output = given["output"] == Path("-")
    try:
        options = SimulationOptions(
            start=None if start is None else parse_start(start),
            test_data="snapshot" if snapshot else "delta",
            **given,
        )
        summary = asyncio.run(_run(options, Console(stderr=True)))
    except SimulationOptionError as error:
        name = error.option.replace("_", "-")
        raise click.UsageError(f"--{name} {error.takes}") from None
    except SimulationError as error:
        raise click.ClickException(str(error)) from None
    _print_summary(summary, Console(stderr=to_standard_output, highlight=False))
    if summary.failure is not None:
        raise click.ClickException(summary.failure)


async def _run(options: "SimulationOptions", console: "Console") -> "SimulationSummary":
    from ledger.flabs import simulate as run

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Outside the main thread, and on Windows, there are no handlers; a run still works.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop.set)
    with _progress(options.bills, console) as on_progress:
        return await run(options, stop=stop, on_progress=on_progress)


@contextmanager
def _progress(bills: int, console: "Console") -> Iterator[Callable[["Progress"], None]]:
    """Give what shows the progress: a bar on a terminal, a line now and then otherwise."""
    if not console.is_terminal:
        yield _Plain()
        return
    from rich import progress as bars

    with bars.Progress(
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.description}"),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=bills)
        yield lambda progress: bar.update(
            task, completed=progress.bills_begun, description=progress.in_words()
        )


class _Plain:
    def __init__(self) -> None:
        self._due = time.monotonic() + PLAIN_INTERVAL

    def __call__(self, progress: "Progress") -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + PLAIN_INTERVAL
            share = 100 * progress.bills_begun // progress.bills
            sys.stderr.write(f"{share} % of the bills begun, {progress.in_words()}\n")


def _print_summary(summary: "SimulationSummary", console: "Console") -> None:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right")
    table.add_column()
    for count, meaning in summary.in_words():
        table.add_row(f"{count:,}", meaning)
    console.print(table)
    start = datetime.fromtimestamp(summary.start, UTC).isoformat().removesuffix("+00:00")
    console.print(
        f"Took {summary.seconds:.1f} s. The same events again, all else equal: "
        f"--seed {summary.seed} --start {start}Z",
        soft_wrap=True,
    )
