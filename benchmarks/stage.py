"""The stage of a measurement: a durable PostgreSQL, a server on it, a load from outside."""

import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psycopg

from ledger import embedded, schema
from ledger.settings import child_environment

TOKEN = "token-of-the-benchmark"  # noqa: S105 -- protects nothing
KEY = "key"
CONNECTIONS = 64
_LOAD = Path(__file__).parent / "load.lua"
_READ = Path(__file__).parent / "read.lua"


@contextmanager
def postgres() -> Iterator[embedded.EmbeddedPostgres]:
    """Run a server with fsync and synchronous_commit on, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="ledger-bench-") as folder:
        settings = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
        with embedded.start(Path(folder) / "postgres", settings=settings) as server:
            yield server


def new_database(server: embedded.EmbeddedPostgres, name: str) -> str:
    """Make a migrated database and return its URL."""
    server.ensure_database(name)
    url = server.dsn(name)
    schema.migrate(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SEQUENCE IF NOT EXISTS obvious_position")
    return url


@contextmanager
def served(url: str, target: str, *, factory: bool) -> Iterator[str]:
    """Serve an application with one worker; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = child_environment(
        {"LEDGER_DATABASE_URL": url, "LEDGER_WEBHOOK_TOKENS": TOKEN, "LEDGER_ADMIN_KEY": KEY}
    )
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(port)]
    command += ["--http", "1", "--no-ws", "--log-level", "error", target]
    process = subprocess.Popen([*command, *(["--factory"] if factory else [])], env=environment)
    try:
        _wait(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def load(address: str, seconds: int, seed: str) -> tuple[float, float]:
    """Send events for some seconds; return requests per second and the 99th percentile in ms."""
    return _wrk(address, seconds, _LOAD, TOKEN, seed)


def read(address: str, seconds: int, path: str, count: int) -> float:
    """Read `path`0 to `path`(count - 1) for some seconds; return requests per second."""
    return _wrk(address, seconds, _READ, KEY, path, str(count))[0]


def _wrk(address: str, seconds: int, script: Path, *arguments: str) -> tuple[float, float]:
    wrk = shutil.which("wrk")
    if wrk is None:
        sys.exit("make bench needs wrk: on Debian and Ubuntu, apt install wrk")
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(script)]
    done = subprocess.run(
        [*command, address, "--", *arguments], capture_output=True, text=True, check=True
    )
    if "Non-2xx" in done.stdout:
        sys.exit(f"the server refused requests:\n{done.stdout}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    slow = re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)
    assert rate, done.stdout  # noqa: S101 -- wrk's own format
    assert slow, done.stdout  # noqa: S101 -- the same
    return float(rate[1]), float(slow[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[slow[2]]


def _wait(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            httpx.post(f"http://127.0.0.1:{port}/webhooks/flabs", content=b"")
            return
        time.sleep(0.05)
    sys.exit("the server did not start")
