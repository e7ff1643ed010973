"""The JSON Schema of the webhook and the code agree on what is readable."""

import copy
import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ledger.model.event import RANK, BillEvent, read_event
from ledger.model.unreadable import Unreadable
from tests.support.server import ROOT, LedgerServer

SCHEMA: dict[str, Any] = json.loads((ROOT / "api_schema" / "webhook.json").read_bytes())
EXAMPLE: dict[str, Any] = SCHEMA["examples"][0]
GONE = object()


def changed(path: str, value: object) -> dict[str, Any]:
    """Give the example with one part replaced, or taken away."""
    made = copy.deepcopy(EXAMPLE)
    *way, last = path.split(".")
    place: Any = made
    for step in way:
        place = place[int(step) if step.isdigit() else step]
    if value is GONE:
        del place[last]
    else:
        place[int(last) if last.isdigit() else last] = value
    return made


GOOD = [
    EXAMPLE,
    changed("labID", "x" * 200),
    changed("labID", "\U0001f9ea" * 200),
    changed("eventTime", 946_684_800),
    changed("eventTime", 4_102_444_799),
    *(changed("eventType", kind) for kind in RANK),
    changed("more", {"any": ["thing"]}),
    *(changed(f"data.{name}", None) for name in ("integratorID", "reportURL", "billData")),
    *(changed(f"data.{name}", GONE) for name in ("integratorID", "reportURL", "billData")),
    changed("data.integratorID", ""),
    changed("data.reportURL", ""),
    changed("data.billData", {}),
    changed("data.billData.status", None),
    changed("data.billData.status", "anything"),
    changed("data.billData.testData", None),
    changed("data.billData.testData", []),
    changed("data.billData.testData", [{"_id": "t"}]),
    changed("data.billData.testData.0.status", None),
    changed("data.billData.testData.0.more", 1),
]
BAD: list[object] = [
    [], 1, "text", None, {},
    *(changed(name, GONE) for name in ("labID", "eventType", "eventTime", "data", "data.billID")),
    *(changed(name, "") for name in ("labID", "eventType", "data.billID")),
    *(changed(name, 5) for name in ("labID", "eventType", "data.billID", "data", "data.reportURL")),
    *(changed(name, None) for name in ("labID", "eventType", "eventTime", "data", "data.billID")),
    *(changed(name, "x" * 201) for name in ("labID", "data.billID", "data.integratorID")),
    *(changed("eventTime", value) for value in ("1705747800", 1.5, True, 0, -1, 946_684_799)),
    *(changed("eventTime", value) for value in (4_133_980_800, 10**12, 10**30)),
    changed("data.integratorID", 7),
    changed("data.billData", []),
    changed("data.billData.status", 1),
    changed("data.billData.testData", {}),
    changed("data.billData.testData", [None]),
    changed("data.billData.testData", ["t"]),
    changed("data.billData.testData", [{}]),
    changed("data.billData.testData.0._id", ""),
    changed("data.billData.testData.0._id", 4),
    changed("data.billData.testData.0._id", "x" * 201),
    changed("data.billData.testData.0.status", 0),
]  # fmt: skip


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["examples"]


@pytest.mark.parametrize("body", GOOD, ids=range(len(GOOD)))
def test_what_the_schema_accepts_is_readable(body: object) -> None:
    Draft202012Validator(SCHEMA).validate(body)
    assert isinstance(read_event(json.dumps(body).encode()), BillEvent)


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
def test_what_the_schema_refuses_is_unreadable(body: object) -> None:
    assert not Draft202012Validator(SCHEMA).is_valid(body)
    assert isinstance(read_event(json.dumps(body).encode()), Unreadable)


def test_the_examples_of_the_schema_are_recorded_by_the_server(server: LedgerServer) -> None:
    for example in SCHEMA["examples"]:
        assert server.send(example).json()["outcome"] == "recorded"
