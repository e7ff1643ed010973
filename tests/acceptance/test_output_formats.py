"""The report and the support request in each of their forms, hostile identifiers included."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import openpyxl
import pytest

from tests.support.answers import assert_problem
from tests.support.operations import AT_ONCE, HOSTILE, Desk, lost_report

TYPES = {
    "json": "application/json",
    "csv": "text/csv",
    "markdown": "text/markdown",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "text": "text/plain",
}
PLAIN = [text for text in HOSTILE if text.isprintable() and not set(text) & set(' "|_\\`')]


@pytest.fixture(scope="module")
def desk(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a server where bills with hostile names miss a report, which is asked for twice."""
    folder = tmp_path_factory.mktemp("desk")
    settings = {**AT_ONCE, "LEDGER_ASK_AGAIN_AFTER": "0"}
    with Desk(module_database_url, folder, settings=settings) as started:
        for text in HOSTILE:
            started.record(*lost_report(text, text, test=text, integrator=text))
        started.settle()
        for _ in range(2):
            answer = started.api.post(
                "/v1/support-requests",
                json={"note": "=1+1|<b>\n# for support"},
                headers={"Ledger-Operator": "ann <b>|</b> @SUM(A1)"},
            )
            assert len(answer.json()["lines"]) == len(HOSTILE)
        yield started


DOCUMENTS = ["/v1/reconciliation", "/v1/support-requests/1", "/v1/support-requests/2"]
each_document = pytest.mark.parametrize("path", DOCUMENTS)


@each_document
@pytest.mark.parametrize("form", TYPES)
def test_a_document_has_each_form_by_name_and_by_accept(desk: Desk, path: str, form: str) -> None:
    for answer in (
        desk.get(path, format=form),
        desk.api.get(path, headers={"Accept": f"application/pdf, {TYPES[form]};q=0.5"}),
        desk.api.get(path, params={"format": form}, headers={"Accept": "application/pdf"}),
    ):
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith(TYPES[form])
        assert int(answer.headers["Ledger-Position"]) == desk.head()
        assert answer.content


@each_document
def test_a_form_that_there_is_not_is_refused(desk: Desk, path: str) -> None:
    assert "csv" in assert_problem(desk.get(path, format="pdf"), 400)
    for accept in ("application/pdf", "text/html", "text/csv;q=0"):
        answer = desk.api.get(path, headers={"Accept": accept})
        assert "text/csv" in assert_problem(answer, 406)
    for accept in ("*/*", "application/*", "text/html, */*;q=0.1"):
        answer = desk.api.get(path, headers={"Accept": accept})
        assert answer.headers["content-type"] == "application/json"


def rows_of(desk: Desk, path: str) -> list[dict[str, str]]:
    text = desk.get(path, format="csv").content.decode()
    return [
        row
        for row in csv.DictReader(io.StringIO(text, newline=""))
        if row["kind"] == "missing_event"
    ]


@each_document
def test_csv_holds_every_id_and_no_formula(desk: Desk, path: str) -> None:
    rows = rows_of(desk, path)
    assert len(rows) == len(HOSTILE)
    for row in rows:
        assert None not in row
        assert None not in row.values()
        for name in ("lab_id", "bill_id", "integrator_id", "test_id"):
            assert row[name] == row["bill_id"]
            assert row[name][0] not in "=+-@\t\r\n"
    kept = {row["bill_id"] for row in rows}
    assert not [text for text in HOSTILE if not {text, f"'{text}"} & kept]
    items = desk.report()["missing_events"]
    if path == "/v1/reconciliation":
        for row, item in zip(rows, items, strict=True):
            assert row["bill_id"] in {item["bill_id"], f"'{item['bill_id']}"}
            assert (row["due_at"], row["request"]) == (item["due_at"], str(item["request"]))


@each_document
def test_a_spreadsheet_holds_every_id_as_text(desk: Desk, path: str) -> None:
    book = openpyxl.load_workbook(io.BytesIO(desk.get(path, format="xlsx").content))
    cells: list[Any] = [cell for sheet in book for row in sheet.iter_rows() for cell in row]
    assert not {cell.data_type for cell in cells} & {"f", "e"}
    assert not [cell for cell in cells if cell.hyperlink]
    told = Counter(cell.value for cell in cells)
    assert not [text for text in PLAIN if told[text] < 3]


@pytest.mark.parametrize("path", [DOCUMENTS[0], DOCUMENTS[2]])
def test_no_id_breaks_out_of_its_place_in_markdown(desk: Desk, path: str) -> None:
    text = desk.get(path, format="markdown").content.decode()
    lines = text.split("\n")
    assert not [line for line in lines if not line.isprintable()]
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text)
    for mark in ("<", "](", "[bold]", "=1+1", "*b*"):
        assert mark not in outside.replace("&lt;", "").replace(r"\<", "")
    table = [line for line in lines if line.startswith("| ")]
    bars = {re.sub(r"`+[^`]*`+", "", line).replace(r"\|", "").count("|") for line in table}
    assert len(table) >= len(HOSTILE)
    assert len(bars) <= 4
    for hostile in PLAIN:
        assert f"`{hostile}`" in text, hostile
    headings = [line for line in lines if line.startswith("# ")]
    assert len(headings) == 1


@each_document
def test_no_id_does_anything_to_a_terminal(desk: Desk, path: str) -> None:
    text = desk.get(path, format="text").content.decode()
    assert not [line for line in text.split("\n") if not line.isprintable()]
    assert "[bold]" in text


def test_a_letter_holds_what_support_needs_and_not_what_is_ours(desk: Desk) -> None:
    first = desk.get("/v1/support-requests/1", format="markdown").text
    letter = desk.get("/v1/support-requests/2", format="markdown").text
    assert "\n> `# for support`\n" in letter
    for word in ("labID", "billID", "integratorID", "eventType", "testData", "eventTime"):
        assert word in letter
    assert letter.count("`report.completed`") >= len(HOSTILE)
    assert letter.count("2024-01-20 10:51:00 UTC") >= len(HOSTILE)
    assert letter.count("request 1") >= len(HOSTILE)
    assert "JSON" in letter
    assert "`report.completed`" not in first  # all of it is asked for in the second
    for inner in ("position", "digest", "certain |", "overdue"):
        assert inner not in letter


def test_csv_of_a_request_tells_what_came_of_each_line(desk: Desk) -> None:
    for number, state in ((1, "closed"), (2, "requested")):
        rows = rows_of(desk, f"/v1/support-requests/{number}")
        asked = desk.asked(number)
        assert {row["state"] for row in rows} == {state}
        for row, line in zip(rows, asked["lines"], strict=True):
            assert row["made_at"] == asked["made_at"]
            assert row["previous"] == str(line["previous"] or "")
            assert row["evidence_position"] == str(line["evidence"]["position"])
