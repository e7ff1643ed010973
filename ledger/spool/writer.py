"""Writes deliveries to disk, in one thread: those that come together share one flush."""

import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import structlog
from msgspec import Struct

from ledger.errors import SpoolError
from ledger.eventlog.append import Delivery
from ledger.eventlog.liveness import Alive
from ledger.spool.folder import Waiting, WorkerFolder
from ledger.spool.records import HEAD_BYTES, encode
from ledger.spool.segment import Segment

SEGMENTS = 4
"""Into how many files the budget is divided: one is drained while the next is written."""

HUNG_SECONDS = 2.0
"""A write that takes longer counts as failed for those who ask whether there is a spool."""

RETRY_SECONDS = 10.0
"""After which a spool that could not be made is tried again."""

MOST_AT_ONCE = 1024

Told = Callable[[SpoolError | None], object]

_log = structlog.get_logger(__name__)


class _Written(Struct):
    """A segment, and how much of it is in the log."""

    segment: Segment
    drained: int = 0
    is_given_up: bool = False


class SpoolWriter:
    """The spool of one process. Its thread alone writes; `put` may be called from any thread."""

    def __init__(self, folder: Path, *, budget: int, longest: int) -> None:
        """Make the spool in `start`; `budget` and the `longest` body are in bytes."""
        self._root = folder
        self._segment_bytes = budget // SEGMENTS
        self._longest = longest + HEAD_BYTES
        self._folder: WorkerFolder | None = None
        self._segments: list[_Written] = []
        self._number = 0
        self._queue: list[tuple[Delivery, Told]] = []
        self._changed = threading.Condition()
        self._writing_since: float | None = None
        self._oldest: datetime | None = None
        self._deliveries = 0
        self._alive: Alive | None = None
        self._stopping = False
        self._keeps_note = False
        self._next_try = 0.0
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)

    def start(self) -> None:
        """Start the thread, which reserves the space, and logs it if it cannot."""
        self._thread.start()

    def stop(self, seconds: float, *, keep_note: bool = False) -> None:
        """Write what waits, then leave the spool to whoever drains it.

        `keep_note`: also leave the note of being alive, which the database does not know yet.
        """
        with self._changed:
            self._stopping = True
            self._keeps_note = keep_note
            self._changed.notify()
        self._thread.join(seconds)

    def can_take(self) -> bool:
        """Return whether a delivery of any size could be written now."""
        with self._changed:
            since = self._writing_since
            return (
                not self._stopping
                and (since is None or time.monotonic() - since < HUNG_SECONDS)
                and any(_has_room(each, self._longest) for each in self._segments)
            )

    def put(self, delivery: Delivery, told: Told) -> None:
        """Write a delivery; call `told`, in the spool's thread, when it is on disk or cannot be."""
        with self._changed:
            if not self._stopping:
                self._queue.append((delivery, told))
                self._changed.notify()
                return
        told(SpoolError("the spool has ended"))

    def note_alive(self, alive: Alive) -> None:
        """Have a durable note made of the time through which this process could store deliveries.

        Whoever takes the folder over records it, if this process does not live to do it.
        """
        with self._changed:
            self._alive = alive
            self._changed.notify()

    @property
    def folder(self) -> WorkerFolder | None:
        """The folder of this process."""
        return self._folder

    def undrained(self) -> list[tuple[Path, int, int]]:
        """Return the segments with what is not in the log yet: path, from and to which byte."""
        with self._changed:
            return [
                (each.segment.path, each.drained, each.segment.size)
                for each in self._segments
                if each.drained < each.segment.size
            ]

    def drained(self, path: Path, upto: int, deliveries: int) -> None:
        """Note that a segment is in the log up to a byte; an empty one is used again."""
        with self._changed:
            self._deliveries = max(0, self._deliveries - deliveries)
            for each in self._segments:
                if each.segment.path == path:
                    each.drained = upto
            self._changed.notify()

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            self._work()
        except Exception:  # noqa: BLE001 -- whatever it was
            # Nothing must be taken that nobody writes. What is on disk is drained all the same.
            _log.exception("the spool has failed: deliveries are refused while the log takes none")
            with self._changed:
                self._stopping = True
                left, self._queue = self._queue, []
            _tell(left, SpoolError("the spool has failed"))

    def _work(self) -> None:
        self._open()
        while True:
            with self._changed:
                if not (self._queue or self._alive or self._stopping or self._finished()):
                    self._changed.wait(RETRY_SECONDS)
                batch, self._queue = self._queue, []
                alive, self._alive = self._alive, None
                if self._stopping and not (batch or alive):
                    break
            if alive:
                self._write_alive(alive)
            for each in self._finished():
                self._replace(each)
            if len(self._segments) < SEGMENTS:
                self._open()
            self._write(batch)
        self._close()

    def _open(self) -> None:
        """Reserve the space, or the part of it that there is."""
        if time.monotonic() < self._next_try:
            return
        self._next_try = time.monotonic() + RETRY_SECONDS
        try:
            self._folder = self._folder or WorkerFolder.create(self._root)
            while len(self._segments) < SEGMENTS:
                segment = _Written(self._new_segment())
                with self._changed:
                    self._segments.append(segment)
        except (OSError, SpoolError) as error:
            _log.error(
                "the spool is smaller than it should be",
                folder=str(self._root),
                bytes=len(self._segments) * self._segment_bytes,
                budget=SEGMENTS * self._segment_bytes,
                error=str(error),
            )

    def _write_alive(self, alive: Alive) -> None:
        if self._folder:
            try:
                self._folder.write_alive(alive)
            except OSError as error:
                _log.error("the spool cannot be written", error=str(error))

    def _new_segment(self) -> Segment:
        assert self._folder  # noqa: S101 -- made before any segment
        self._number += 1
        path = self._folder.path / f"{self._number:08}.segment"
        return Segment(path, self._segment_bytes)

    def _write(self, batch: list[tuple[Delivery, Told]]) -> None:
        """Write a batch, a segment's part at a time, and tell each what became of it."""
        while batch:
            records = [encode(each.received_at, each.body) for each, _ in batch[:MOST_AT_ONCE]]
            target = next(
                (each for each in self._segments if _has_room(each, len(records[0]))), None
            )
            if target is None:
                _tell(batch, SpoolError("the spool is full"))
                return
            number, size = 0, 0
            while number < len(records) and _has_room(target, size + len(records[number])):
                size += len(records[number])
                number += 1
            self._writing_since = time.monotonic()
            error = self._append(target, b"".join(records[:number]))
            self._writing_since = None
            if error is None:
                self._count([delivery for delivery, _ in batch[:number]])
            _tell(batch[:number], error)
            batch = batch[number:]

    def _append(self, target: _Written, records: bytes) -> SpoolError | None:
        try:
            target.segment.append(records)
        except OSError as error:
            # After a failed flush, the next one may succeed without having written anything.
            with self._changed:
                target.is_given_up = True
            _log.error(
                "a segment of the spool is given up",
                segment=str(target.segment.path),
                error=str(error),
            )
            return SpoolError(f"the spool cannot be written: {error.strerror or error}")
        return None

    def _count(self, written: list[Delivery]) -> None:
        with self._changed:
            self._deliveries += len(written)
            self._oldest = self._oldest or written[0].received_at
        self._write_counts()

    def _write_counts(self) -> None:
        with self._changed:
            size = sum(each.segment.size - each.drained for each in self._segments)
            if not size:
                self._oldest, self._deliveries = None, 0
            waiting = Waiting(self._deliveries, size, self._oldest)
        if self._folder:
            self._folder.write_counts(waiting)

    def _finished(self) -> list[_Written]:
        """Return the segments of which nothing is needed any more."""
        return [
            each
            for each in self._segments
            if each.drained >= each.segment.size and (each.segment.size or each.is_given_up)
        ]

    def _replace(self, each: _Written) -> None:
        """Remove a segment and reserve its space for a new one, whose name comes last."""
        with self._changed:
            self._segments.remove(each)
        each.segment.close()
        try:
            each.segment.path.unlink(missing_ok=True)
        except OSError as error:  # what is in it is in the log, and does no harm there once more
            _log.error("a segment of the spool cannot be removed", error=str(error))
        self._next_try = 0.0
        self._open()
        self._write_counts()

    def _close(self) -> None:
        for each in self._segments:
            each.segment.close()
        if self._folder:
            undrained = any(each.drained < each.segment.size for each in self._segments)
            if undrained or self._keeps_note:
                self._folder.close()
            else:
                self._folder.remove()


def _has_room(each: _Written, size: int) -> bool:
    return not each.is_given_up and each.segment.room >= size


def _tell(batch: list[tuple[Delivery, Told]], error: SpoolError | None) -> None:
    for _, told in batch:
        told(error)
