from __future__ import annotations

import json
from typing import Any

import pytest

from ledger.model.event import (
    BillData,
    BillEvent,
    Data,
    Event,
    event_columns,
    read_event,
)
from ledger.model.event import (
    Test as OneTest,
)
from ledger.model.json_text import MAX_DEPTH
from ledger.model.unreadable import REASONS, Unreadable

TIME = 1_705_747_800
ABSENT = object()
KNOWN = ["bill.created", "report.completed", "bill.completed", "bill.deleted"]


def body(**fields: object) -> bytes:
    """Make a readable body in which some fields of the envelope are others."""
    envelope = {"labID": "L", "eventType": "bill.created", "eventTime": TIME}
    return _without_absent({**envelope, "data": {"billID": "B"}, **fields})


def body_with_data(**fields: object) -> bytes:
    return body(data=_present({"billID": "B", **fields}))


def body_with_bill_data(**fields: object) -> bytes:
    return body_with_data(billData=fields)


def body_with_text(text: str, **fields: object) -> bytes:
    """Make a readable body with one more member, given as JSON text."""
    return body(**fields)[:-1] + b', "more": ' + text.encode() + b"}"


def _present(fields: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in fields.items() if value is not ABSENT}


def _without_absent(fields: dict[str, object]) -> bytes:
    return json.dumps(_present(fields)).encode()


def unreadable(body: bytes) -> tuple[str, str]:
    found = read_event(body)
    assert isinstance(found, Unreadable), found
    assert found.reason in REASONS
    assert event_columns(body).unreadable == found
    return found.reason, found.path


def is_readable(body: bytes) -> bool:
    return isinstance(read_event(body), BillEvent) and event_columns(body).unreadable is None


# --- readable ---------------------------------------------------------------------------------


@pytest.mark.parametrize("event_type", KNOWN)
def test_the_documented_payload_is_read(event_type: str) -> None:
    payload = {
        "labID": "lab_67890",
        "eventType": event_type,
        "eventTime": 1705747800,
        "data": {
            "billID": "bill_12345",
            "integratorID": "your_unique_integrator_id",
            "billData": {
                "status": "completed",
                "testData": [{"_id": "test_001", "status": "completed"}, {"_id": "test_002"}],
            },
            "reportURL": "https://reports.flabs.in/bill/bill_12345",
        },
    }
    assert read_event(json.dumps(payload).encode()) == BillEvent(
        lab_id="lab_67890",
        event_type=event_type,
        event_time=1705747800,
        data=Data(
            bill_id="bill_12345",
            integrator_id="your_unique_integrator_id",
            bill_data=BillData(
                "completed", [OneTest("test_001", "completed"), OneTest("test_002")]
            ),
            report_url="https://reports.flabs.in/bill/bill_12345",
        ),
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(body(), id="no-optional-part"),
        pytest.param(body_with_data(integratorID=None), id="integrator-null"),
        pytest.param(body_with_data(integratorID=""), id="integrator-empty"),
        pytest.param(body_with_data(reportURL=None), id="url-null"),
        pytest.param(body_with_data(reportURL="not an address"), id="url-of-any-form"),
        pytest.param(body_with_data(reportURL="x" * 5000), id="url-of-any-length"),
        pytest.param(body_with_data(billData=None), id="bill-data-null"),
        pytest.param(body_with_bill_data(), id="bill-data-empty"),
        pytest.param(body_with_bill_data(status=None, testData=None), id="parts-null"),
        pytest.param(body_with_bill_data(status="", testData=[]), id="parts-empty"),
        pytest.param(body_with_bill_data(testData=[{"_id": "a"}]), id="test-without-status"),
        pytest.param(
            body_with_bill_data(testData=[{"_id": "a", "status": None}]), id="test-status-null"
        ),
        pytest.param(body(labID="i" * 200), id="id-of-200-characters"),
        pytest.param(body(labID="\U0001f600" * 200), id="id-of-200-characters-beyond-16-bits"),
        pytest.param(body(labID=" "), id="id-of-white-space"),
        pytest.param(body(eventTime=946_684_800), id="the-year-2000-begins"),
        pytest.param(body(eventTime=4_133_980_799), id="the-year-2100-ends"),
        pytest.param(b" \n\t\r" + body() + b" \n\t\r", id="white-space-around"),
        pytest.param(body(unknown={"a": [1]}), id="an-unknown-field"),
        pytest.param(body_with_data(unknown=1), id="an-unknown-field-of-data"),
        pytest.param(body_with_bill_data(unknown=1), id="an-unknown-field-of-bill-data"),
        pytest.param(
            body_with_bill_data(testData=[{"_id": "a", "name": 1}]), id="an-unknown-field-of-a-test"
        ),
        pytest.param(body_with_text('"\\ud800"'), id="lone-surrogate-ignored"),
        pytest.param(body()[:-1] + b', "\\ud800": 1}', id="lone-surrogate-in-the-name-of-a-field"),
        pytest.param(body_with_text('"\\u0000"'), id="nul-ignored"),
        pytest.param(body_with_text("1e400"), id="a-number-past-any-float-ignored"),
        pytest.param(body_with_text("9" * 5000), id="a-very-long-number-ignored"),
        pytest.param(body_with_text("[" * 199 + "]" * 199), id="as-deep-as-may-be"),
        pytest.param(body_with_text('"' + "[" * 900 + '\\"{{"'), id="brackets-in-a-string"),
        pytest.param(body_with_text("[" + "[]," * 900 + "{}]"), id="many-brackets-not-nested"),
        pytest.param(b'{"labID": 5, ' + body()[1:], id="of-a-key-given-twice-the-last"),
    ],
)
def test_readable(text: bytes) -> None:
    assert is_readable(text), read_event(text)


# --- of another type --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event_type", ["lead.created", "booking.created", "Bill.Created", "bill.created ", "x" * 200]
)
def test_an_event_of_another_type_is_read_and_is_no_bill_event(event_type: str) -> None:
    text = body(eventType=event_type)
    assert read_event(text) == Event(lab_id="L", event_type=event_type, event_time=TIME)
    assert event_columns(text).unreadable is None


@pytest.mark.parametrize(
    "data", [ABSENT, None, 1, [], {}, {"billID": 5}, "\udc00", {"billID": "\0", "x": "\ud800"}]
)
def test_of_an_event_of_another_type_only_the_envelope_counts(data: object) -> None:
    assert type(read_event(body(eventType="lead.created", data=data))) is Event


@pytest.mark.parametrize(
    ("fields", "reason", "path"),
    [
        ({"labID": ""}, "out_of_range", "$.labID"),
        ({"eventTime": None}, "wrong_type", "$.eventTime"),
        ({"eventTime": "1705747800"}, "wrong_type", "$.eventTime"),
        ({"labID": "\0"}, "forbidden_character", "$.labID"),
        ({"eventType": "lead\0"}, "forbidden_character", "$.eventType"),
    ],
)
def test_the_envelope_of_another_type_must_be_right(
    fields: dict[str, Any], reason: str, path: str
) -> None:
    assert unreadable(body(**{"eventType": "lead.created", **fields})) == (reason, path)


# --- unreadable -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b" ", id="white-space"),
        pytest.param(b"nonsense", id="words"),
        pytest.param(body()[:-1], id="cut-off"),
        pytest.param(body() + b"x", id="something-after-it"),
        pytest.param(body() + body(), id="two-of-them"),
        pytest.param(body() + b"\0", id="a-byte-nul-after-it"),
        pytest.param(b"\xef\xbb\xbf" + body(), id="a-byte-order-mark"),
        pytest.param(body().decode().encode("utf-16"), id="utf-16"),
        pytest.param(body()[:-1] + b', "more": "\xff"}', id="not-utf-8-in-an-ignored-field"),
        pytest.param(body()[:-1] + b', "more": "\xed\xa0\x80"}', id="utf-8-of-half-a-pair"),
        pytest.param(body_with_text("NaN"), id="nan"),
        pytest.param(body_with_text("-Infinity"), id="infinity"),
        pytest.param(body_with_text("01"), id="a-number-with-a-leading-zero"),
        pytest.param(body_with_text('"\n"'), id="a-raw-line-break-in-a-string"),
        pytest.param(body_with_text('"\\x41"'), id="an-unknown-escape"),
        pytest.param(body_with_text("1,"), id="a-trailing-comma"),
        pytest.param(body_with_text("'1'"), id="other-quotes"),
    ],
)
def test_not_json(text: bytes) -> None:
    assert unreadable(text) == ("not_json", "$")


@pytest.mark.parametrize("text", [b"null", b"[]", b'"x"', b"1", b"true", b"[" + body() + b"]"])
def test_not_an_object(text: bytes) -> None:
    assert unreadable(text) == ("not_an_object", "$")


@pytest.mark.parametrize("deep", ["[" * 200 + "]" * 200, "[" * 100_000, '{"a":' * 900])
def test_nested_too_deeply(deep: str) -> None:
    assert unreadable(body_with_text(deep)) == ("nested_too_deeply", "$")


@pytest.mark.parametrize(
    "event",
    [
        b'{"labID":"L","eventType":"bill.created","eventTime":946684800,"":%s,"data":{"billID":"B"}}',
        b'{"labID":"L","eventType":"bill.created","eventTime":946684800,"data":{"billID":"B","":%s}}',
    ],
)
def test_the_shortest_event_that_nests_too_deeply(event: bytes) -> None:
    depth = MAX_DEPTH - event[: event.index(b"%s")].count(b"{")
    assert is_readable(event % (b"[" * depth + b"]" * depth))
    deeper = event % (b"[" * (depth + 1) + b"]" * (depth + 1))
    assert unreadable(deeper) == ("nested_too_deeply", "$")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b"{}", "$.labID"),
        (body(labID=ABSENT), "$.labID"),
        (body(eventType=ABSENT), "$.eventType"),
        (body(eventTime=ABSENT), "$.eventTime"),
        (body(data=ABSENT), "$.data"),
        (body_with_data(billID=ABSENT), "$.data.billID"),
        (
            body_with_bill_data(testData=[{"status": "completed"}]),
            "$.data.billData.testData[0]._id",
        ),
    ],
)
def test_missing_field(text: bytes, path: str) -> None:
    assert unreadable(text) == ("missing_field", path)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (body(labID=None), "$.labID"),
        (body(labID=5), "$.labID"),
        (body(eventType=["bill.created"]), "$.eventType"),
        (body(eventTime="1705747800"), "$.eventTime"),
        (body(eventTime=1705747800.0), "$.eventTime"),
        (body(eventTime=True), "$.eventTime"),
        (body(eventTime=None), "$.eventTime"),
        (body(data=None), "$.data"),
        (body(data=[]), "$.data"),
        (body(data="text"), "$.data"),
        (body(data="\udc00"), "$.data"),
        (body_with_data(billID=None), "$.data.billID"),
        (body_with_data(billID=12345), "$.data.billID"),
        (body_with_data(integratorID=7), "$.data.integratorID"),
        (body_with_data(reportURL={}), "$.data.reportURL"),
        (body_with_data(billData=[]), "$.data.billData"),
        (body_with_data(billData="completed"), "$.data.billData"),
        (body_with_bill_data(status=1), "$.data.billData.status"),
        (body_with_bill_data(status=False), "$.data.billData.status"),
        (body_with_bill_data(testData={}), "$.data.billData.testData"),
        (body_with_bill_data(testData="a"), "$.data.billData.testData"),
        (body_with_bill_data(testData=[None]), "$.data.billData.testData[0]"),
        (body_with_bill_data(testData=["a"]), "$.data.billData.testData[0]"),
        (body_with_bill_data(testData=[{"_id": 1}]), "$.data.billData.testData[0]._id"),
        (
            body_with_bill_data(testData=[{"_id": "a", "status": 1}]),
            "$.data.billData.testData[0].status",
        ),
    ],
)
def test_wrong_type(text: bytes, path: str) -> None:
    assert unreadable(text) == ("wrong_type", path)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (body(labID=""), "$.labID"),
        (body(labID="i" * 201), "$.labID"),
        (body(eventType=""), "$.eventType"),
        (body(eventType="x" * 201), "$.eventType"),
        (body(eventTime=946_684_799), "$.eventTime"),
        (body(eventTime=4_133_980_800), "$.eventTime"),
        (body(eventTime=1_705_747_800_000), "$.eventTime"),
        (body(eventTime=-1), "$.eventTime"),
        (body(eventTime=2**64), "$.eventTime"),
        (body(eventTime=10**400), "$.eventTime"),
        (body_with_data(billID=""), "$.data.billID"),
        (body_with_data(billID="i" * 201), "$.data.billID"),
        (body_with_data(integratorID="i" * 201), "$.data.integratorID"),
        (body_with_bill_data(testData=[{"_id": ""}]), "$.data.billData.testData[0]._id"),
        (body_with_bill_data(testData=[{"_id": "i" * 201}]), "$.data.billData.testData[0]._id"),
    ],
)
def test_out_of_range(text: bytes, path: str) -> None:
    assert unreadable(text) == ("out_of_range", path)


@pytest.mark.parametrize("character", [chr(0), chr(0xD800), chr(0xDFFF)])
def test_forbidden_character(character: str) -> None:
    held = f"a{character}b"
    assert unreadable(body(labID=held)) == ("forbidden_character", "$.labID")
    assert unreadable(body(eventType=held)) == ("forbidden_character", "$.eventType")
    assert unreadable(body_with_data(billID=held)) == ("forbidden_character", "$.data.billID")
    assert unreadable(body_with_data(integratorID=held)) == (
        "forbidden_character",
        "$.data.integratorID",
    )
    assert unreadable(body_with_data(reportURL=held)) == (
        "forbidden_character",
        "$.data.reportURL",
    )
    assert unreadable(body_with_bill_data(status=held)) == (
        "forbidden_character",
        "$.data.billData.status",
    )
    tests: list[dict[str, object]] = [{"_id": "a"}, {"_id": held}]
    assert unreadable(body_with_bill_data(testData=tests)) == (
        "forbidden_character",
        "$.data.billData.testData[1]._id",
    )
    tests = [{"_id": "a"}, {"_id": "b", "status": held}]
    assert unreadable(body_with_bill_data(testData=tests)) == (
        "forbidden_character",
        "$.data.billData.testData[1].status",
    )


# --- what the log's columns hold --------------------------------------------------------------


def test_columns_of_a_readable_body() -> None:
    found = event_columns(body())
    assert (found.lab_id, found.bill_id) == ("L", "B")
    assert (found.event_type, found.event_time) == ("bill.created", TIME)


def test_columns_of_an_event_of_another_type_name_its_bill_if_it_has_one() -> None:
    assert event_columns(body(eventType="lead.created")).bill_id == "B"
    assert event_columns(body(eventType="lead.created", data=None)).bill_id == ""


def test_columns_of_an_unreadable_body_hold_what_is_right_in_it() -> None:
    found = event_columns(body(eventTime="soon"))
    assert (found.lab_id, found.bill_id) == ("L", "B")
    assert (found.event_type, found.event_time) == ("bill.created", None)
    found = event_columns(body(labID=5, data="B"))
    assert (found.lab_id, found.bill_id) == ("", "")
    assert (found.event_type, found.event_time) == ("bill.created", TIME)


@pytest.mark.parametrize("wrong", ["", "i" * 201, "a\0", "a\ud800", 5, None, ["L"]])
def test_columns_hold_no_identifier_that_breaks_the_rule(wrong: object) -> None:
    found = event_columns(body(labID=wrong, eventType=wrong, data={"billID": wrong}))
    assert (found.lab_id, found.event_type, found.bill_id) == ("", "", "")


@pytest.mark.parametrize("text", [b"", b"nonsense", b"[]", b"1", b'"labID"', b"\xff", b"[" * 999])
def test_columns_of_what_is_no_object_are_empty(text: bytes) -> None:
    found = event_columns(text)
    assert (found.lab_id, found.bill_id, found.event_type, found.event_time) == ("", "", "", None)
