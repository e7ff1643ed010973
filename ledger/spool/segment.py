"""A segment: a preallocated file of records, written by one thread of one process."""

import os
from pathlib import Path

SUFFIX = ".segment"


class Segment:
    """Open for writing. `size` bytes of it are on disk; `capacity` bytes are reserved."""

    def __init__(self, path: Path, capacity: int) -> None:
        """Create the file and reserve its space. Raises `OSError`, also if the disk is full."""
        self.path = path
        self.capacity = capacity
        self.size = 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._reserve()
            sync_folder(path.parent)
        except OSError:
            self.close()
            path.unlink(missing_ok=True)
            raise

    @property
    def room(self) -> int:
        """How many bytes are left."""
        return self.capacity - self.size

    def append(self, records: bytes) -> None:
        """Write records and return when they are on disk.

        Raises `OSError`. The segment must not be written to after that: what the operating system
        could not write may be lost silently the next time.
        """
        written = 0
        while written < len(records):
            written += os.pwrite(self._file, records[written:], self.size + written)
        os.fdatasync(self._file)
        self.size += len(records)

    def close(self) -> None:
        """Close the file, which stays."""
        os.close(self._file)

    def _reserve(self) -> None:
        os.posix_fallocate(self._file, 0, self.capacity)
        os.fsync(self._file)


def sync_folder(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
