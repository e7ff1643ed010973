"""Work in processes of its own, so that neither its time nor its memory is anybody else's."""

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_LOOK_SECONDS = 0.05


def apart(
    work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Result:
    """Do the work, which must be importable, in a new process and return its result."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments, **named).result()


def children(process: int) -> list[int]:
    """Return the ids of a process's children."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, task.read_text().split())
    return found


@contextmanager
def peaks(process: int) -> Iterator[dict[int, int]]:
    """Keep the greatest resident memory in bytes of a process and of those that it started.

    By process id. The kernel keeps the peak of each (VmHWM); here it is read every 50 ms, for the
    processes end before the work does.
    """
    found: dict[int, int] = {}
    over = threading.Event()

    def look() -> None:
        while True:
            _note(process, found)
            if over.wait(_LOOK_SECONDS):
                return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def _note(process: int, found: dict[int, int]) -> None:
    with suppress(OSError):  # it may end at any moment
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                found[process] = int(line.split()[1]) * 1024
    for child in children(process):
        _note(child, found)
