"""The folders of a spool: one for each process that writes, locked while it lives.

In SPOOL_DIR/worker-<id>: `lock`, held by the process that writes; `counts`, what waits, for whoever
asks; `alive.json`, since when the process has been able to store deliveries; and the records, in
`00000001.segment` and so on. SPOOL_DIR/set-aside holds damaged records, for a person to look at.
"""

import fcntl
import os
import shutil
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct
from msgspec.json import decode, encode

from ledger.errors import SpoolError
from ledger.eventlog.liveness import Alive
from ledger.spool.segment import SUFFIX, sync_folder

_COUNTS = struct.Struct(">QQQ")
SET_ASIDE = "set-aside"
"""The folder in a spool for what could not be moved to the log."""

_LEFT_OVER_SECONDS = 60.0
"""After which a hidden folder is taken for one of a process that was killed."""


class Waiting(Struct, frozen=True):
    """What waits in a spool: deliveries, their bytes, and since when the oldest does (or None)."""

    deliveries: int = 0
    bytes: int = 0
    oldest: datetime | None = None


class WorkerFolder:
    """The folder of one process, locked by whoever has this object."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._is_closed = False
        self._counts = os.open(path / "counts", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @classmethod
    def create(cls, spool: Path) -> "WorkerFolder":
        """Make a folder for this process. Raises `SpoolError`."""
        path = spool / f"worker-{uuid.uuid4().hex}"
        # Whoever looks for folders to drain must not see one that is not locked yet.
        hidden = _hidden(path)
        try:
            _make_durably(spool)
            _remove_leftovers(spool)
            hidden.mkdir(mode=0o700)
            lock = _try_lock(hidden)
            if lock is None:
                raise SpoolError(f"{hidden} was taken by another process")
            hidden.rename(path)
            sync_folder(spool)
            return cls(path, lock)
        except OSError as error:
            raise SpoolError(
                f"cannot use LEDGER_SPOOL_DIR {spool}: {error.strerror or error}"
            ) from error

    @classmethod
    def take_over(cls, path: Path) -> "WorkerFolder | None":
        """Take the folder of a process that is gone; None while it is there. Raises `OSError`.

        Also None if somebody else has just drained and removed it.
        """
        with suppress(FileNotFoundError):
            if (lock := _try_lock(path)) is not None:
                try:
                    return cls(path, lock)
                except OSError:
                    os.close(lock)
                    raise
        return None

    def segments(self) -> list[Path]:
        """Return the segments in the order in which they were written."""
        return sorted(self.path.glob(f"*{SUFFIX}"))

    def write_counts(self, waiting: Waiting) -> None:
        """Say what waits; whoever asks may be another process."""
        oldest = int(waiting.oldest.timestamp()) if waiting.oldest else 0
        with suppress(OSError):  # it is for people; the records are what counts
            os.pwrite(self._counts, _COUNTS.pack(waiting.deliveries, waiting.bytes, oldest), 0)

    def write_alive(self, alive: Alive) -> None:
        """Note durably that the process is alive, for whoever records it. Raises `OSError`."""
        path, new = self.path / "alive.json", self.path / "alive.new"
        _write_durably(new, encode(alive))
        new.replace(path)
        sync_folder(self.path)

    def read_alive(self) -> Alive | None:
        """Return what was noted last; None if nothing was, or if it cannot be read."""
        with suppress(OSError, ValueError):
            return decode((self.path / "alive.json").read_bytes(), type=Alive)
        return None

    def set_aside(self, name: str, content: bytes) -> Path:
        """Keep damaged bytes outside the folder; return where. Raises `OSError`."""
        folder = self.path.parent / SET_ASIDE
        _make_durably(folder)
        path = folder / f"{self.path.name}-{name}"
        _write_durably(path, content)
        sync_folder(folder)
        return path

    def remove(self) -> None:
        """Remove the folder, of which nothing is needed any more. Raises `OSError`."""
        # Nobody may find it half removed, and lock what is left of it.
        hidden = self.path.rename(_hidden(self.path))
        shutil.rmtree(hidden)
        self.close()

    def close(self) -> None:
        """Give the folder up to whoever takes it over; safe to repeat."""
        if not self._is_closed:
            self._is_closed = True
            os.close(self._counts)
            os.close(self._lock)


def worker_folders(spool: Path) -> list[Path]:
    """Return the folders of all processes, the oldest first. Raises `OSError`."""
    found = []
    for path in spool.glob("worker-*"):
        with suppress(FileNotFoundError):  # it was removed just now
            found.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(found)]


def waiting_in(spool: Path) -> Waiting:
    """Return what waits in a spool, of all processes."""
    parts = list(_counts(spool))
    oldest = [part.oldest for part in parts if part.oldest]
    return Waiting(
        sum(part.deliveries for part in parts),
        sum(part.bytes for part in parts),
        min(oldest, default=None),
    )


def set_aside_in(spool: Path) -> int:
    """Return how many damaged records were set aside."""
    with suppress(OSError):
        return len(list((spool / SET_ASIDE).iterdir()))
    return 0


def _make_durably(folder: Path) -> None:
    """Make a folder with those above it, and their entries durable. Raises `OSError`."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in new:
        sync_folder(each.parent)


def _write_durably(path: Path, content: bytes) -> None:
    """Write a file anew, all of it, and flush it. Raises `OSError`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 -- a descriptor
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}")


def _remove_leftovers(spool: Path) -> None:
    """Remove hidden folders of processes that were killed while they made or removed one."""
    for path in spool.glob(".worker-*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFT_OVER_SECONDS:
                shutil.rmtree(path)


def _counts(spool: Path) -> Iterator[Waiting]:
    with suppress(OSError):
        for folder in worker_folders(spool):
            with suppress(OSError, struct.error):
                deliveries, size, oldest = _COUNTS.unpack((folder / "counts").read_bytes())
                yield Waiting(
                    deliveries, size, datetime.fromtimestamp(oldest, UTC) if oldest else None
                )


def _try_lock(path: Path) -> int | None:
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:
        os.close(lock)
        raise
    return lock
