"""Lists of expected bills as people and spreadsheets save them."""

import gzip
import io
import json
from datetime import UTC, datetime

import pytest

from ledger.errors import ImportFileError
from ledger.eventlog.import_files import ImportFile
from ledger.operations.expected_bills import Expectation, Refused, read_expectations
from ledger.operations.spreadsheet_cells import neutral

TIME = "2026-01-01T00:00:00Z"
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
ONE = Expectation("int1", MOMENT, "lab_1")
TWO = Expectation("int2", MOMENT)


def read(content: bytes) -> list[Expectation | Refused]:
    return list(read_expectations(ImportFile(io.BytesIO(content))))


def table(separator: str, end: str = "\n") -> str:
    rows = [["integrator_id", "expected_by", "lab_id"], ["int1", TIME, "lab_1"], ["int2", TIME, ""]]
    return "".join(separator.join(row) + end for row in rows)


JSON = [{"integrator_id": "int1", "expected_by": TIME, "lab_id": "lab_1"}]
JSON += [{"integrator_id": "int2", "expected_by": TIME}]

FORMS = {
    "commas": table(","),
    "semicolons, as Excel saves it": "\ufeff" + table(";", "\r\n"),
    "semicolons and their name": "sep=;\r\n" + table(";", "\r\n"),
    "tabs": table("\t"),
    "cells beyond the last": table(",").replace("Z,\n", "Z,,,\n"),
    "empty rows": table(",").replace("\n", "\n,,\n\n"),
    "quotes": table(",").replace("int1", '"int1"'),
    "spaces": table(" , "),
    "JSON Lines": "\n".join(map(json.dumps, JSON)),
    "a JSON array": json.dumps(JSON, indent=1),
    "JSON one after the other": "".join(json.dumps(one, indent=1) for one in JSON),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("form", FORMS)
def test_a_list_is_read_as_it_was_saved(form: str, encoding: str) -> None:
    text = FORMS[form]
    content = (text if encoding == "utf-8" else text.removeprefix("\ufeff")).encode(encoding)
    assert read(content) == [ONE, TWO]
    assert read(gzip.compress(content)) == [ONE, TWO]


@pytest.mark.parametrize("integrator_id", ["=1+1", "-5", "@x", "'=1", "'x", "+"])
def test_an_id_that_was_made_neutral_for_a_spreadsheet_is_what_it_was(integrator_id: str) -> None:
    content = f"integrator_id,expected_by\n{neutral(integrator_id)},{TIME}\n"
    assert read(content.encode()) == [Expectation(integrator_id, MOMENT)]


@pytest.mark.parametrize(
    "time", ["01/02/2026 10:00", "2026-01-01", "2026-01-01T00:00:00", "soon", "45658", "1767225600"]
)
def test_a_time_without_its_zone_is_refused_with_its_line_and_an_example(time: str) -> None:
    one, refused = read(f"integrator_id,expected_by\nint2,{TIME}\nint4,{time}\n".encode())
    assert one == TWO
    assert isinstance(refused, Refused)
    assert refused.line == 3
    assert "2026-02-01T10:00:00Z" in refused.detail


def test_a_time_with_another_zone_is_that_moment() -> None:
    content = b"integrator_id,expected_by\nint2,2026-01-01T05:30:00+05:30\n"
    assert read(content) == [TWO]


def test_lines_are_counted_as_an_editor_shows_them() -> None:
    content = b"sep=,\n\nintegrator_id,expected_by\n"
    with pytest.raises(ImportFileError, match="first line"):
        read(content)
    refused = read(b'sep=,\nintegrator_id,expected_by\n\n"a\nb",soon\n,soon\n')
    assert [one.line for one in refused if isinstance(one, Refused)] == [5, 6]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "integrator_id"),
        (b"id,when\n1,2\n", "a table"),
        (b"integrator_id,expected_by,labid\n", "labid"),
        (b"Hello\n", "plain text"),
        (b"PK\x05\x06" + bytes(18), "0 files"),
        (b"%PDF-1.4", "PDF"),
        (b"integrator_id,expected_by\nin\xe4t,2026-01-01T00:00:00Z\n", "UTF-8"),
        (b"integrator_id,expected_by\n" + b"x" * 500_000, "field larger than field limit"),
        (b'{"integrator_id": ', "cut off or broken"),
    ],
)
def test_a_file_that_is_no_list_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(ImportFileError, match=words):
        read(content)
