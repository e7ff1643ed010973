"""Files that people send: found out what they are, unpacked, decoded and split into JSON values.

A file is read as a whole before anything is done with it, so that one that cannot be imported is
refused as a whole. Nothing is held in memory but one value at a time.
"""

import codecs
import gzip
import io
import json
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast

import msgspec
from msgspec import Struct

from ledger.errors import ImportFileError
from ledger.eventlog import file_kinds, json_values
from ledger.eventlog.json_values import CutOffError, Value, ValueTooLongError
from ledger.model.digest import is_json

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MIB = 1024 * 1024

ACCEPTED = (
    "accepted are JSON Lines, a JSON array, JSON values one after the other and an export of "
    "Ledger, plain or packed by gzip or zip"
)


class Limits(Struct, frozen=True):
    """How large a file may be, in bytes and in values or lines; None is unlimited.

    One value is held in memory, together with what the parser makes of it: at most 50 times its
    size. `unwanted` limits the values that are not what the file is imported for, `seconds` the
    time of a look through the file.
    """

    value: int = 4 * MIB
    unpacked: int | None = None
    values: int | None = None
    unwanted: int | None = None
    seconds: float | None = None

    def with_bodies_of(self, max_body: int) -> "Limits":
        """Return limits that accept an export of bodies of `max_body` bytes, as base64."""
        return msgspec.structs.replace(self, value=max(self.value, 2 * max_body))


class ImportFile:
    """A file to import; `file` is seekable and stays the caller's to close.

    `name` is None where the file has none. All methods raise `ImportFileError` for a file that is
    not accepted, broken or too large.
    """

    def __init__(
        self, file: IO[bytes], *, name: str | None = None, limits: Limits | None = None
    ) -> None:
        self.name = name
        self._called = name or "the file"
        self._file = file
        self._limits = limits or Limits()

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Give the content, unpacked, as UTF-8 without a byte order mark."""
        with ExitStack() as opened:
            plain = self._unpacked(opened)
            encoding = _encoding(plain.peek(_BEGIN))
            if encoding == "utf-8":
                if plain.peek(_BEGIN).startswith(codecs.BOM_UTF8):
                    plain.read(len(codecs.BOM_UTF8))
                yield cast("IO[bytes]", plain)
            else:
                recoded = _Recoded(plain, encoding, self._called)
                yield cast("IO[bytes]", io.BufferedReader(recoded, json_values.CHUNK))

    def begin(self) -> bytes:
        """Return the first part of the content, with its white space."""
        with self.open() as content:
            return content.read(_BEGIN)

    def read(self, is_wanted: Callable[[bytes], bool]) -> "Reading":
        """Look through the whole file and return how to read its values.

        JSON whose values all parse is read as such. Otherwise lines are preferred where more of
        them than of the values are wanted, so that a broken line costs no other.
        """
        try:
            return self._choose(is_wanted)
        except ImportFileError as error:
            raise ImportFileError(f"{error}. Nothing of it was recorded") from error

    def _choose(self, is_wanted: Callable[[bytes], bool]) -> "Reading":
        begin = self.begin().lstrip()
        if begin and begin[:1] not in b'[{"':
            return self._read_lines_in_text(begin, is_wanted)
        values = self._look("values", is_wanted)
        if not values.suspicious and (values.wanted or begin[:1] != b'"'):
            return Reading(self, "values")
        lines = self._look("lines", is_wanted)
        # A broken last line is cut off as a value, and only a line as a line.
        if lines.wanted > values.wanted or (
            lines.wanted == values.wanted > 0 and begin[:1] == b"{"
        ):
            return Reading(self, "lines")
        if values.error:
            raise values.error
        if values.wanted:
            return Reading(self, "values", cut_off=values.cut_off)
        if begin[:1] == b'"':
            raise self._refusal(file_kinds.of_text(begin))
        raise self._refusal("JSON that is cut off or broken, without one whole event")

    def values(self, way: "Way") -> Iterator[Value]:
        """Yield the values, or the lines. Raises `CutOffError` after the last, too."""
        split = json_values.values if way == "values" else json_values.lines
        with self.open() as content:
            yield from split(content, longest=self._limits.value, most=self._limits.values)

    def _unpacked(self, opened: ExitStack) -> io.BufferedReader:
        self._file.seek(0)
        begin = self._file.read(_BEGIN)
        self._file.seek(0)
        stream: Any = self._file
        if begin.startswith(_GZIP):
            stream = opened.enter_context(gzip.GzipFile(mode="rb", fileobj=self._file))
        elif begin.startswith(_ZIP):
            stream = opened.enter_context(self._zip_member(opened))
        plain: io.BufferedReader = io.BufferedReader(
            _Bounded(stream, self._called, self._limits), json_values.CHUNK
        )
        if kind := file_kinds.of_bytes(plain.peek(_BEGIN)[:_BEGIN]):
            raise self._refusal(kind)
        return plain

    def _zip_member(self, opened: ExitStack) -> IO[bytes]:
        try:
            archive = opened.enter_context(zipfile.ZipFile(self._file))
            names = archive.namelist()
            if kind := file_kinds.of_zip(names):
                raise self._refusal(kind)
            files = [name for name in names if not _is_clutter(name)]
            if len(files) != 1:
                raise ImportFileError(
                    f"{self._called} is a zip archive of {len(files)} files: unpack it, and import "
                    "each by itself"
                )
            return archive.open(files[0])
        except (*_BROKEN_PACKING, RuntimeError) as error:
            raise ImportFileError(
                f"{self._called} is a zip archive that cannot be read: {error}"
            ) from error

    def _read_lines_in_text(self, begin: bytes, is_wanted: Callable[[bytes], bool]) -> "Reading":
        """Accept JSON Lines that begin with some other line, if at least half are objects."""
        lines = self._look("lines", is_wanted)
        if not lines.wanted or 2 * lines.objects < lines.all:
            raise self._refusal(file_kinds.of_text(begin))
        return Reading(self, "lines")

    def _look(self, way: "Way", is_wanted: Callable[[bytes], bool]) -> "_Look":
        seen = _Look()
        began = time.monotonic()
        try:
            for _, text in self.values(way):
                seen.all += 1
                if is_wanted(text):
                    seen.wanted += 1
                else:
                    seen.objects += text.startswith(b"{") and text.endswith(b"}")
                    seen.suspicious = seen.suspicious or (b"\n" in text and not is_json(text))
                self._check(seen, time.monotonic() - began)
        except CutOffError:
            seen.suspicious = seen.cut_off = True
        except ValueTooLongError as error:
            seen.suspicious, seen.error = True, error
            seen.wanted = 0
        seen.objects += seen.wanted
        return seen

    def _check(self, seen: "_Look", seconds: float) -> None:
        limits = self._limits
        if limits.unwanted is not None and seen.all - seen.wanted > limits.unwanted:
            raise ImportFileError(
                f"{self._called} holds more than {limits.unwanted:,} values of another kind than "
                "it is imported for"
            )
        if limits.seconds is not None and seconds > limits.seconds:
            raise ImportFileError(
                f"{self._called} takes longer than {limits.seconds:.0f} s to read: send it in "
                "parts, or use `ledger import`"
            )

    def _refusal(self, kind: str) -> ImportFileError:
        return ImportFileError(f"{self._called} seems to be {kind}; {ACCEPTED}")


Way = Literal["values", "lines"]


class Reading(Struct, frozen=True):
    """How a file is read; `cut_off` if it ends inside a value or an array."""

    file: ImportFile
    way: Way
    cut_off: bool = False

    def values(self) -> Iterator[Value]:
        """Yield the values; of one that is cut off, what is there of it."""
        try:
            yield from self.file.values(self.way)
        except CutOffError:
            return


@contextmanager
def open_import_file(
    name: str, standard_input: IO[bytes], *, limits: Limits
) -> Iterator[ImportFile]:
    """Open a file, or standard input for `-`; what cannot be read twice is kept on disk meanwhile.

    Raises `ImportFileError` if it cannot be read.
    """
    with ExitStack() as opened:
        try:
            from_pipe = name == "-"
            source = standard_input if from_pipe else opened.enter_context(Path(name).open("rb"))
            if from_pipe or not source.seekable():
                kept = opened.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(source, kept)
                source = kept
        except OSError as error:
            raise ImportFileError(f"cannot read {name}: {error.strerror}") from error
        yield ImportFile(source, name=None if from_pipe else name, limits=limits)


class _Look(Struct):
    """What a look through a file found: how many values, and whether they seem to be cut wrong."""

    all: int = 0
    wanted: int = 0
    objects: int = 0
    suspicious: bool = False
    cut_off: bool = False
    error: ImportFileError | None = None


class _Bounded(io.RawIOBase):
    """Content whose faults are sentences and whose size is limited."""

    def __init__(self, source: IO[bytes], name: str, limits: Limits) -> None:
        super().__init__()
        self._source = source
        self._name = name
        self._left = limits.unpacked
        self._limit = limits.unpacked

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        try:
            read = self._source.read(len(view))
        except _BROKEN_PACKING as error:
            raise ImportFileError(
                f"{self._name} is not a complete gzip or zip file: {error}"
            ) from error
        except OSError as error:
            raise ImportFileError(f"cannot read {self._name}: {error.strerror}") from error
        if self._left is not None and self._limit is not None:
            self._left -= len(read)
            if self._left < 0:
                raise ImportFileError(
                    f"{self._name} is longer than {self._limit // MIB} MiB when it is unpacked: "
                    "send it in parts, or use `ledger import`"
                )
        view[: len(read)] = read
        return len(read)


class _Recoded(io.RawIOBase):
    """Text of another encoding as UTF-8."""

    def __init__(self, source: IO[bytes], encoding: str, name: str) -> None:
        super().__init__()
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._encoding = encoding
        self._name = name
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        while not self._ready and not self._ended:
            read = self._source.read(json_values.CHUNK)
            self._ended = not read
            try:
                self._ready = self._decoder.decode(read, final=self._ended).encode()
            except UnicodeError as error:
                raise ImportFileError(
                    f"{self._name} begins like {self._encoding.upper()} and is not: {error}"
                ) from error
        part, self._ready = self._ready[: len(view)], self._ready[len(view) :]
        view[: len(part)] = part
        return len(part)


def _encoding(begin: bytes) -> str:
    """Return the encoding of JSON text, which begins with ASCII or a byte order mark."""
    found = json.detect_encoding(begin[:4])
    return "utf-8" if found == "utf-8-sig" else found


def _is_clutter(name: str) -> bool:
    """Return whether a member of a zip archive is a folder or what a desktop adds unasked."""
    return name.endswith(("/", ".DS_Store", "Thumbs.db")) or name.startswith("__MACOSX/")


_GZIP = b"\x1f\x8b"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_BEGIN = 4096
_BROKEN_PACKING = (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error)
