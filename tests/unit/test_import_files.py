"""What kinds of files are accepted, how they are read, and what is said of those that are not."""

import gzip
import io
import json
import os
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ledger.errors import ImportFileError
from ledger.eventlog.import_files import ImportFile, Limits, open_import_file
from ledger.model.digest import is_json


def event(number: int) -> bytes:
    return json.dumps({"event": number, "text": 'a "[{\\]}, 漢'}, ensure_ascii=False).encode()


EVENTS = [event(number) for number in range(3)]
LINES = b"\n".join(EVENTS)


def is_event(text: bytes) -> bool:
    return b'"event"' in text and is_json(text)


def read(content: bytes, limits: Limits | None = None) -> tuple[list[bytes], bool]:
    reading = ImportFile(io.BytesIO(content), limits=limits).read(is_event)
    return [value.text for value in reading.values()], reading.cut_off


def refusal(content: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(ImportFileError) as raised:
        ImportFile(io.BytesIO(content), limits=limits).read(is_event)
    assert str(raised.value).endswith(". Nothing of it was recorded")
    return str(raised.value)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
FORMS = {
    "lines": LINES,
    "lines of Windows": LINES.replace(b"\n", b"\r\n") + b"\r\n",
    "array": b"[" + b",\n".join(EVENTS) + b"]",
    "one after the other": b"".join(EVENTS),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["utf-8", *ENCODINGS])
@pytest.mark.parametrize("packing", ["plain", "gzip", "zip"])
def test_a_file_is_read_in_any_encoding_and_packing(form: str, encoding: str, packing: str) -> None:
    content = FORMS[form].decode().encode(encoding)
    if packing == "gzip":
        content = gzip.compress(content)
    elif packing == "zip":
        content = zipped({"answer/": b"", "answer/day": content, "__MACOSX/day": b"x"})
    assert read(content) == (EVENTS, False)


def test_gzip_files_one_after_the_other_are_one() -> None:
    content = gzip.compress(EVENTS[0] + b"\n") + gzip.compress(EVENTS[1] + b"\n")
    assert read(content) == (EVENTS[:2], False)


# --- what is broken ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [b"{broken", b'{"event": "', b"broken", b'{"event": 1, "x": ', b"}", b'{"a": [', b"\xff"],
)
@pytest.mark.parametrize("place", range(4))
def test_a_broken_line_costs_no_other(broken: bytes, place: int) -> None:
    lines = [*EVENTS[:place], broken.strip(), *EVENTS[place:]]
    assert read(b"\n".join(lines)) == (lines, False)


def test_lines_with_trailing_commas_and_a_broken_one_are_read() -> None:
    lines = b",\r\n".join([EVENTS[0], b"{broken", EVENTS[1], b""])
    assert read(lines) == ([EVENTS[0], b"{broken", EVENTS[1]], False)


def test_a_broken_element_costs_no_other() -> None:
    assert read(b"[%b, {broken}, nul, %b]" % (EVENTS[0], EVENTS[1])) == (
        [EVENTS[0], b"{broken}", b"nul", EVENTS[1]],
        False,
    )


@pytest.mark.parametrize("form", ["[%b, %b, {", "[\n%b,\n%b\n,"])
def test_an_array_that_is_cut_off_is_read_to_the_cut(form: str) -> None:
    found, cut_off = read(form.encode() % (EVENTS[0], EVENTS[1]))
    assert (found[:2], cut_off) == (EVENTS[:2], True)


def test_values_over_many_lines_that_are_cut_off_are_read_to_the_cut() -> None:
    pretty = json.dumps({"event": 1}, indent=2).encode()
    assert read(pretty + b"\n" + pretty[:-1]) == ([pretty, pretty[:-1].strip()], True)


@pytest.mark.parametrize("end", [5, 40, -4])
@pytest.mark.parametrize(
    "packed", [gzip.compress(LINES), zipped({"day": LINES})], ids=["gzip", "zip"]
)
def test_a_packed_file_that_is_cut_off_is_refused(packed: bytes, end: int) -> None:
    assert "gzip" in refusal(packed[:end]) or "zip archive" in refusal(packed[:end])


def test_a_zip_archive_with_a_wrong_checksum_is_refused() -> None:
    packed = zipped({"day": LINES})
    place = packed.index(b"PK\x01\x02") + 16
    broken = packed[:place] + b"\0\0\0\0" + packed[place + 4 :]
    assert "not a complete gzip or zip file" in refusal(broken)


# --- what is refused --------------------------------------------------------------------------

OTHERS = {
    "a table (CSV)": b'id,payload\r\n1,"{""event"": 1}"\r\n',
    "a table (CSV) ": b"id;payload\r\n1;2\r\n",
    "a table (CSV)  ": b'"id","payload"\n"1","2"\n',
    "an HTML page": b"\n<!DOCTYPE html>\n<html>",
    "an XML document": b'<?xml version="1.0"?>',
    "a PDF document": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "an RTF document": b"{\\rtf1\\ansi hello}",
    "Microsoft Office (.xls": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    "a spreadsheet (.xlsx)": zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b""}),
    "(.docx": zipped({"[Content_Types].xml": b"", "word/document.xml": b""}),
    "OpenDocument": zipped({"mimetype": b"", "content.xml": b""}),
    "a zip archive of 2 files": zipped({"first": LINES, "second": LINES}),
    "a zip archive of 0 files": zipped({}),
    "a zip archive inside": zipped({"inner": zipped({"day": LINES})}),
    "a tar archive": gzip.compress(b"name".ljust(257, b"\0") + b"ustar" + bytes(600)),
    "a PNG image": b"\x89PNG\r\n\x1a\n",
    "a mail that quotes": b"Hello,\n\n> " + LINES.replace(b"\n", b"\n> ") + b"\n\nRegards\n",
    "plain text ": b"Hello,\nhere they are:\n%b\nRegards\nFlabs\n" % LINES.splitlines()[0],
    "a mail with headers": b"From: flabs@example.org\nSubject: events\n\nhello\n",
    "plain text": b"Hello,\nno events.\n",
    "a binary file": bytes(range(32)) * 9,
    "UTF-16": b"\xff\xfe\x00",
    "cut off or broken": b'{"event": 1',
    "cut off or broken ": b'["' + rb"\"" * 20_000,
    "cut off or broken  ": b"{broken\n" * 9,
}


@pytest.mark.parametrize("kind", OTHERS)
def test_any_other_file_is_refused_as_what_it_seems_to_be(kind: str) -> None:
    assert kind.rstrip() in refusal(OTHERS[kind])


def test_an_encrypted_zip_archive_is_refused() -> None:
    packed = bytearray(zipped({"day": LINES}))
    packed[6] |= 1
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in refusal(bytes(packed))


def test_json_of_another_kind_is_read_so_that_it_can_be_reported() -> None:
    assert read(b'{"name": "ledger"}') == ([b'{"name": "ledger"}'], False)


# --- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "limits", "words"),
    [
        (gzip.compress(b" " * 5_000_000), Limits(unpacked=4_000_000), "when it is unpacked"),
        (zipped({"day": b" " * 5_000_000}), Limits(unpacked=4_000_000), "when it is unpacked"),
        (LINES, Limits(values=2), "more than 2 values"),
        (LINES, Limits(value=10), "longer than 10 bytes"),
        (b"{}\n" * 9 + LINES, Limits(unwanted=8), "more than 8 values of another kind"),
        (LINES, Limits(seconds=0), "takes longer than 0 s"),
    ],
)
def test_a_file_beyond_a_limit_is_refused(content: bytes, limits: Limits, words: str) -> None:
    assert words in refusal(content, limits)


def test_a_file_at_its_limits_is_read() -> None:
    limits = Limits(value=len(EVENTS[0]) + 1, unpacked=len(LINES), values=3, unwanted=0, seconds=60)
    assert read(LINES, limits) == (EVENTS, False)


def test_a_limit_grows_with_the_bodies_that_are_received() -> None:
    assert Limits().with_bodies_of(1000) == Limits()
    assert Limits().with_bodies_of(64 * 1024 * 1024).value == 128 * 1024 * 1024


LONG = json.dumps({"event": "x" * 10_000}).encode()


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress((LONG + b"\n") * 2000, compresslevel=1),
        b"[" + b",".join([LONG] * 2000) + b"]",
        gzip.compress(b" " * 50_000_000, compresslevel=1),
    ],
    ids=["lines", "array", "white space"],
)
def test_memory_does_not_grow_with_the_file(content: bytes) -> None:
    file = ImportFile(io.BytesIO(content))
    file.begin()
    tracemalloc.start()
    for _ in file.values("values"):
        pass
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * 1024 * 1024


# --- where files come from --------------------------------------------------------------------


def test_what_cannot_be_read_twice_is_kept_on_disk(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, gzip.compress(LINES))
    os.close(writer)
    with (
        os.fdopen(reader, "rb") as pipe,
        open_import_file("-", pipe, limits=Limits()) as file,
    ):
        assert [value.text for value in file.read(is_event).values()] == EVENTS
        assert file.name is None
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(fifo.write_bytes, LINES)
        with open_import_file(str(fifo), io.BytesIO(), limits=Limits()) as file:
            assert [value.text for value in file.read(is_event).values()] == EVENTS
    path = tmp_path / "day"
    path.write_bytes(LINES)
    with open_import_file(str(path), io.BytesIO(), limits=Limits()) as file:
        assert [value.text for value in file.read(is_event).values()] == EVENTS
        assert file.name == str(path)
