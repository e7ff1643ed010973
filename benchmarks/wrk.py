"""The load: `wrk`, in a process of its own, cheap enough to leave the machine to the server."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from benchmarks.stage import KEY, TOKEN, MeasureError

CONNECTIONS = 64
WARM_SECONDS = 1
"""Of load before each measurement, so that no server is measured while it starts."""

_LOAD = Path(__file__).parent / "load.lua"
_READ = Path(__file__).parent / "read.lua"
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


class Load(NamedTuple):
    """Answers per second, and the 99th percentile of the time to an answer in milliseconds."""

    rate: float
    p99: float


def check() -> None:
    """Raise `MeasureError` unless wrk is installed."""
    if shutil.which("wrk") is None:
        raise MeasureError("wrk is missing: on Debian and Ubuntu, apt install wrk")


def send(address: str, seconds: int, seed: str) -> Load:
    """Send events as fast as they are answered, after a while that is not measured."""
    _run(address, WARM_SECONDS, _LOAD, TOKEN, f"{seed}w")
    return _measured(_run(address, seconds, _LOAD, TOKEN, seed))


def send_at(address: str, seconds: int, seed: str, rate: float) -> Load:
    """Send so many events per second."""
    return _measured(_run(address, seconds, _LOAD, TOKEN, seed, str(rate)))


def send_noting(address: str, seconds: int, seed: str, file: Path) -> "subprocess.Popen[str]":
    """Begin to send events; the file takes the position of each one acknowledged, a line each."""
    command = _command(address, seconds, _LOAD, TOKEN, seed, "0", str(file))
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read(address: str, seconds: int, *, bills: int, labs: int) -> Load:
    """Read bills as fast as they are answered, after a while that is not measured."""
    _run(address, WARM_SECONDS, _READ, KEY, str(bills), str(labs))
    return _measured(_run(address, seconds, _READ, KEY, str(bills), str(labs)))


def _command(address: str, seconds: int, script: Path, *arguments: str) -> list[str]:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(script)]
    return [*command, address, "--", *arguments]


def _run(address: str, seconds: int, script: Path, *arguments: str) -> str:
    done = subprocess.run(
        _command(address, seconds, script, *arguments), capture_output=True, text=True, check=True
    )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise MeasureError(f"the server refused requests:\n{done.stdout}")
    return done.stdout


def _measured(said: str) -> Load:
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    slow = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", said)
    if not rate or not slow or not float(rate[1]):
        raise MeasureError(f"wrk said:\n{said}")
    return Load(float(rate[1]), float(slow[1]) * _MILLISECONDS[slow[2]])
