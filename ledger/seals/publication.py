"""Checkpoints outside the database, where who may change the database cannot change them.

A publication is a file to which notes are appended, or a folder, such as a mounted object store,
which gets a file for each.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ledger.errors import SealError
from ledger.seals.notes import Checkpoint, PublicKey, is_signed_by, notes_in, read_checkpoint

_TAIL = 64 * 1024
"""Bytes at the end of a file in which the last note is looked for: a note has some 250."""

_PREFIX, _SUFFIX, _STAMP = "checkpoint-", ".txt", ".tsr"


class Publication:
    """A file or a folder of checkpoints. Its methods raise `SealError` if it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def last(self, key: PublicKey) -> Checkpoint | None:
        """Return the last checkpoint that a key has signed, None if there is none."""
        note = self.last_note(key)
        return None if note is None else read_checkpoint(note)

    def last_note(self, key: PublicKey) -> str | None:
        """Return the note of that checkpoint."""
        try:
            text = self._last_text()
        except OSError as error:
            raise self._failed("read", error) from error
        found = None
        for note in notes_in(text):
            if is_signed_by(note, key):
                found = note
        return found

    def last_stamp(self) -> tuple[int, bytes] | None:
        """Return the newest time stamp and the size of the checkpoint that it is of."""
        try:
            found = (
                sorted(self._stamps.glob(f"{_PREFIX}*{_STAMP}")) if self._stamps.is_dir() else []
            )
            if not found:
                return None
            size = found[-1].name.removeprefix(_PREFIX).removesuffix(_STAMP)
            return (int(size) if size.isdecimal() else 0), found[-1].read_bytes()
        except OSError as error:
            raise self._failed("read", error) from error

    def add_stamp(self, note: str, stamp: bytes) -> Path:
        """Write a time stamp next to the checkpoint that it is of; return its file."""
        name = f"{_PREFIX}{read_checkpoint(note).size:020}"
        try:
            if self._stamps != self.path:
                self._stamps.mkdir(exist_ok=True)
                _write_file(self._stamps / f"{name}{_SUFFIX}", note.encode())
            _write_file(self._stamps / f"{name}{_STAMP}", stamp)
        except OSError as error:
            raise self._failed("write", error) from error
        return self._stamps / f"{name}{_STAMP}"

    @property
    def _stamps(self) -> Path:
        """The folder of time stamps: of a file of checkpoints, one beside it."""
        return self.path if self.path.is_dir() else Path(f"{self.path}.time-stamps")

    def append(self, note: str) -> None:
        """Add a checkpoint, flushed to the disk; what was written in part counts for nothing."""
        try:
            if self.path.is_dir():
                name = f"{_PREFIX}{read_checkpoint(note).size:020}{_SUFFIX}"
                _write_file(self.path / name, note.encode())
            else:
                self._append_to_file(note)
        except OSError as error:
            raise self._failed("write", error) from error

    def _append_to_file(self, note: str) -> None:
        # The empty lines keep a note apart from the beginning of one whose writer was killed.
        content = f"\n\n{note}".encode()
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.fstat(file).st_size == 0:
                content = content.lstrip(b"\n")
            if os.write(file, content) != len(content):
                raise OSError(None, "it took a part of the checkpoint alone")
            os.fsync(file)
        finally:
            os.close(file)

    def _last_text(self) -> str:
        if not self.path.exists():
            return ""
        if self.path.is_dir():
            names = sorted(name for name in self._names())
            return (self.path / names[-1]).read_text() if names else ""
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            return file.read().decode("utf-8", "replace")

    def _names(self) -> Iterator[str]:
        for path in self.path.iterdir():
            if path.name.startswith(_PREFIX) and path.name.endswith(_SUFFIX):
                yield path.name

    def _failed(self, what: str, error: OSError) -> SealError:
        return SealError(f"cannot {what} checkpoints in {self.path}: {error.strerror or error}")


def _write_file(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.part")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    with suppress(OSError):  # not every mount can
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
