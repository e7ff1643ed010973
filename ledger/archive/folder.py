"""The folder of an archive: ranges of positions, each a Parquet file and a manifest.

A range is there if its manifest is, which is written last. So what an interrupted run left is told
from what is whole. docs/archive.md describes the format.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import file_digest
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from ledger.errors import ArchiveError
from ledger.model.operator_events import Hash
from ledger.seals.merkle import GrowingTree, complete_nodes

FORMAT = "ledger archive 1"

LIVENESS = "liveness.jsonl"
"""When receivers were alive or refused deliveries, as `ledger export` writes it; not sealed."""

_NAME = re.compile(r"positions-(\d{12,19})-(\d{12,19})(?:\.\d+)?\.(json|parquet)")
_PART = re.compile(r"\.(?:positions-|liveness).*\.part")
_SHOWN = 3


class ArchivedFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A Parquet file: its name in the folder, its size in bytes and its SHA-256 in hexadecimal."""

    name: str
    bytes: int
    sha256: Hash


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a range of the log is; hashes are hexadecimal.

    `root` is of the tree of the first `last` events. `before` are the hashes of the complete
    subtrees that the events before `first` consist of, so that the range is checked by itself.
    `checkpoint` is the newest signed one of a size from `first` to `last`, null without a key.
    """

    format: str
    first: int
    last: int
    erased: int
    before: list[Hash]
    root: Hash
    checkpoint: str | None
    file: ArchivedFile

    @property
    def events(self) -> int:
        """How many events the range has."""
        return self.last - self.first + 1

    @property
    def name(self) -> str:
        """The manifest's own name in the folder."""
        return f"{range_name(self.first, self.last)}.json"

    def tree_before(self) -> GrowingTree:
        """Return the tree of all events before the range."""
        levels = [level for level, _ in complete_nodes((0, self.first - 1))]
        hashes = map(bytes.fromhex, self.before)
        return GrowingTree(zip(levels, hashes, strict=True))


_decode = msgspec.json.Decoder(Manifest).decode


def range_name(first: int, last: int) -> str:
    """Return how the names of a range's files begin."""
    return f"positions-{first:012}-{last:012}"


class Archive:
    """The folder of an archive. Its methods raise `ArchiveError` if it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ranges(self) -> list[Manifest]:
        """Return the manifests in order of position, gaps included. None overlaps another."""
        found = sorted(map(self._manifest, self._names("json")), key=lambda each: each.first)
        for one, next_ in pairwise(found):
            if next_.first <= one.last:
                raise ArchiveError(
                    f"{self.path} has position {next_.first} twice, in {one.name} and in "
                    f"{next_.name}: remove one of both, with its Parquet file"
                )
        return found

    def whole(self) -> list[Manifest]:
        """Return the manifests of an archive without a gap from position 1 on; at least one."""
        found = self.ranges()
        if not found:
            raise ArchiveError(
                f"{self.path} is no archive of Ledger: no file in it is named positions-*.json"
            )
        for first, last in missing(found, found[-1].last):
            raise ArchiveError(
                f"{self.path} lacks the positions {first} to {last}: find their files, or write "
                "them again with `ledger archive`"
            )
        return found

    def prepare(self) -> None:
        """Make the folder, and remove what an interrupted run has left in it."""
        with self._writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            entries = sorted(entry.name for entry in self.path.iterdir())
        whole = {manifest.file.name for manifest in self.ranges()}
        foreign = [name for name in entries if not _is_ours(name)]
        if foreign and not whole:
            raise ArchiveError(
                f"{self.path} holds other files ({', '.join(foreign[:_SHOWN])}): name a new or an "
                "empty folder for the archive"
            )
        for name in entries:
            unfinished = name.endswith(".parquet") and _NAME.fullmatch(name) and name not in whole
            if unfinished or _PART.fullmatch(name):
                with self._writing(self.path / name):
                    (self.path / name).unlink()

    @contextmanager
    def written(self, name: str) -> Iterator[BinaryIO]:
        """Give a file to write to. It gets its name when it is complete and on the disk."""
        path, unfinished = self.path / name, self.path / f".{name}.part"
        with self._writing(path):
            try:
                with unfinished.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                unfinished.rename(path)
                self._flush_folder()
            finally:
                with suppress(OSError):
                    unfinished.unlink(missing_ok=True)

    def describe(self, name: str) -> ArchivedFile:
        """Return a file's size and hash as they are on the disk."""
        path = self.path / name
        try:
            with path.open("rb") as file:
                return ArchivedFile(
                    name, path.stat().st_size, file_digest(file, "sha256").hexdigest()
                )
        except OSError as error:
            raise ArchiveError(f"cannot read {path}: {error.strerror or error}") from error

    def add(self, manifest: Manifest) -> None:
        """Write a manifest: from then on its range is there."""
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
        with self.written(manifest.name) as file:
            file.write(content)

    def drop(self, name: str) -> None:
        """Remove a file that no manifest names any more."""
        with self._writing(self.path / name):
            (self.path / name).unlink(missing_ok=True)

    def liveness(self) -> Iterator[bytes]:
        """Yield the lines of `LIVENESS`, none if there is no such file."""
        path = self.path / LIVENESS
        try:
            with path.open("rb") as file:
                yield from file
        except FileNotFoundError:
            return
        except OSError as error:
            raise ArchiveError(f"cannot read {path}: {error.strerror or error}") from error

    def _manifest(self, name: str) -> Manifest:
        path = self.path / name
        try:
            found = _decode(path.read_bytes())
            begun = complete_nodes((0, found.first - 1))
        except OSError as error:
            raise ArchiveError(f"cannot read {path}: {error.strerror or error}") from error
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise ArchiveError(
                f"{path} is no manifest that this version of Ledger reads: {error}"
            ) from error
        if found.format != FORMAT:
            raise ArchiveError(f"{path} is of the format {found.format!r}, not {FORMAT!r}")
        named = _NAME.fullmatch(found.file.name)
        is_plausible = 1 <= found.first <= found.last and len(found.before) == len(begun)
        if not is_plausible or found.name != name or not named or named[3] != "parquet":
            raise ArchiveError(f"{path} contradicts itself: it was changed or renamed")
        return found

    def _names(self, ending: str) -> list[str]:
        try:
            names = sorted(entry.name for entry in self.path.iterdir())
        except OSError as error:
            raise ArchiveError(f"cannot read {self.path}: {error.strerror or error}") from error
        return [name for name in names if (of := _NAME.fullmatch(name)) and of[3] == ending]

    def _flush_folder(self) -> None:
        with suppress(OSError):  # not every mount can
            folder = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ArchiveError(f"cannot write {path}: {error.strerror or error}") from error


def missing(ranges: Iterable[Manifest], upto: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches of positions up to one that no range has, first and last."""
    expected = 1
    for manifest in ranges:
        if manifest.first > expected:
            yield expected, manifest.first - 1
        expected = manifest.last + 1
    if expected <= upto:
        yield expected, upto


def _is_ours(name: str) -> bool:
    return bool(name == LIVENESS or _NAME.fullmatch(name) or _PART.fullmatch(name))
