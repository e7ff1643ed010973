"""Processes of `multiprocessing` as forks that have other packages' modules loaded when they start.

A worker of `ledger serve` is a fresh interpreter, which loads modules for a second. In a command of
a test that was forked itself, it is a fork as well: one that has forgotten Ledger's modules, with
all that they know, and has its parent's handlers of signals, log and open files no more.
"""

import atexit
import contextlib
import logging
import multiprocessing.util
import os
import signal
import sys
import threading
import traceback
import types
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

_FORGOTTEN: Final = ("ledger", "prometheus_client", "structlog")
"""Packages that are loaded again: ours, and those with a state of their own."""

_fresh: Final[Any] = vars(multiprocessing.util)["spawnv_passfds"]


def install() -> None:
    """Let this process fork what it would spawn."""
    vars(multiprocessing.util)["spawnv_passfds"] = _spawn


def end(code: object) -> NoReturn:
    """End as the interpreter does, but leave the freeing of memory to the kernel."""
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 -- the interpreter's first step
    atexit._run_exitfuncs()  # noqa: SLF001 -- its second one
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    if code is not None and not isinstance(code, int):
        os.write(2, f"{code}\n".encode())
        code = 1
    os._exit(code or 0)


def _spawn(path: object, arguments: Sequence[str], descriptors: Iterable[int]) -> int:
    program = arguments[-2]
    if "spawn_main" not in program:  # the tracker of resources
        pid: int = _fresh(path, arguments, descriptors)
        return pid
    pid = os.fork()
    if pid:
        return pid
    try:
        _forget(sorted(map(int, descriptors)))
        exec(program, {"__name__": "__main__"})  # noqa: S102 -- what the interpreter would run
    except SystemExit as done:
        end(done.code)
    except BaseException:  # noqa: BLE001 -- the stack below is the parent's
        traceback.print_exc()
    end(1)


def _forget(descriptors: list[int]) -> None:
    """Make this fork what a fresh interpreter would be that was given these open files."""
    atexit._clear()  # noqa: SLF001 -- the parent's
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    begin = 3
    for descriptor in [*descriptors, os.sysconf("SC_OPEN_MAX")]:
        os.closerange(begin, descriptor)
        begin = max(begin, descriptor + 1)
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    for name in [name for name in sys.modules if name.partition(".")[0] in _FORGOTTEN]:
        del sys.modules[name]
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = ["-c", "--multiprocessing-fork"]
