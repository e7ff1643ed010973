"""How much memory processes take at their peak."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.support.server import ROOT, environment

MEGABYTE = 1024 * 1024

_RUN = """
import sys
from ledger.cli import main
sys.argv = ["ledger", *sys.argv[1:]]
try:
    main()
finally:
    print("peak", open("/proc/self/status").read(), file=sys.stderr)
"""


def peak_of_command(*arguments: str, settings: Mapping[str, str]) -> int:
    """Run a command of Ledger, which must succeed, and return the bytes of its process's peak."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *arguments],
        env=environment(settings),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return _in_bytes(done.stderr.rsplit("peak ", 1)[1])


def peak_of_process(pid: int) -> int:
    """Return the bytes of the highest peak among a process and its descendants."""
    process = psutil.Process(pid)
    return max(_peak(one.pid) for one in (process, *process.children(recursive=True)))


def _peak(pid: int) -> int:
    return _in_bytes(Path(f"/proc/{pid}/status").read_text())


def _in_bytes(status: str) -> int:
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
