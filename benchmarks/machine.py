"""What was measured, and on what: versions, settings, the machine. No path and no host name."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psycopg

from benchmarks.stage import MeasureError
from ledger import __version__

SETTINGS = (
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "wal_compression",
    "shared_buffers",
    "max_wal_size",
)
LIBRARIES = ("litestar", "uvicorn", "httptools", "psycopg", "msgspec", "uvloop", "eventsourcing")


def facts(url: str) -> dict[str, str]:
    """Return them. Raises `MeasureError` if PostgreSQL does not wait for the disk."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)",
            [["server_version", *SETTINGS]],
        ).fetchall()
    said: dict[str, str] = dict(rows)
    if not said["fsync"] == said["synchronous_commit"] == "on":
        raise MeasureError("fsync and synchronous_commit must be on")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return {
        "Ledger": f"{__version__}, commit {_commit()}",
        "Date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "Python": platform.python_version(),
        "PostgreSQL": said["server_version"],
        "Libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "Processor": f"{_processor()}, {os.cpu_count()} cores",
        "Memory": f"{memory:.1f} GiB",
        "Kernel": platform.release(),
        "Settings": ", ".join(f"{name} {said[name]}" for name in SETTINGS),
        "Load before": f"{os.getloadavg()[0]:.2f} processes, of the last minute",
    }


def _commit() -> str:
    here = Path(__file__).parent.parent
    said = _git(here, "rev-parse", "--short", "HEAD")
    if said is None:
        return "unknown"
    changed = _git(here, "status", "--porcelain", "--", ".", ":!benchmarks/RESULTS.md")
    return f"{said} with uncommitted changes" if changed else said


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *words],  # noqa: S607 -- whichever is there
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
