"""Runs `ledger simulate`: signals, progress and the summary at the end."""

import asyncio
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich import progress as bars
from rich.console import Console
from rich.table import Table

from ledger.simulator import (
    Progress,
    SimulationOptionError,
    SimulationOptions,
    SimulationSummary,
    simulate,
)
from ledger.simulator.history import lab_ids
from ledger.simulator.sandbox import Account, Options, Sandbox

_LAST_PORT = 65_535

PLAIN_INTERVAL = 5.0
"""Seconds between two lines of progress where there is no terminal."""


async def run(options: SimulationOptions, console: Console) -> SimulationSummary:
    """Simulate until the end or until a signal, and show the progress."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Outside the main thread, and on Windows, there are no handlers; a run works without.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop.set)
    with _progress(options.bills, console) as on_progress:
        return await simulate(options, stop=stop, on_progress=on_progress)


def make_sandbox(where: str, labs: int, account: Options) -> Sandbox:
    """Return a sandbox at `host:port` with the simulation's labs.

    Raises `SimulationOptionError` or `SimulationError`.
    """
    host, _, port = where.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > _LAST_PORT:
        raise SimulationOptionError("serve", f"takes an address like 127.0.0.1:9000, not {where}")
    return Sandbox(Account(lab_ids(labs), account), host=host, port=int(port))


def run_sandbox(sandbox: Sandbox, options: SimulationOptions, console: Console) -> None:
    """Serve until a signal; simulate as soon as somebody has subscribed."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with sandbox:
        console.print(
            f"The sandbox of Flabs is {sandbox.url}; it waits for POST /client/events/subscribe.",
            soft_wrap=True,
        )
        if sandbox.wait_for_subscription(stop):
            summary = asyncio.run(run(options, console))
            print_summary(summary, console)
            if summary.failure is not None:  # a signal
                return
            # The simulation had handlers of its own, and they are gone.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stop.set())
            console.print("The sandbox goes on until it is stopped.")
        stop.wait()


@contextmanager
def _progress(bills: int, console: Console) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows the progress: as a bar on a terminal, as lines elsewhere."""
    if not console.is_terminal:
        yield _Plain()
        return
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

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + PLAIN_INTERVAL
            share = 100 * progress.bills_begun // progress.bills
            sys.stderr.write(f"{share} % of the bills begun, {progress.in_words()}\n")


def print_summary(summary: SimulationSummary, console: Console) -> None:
    """Print the counts of a simulation, and the options that repeat it."""
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
