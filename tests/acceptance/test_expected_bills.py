"""Expected bills: told one by one or in a file, awaited, unseen, and settled by an event."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.support.answers import assert_problem
from tests.support.commands import assert_sentence
from tests.support.operations import AT_ONCE, HOSTILE, Desk, Item
from tests.support.payloads import event, lines
from tests.support.server import wait_until

BILLS = "/v1/expected-bills"
PAST = "2024-01-20T10:50:00Z"
FUTURE = "2090-01-20T10:50:00Z"


@pytest.fixture(scope="module")
def desk(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a server."""
    folder = tmp_path_factory.mktemp("desk")
    with Desk(module_database_url, folder, settings=AT_ONCE) as started:
        yield started


def expect(desk: Desk, integrator: str, **body: object) -> httpx.Response:
    return desk.put(f"{BILLS}/{quote(integrator, safe='')}", **body)


def states(desk: Desk, prefix: str, **filters: object) -> dict[str, str]:
    return {
        item["integrator_id"].removeprefix(prefix): item["state"]
        for item in desk.items(BILLS, **filters)
        if item["integrator_id"].startswith(prefix)
    }


def unseen(desk: Desk, prefix: str, **question: object) -> list[str]:
    return [
        item["integrator_id"].removeprefix(prefix)
        for item in desk.report(**question)["unseen_bills"]
        if item["integrator_id"].startswith(prefix)
    ]


# --- states -----------------------------------------------------------------------------------


def test_a_bill_is_awaited_until_its_time_then_unseen_until_an_event_comes(
    desk: Desk, lab: str
) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    answer = expect(desk, lab, expected_by=soon, lab_id=lab)
    item = {"integrator_id": lab, "lab_id": lab, "expected_by": soon, "state": "awaited"}
    assert (answer.status_code, answer.json()) == (200, item)
    assert unseen(desk, lab) == []
    wait_until(lambda: states(desk, lab, state="unseen"), "it is unseen")
    assert states(desk, lab, state="awaited") == {}
    assert {"integrator_id": lab, "lab_id": lab, "expected_by": soon} in desk.report()[
        "unseen_bills"
    ]
    desk.record(event(lab, "b", integrator=lab))
    desk.settle()
    assert states(desk, lab) == {"": "seen"}
    assert states(desk, lab, state="unseen") == {}
    assert unseen(desk, lab) == []


def test_an_event_that_came_first_counts(desk: Desk, lab: str) -> None:
    desk.record(event(lab, "b", "report.completed", integrator=lab))
    desk.settle()
    assert expect(desk, lab, expected_by=PAST).json()["state"] == "seen"
    assert unseen(desk, lab) == []


def test_an_event_of_an_import_counts_and_an_unreadable_one_does_not(desk: Desk, lab: str) -> None:
    expect(desk, f"{lab}1", expected_by=PAST)
    expect(desk, f"{lab}2", expected_by=PAST)
    broken = {**event(lab, "b", integrator=f"{lab}2"), "eventTime": "now"}
    content = lines(event(lab, "b", integrator=f"{lab}1"), broken)
    assert desk.api.post("/v1/imports", content=content).status_code == 200
    assert states(desk, lab) == {"1": "seen", "2": "unseen"}


def test_the_last_word_on_a_bill_counts(desk: Desk, lab: str) -> None:
    assert expect(desk, lab, expected_by=PAST).json()["state"] == "unseen"
    assert expect(desk, lab, expected_by=FUTURE).json()["state"] == "awaited"
    assert unseen(desk, lab) == []
    assert expect(desk, lab, expected_by="2024-01-20T12:50:00+02:00", lab_id=lab).json() == {
        "integrator_id": lab,
        "lab_id": lab,
        "expected_by": PAST,
        "state": "unseen",
    }
    assert unseen(desk, lab) == [""]
    assert desk.api.delete(f"{BILLS}/{lab}").status_code == 204
    assert (states(desk, lab), unseen(desk, lab)) == ({}, [])
    assert_problem(desk.api.delete(f"{BILLS}/{lab}"), 404)
    assert expect(desk, lab, expected_by=PAST).json()["state"] == "unseen"


def test_expected_bills_are_listed_by_state_and_lab_and_in_parts(desk: Desk, lab: str) -> None:
    for number in range(4):
        expect(desk, f"{lab}{number}", expected_by=(PAST, FUTURE)[number % 2], lab_id=lab)
    expect(desk, f"{lab}other", expected_by=PAST, lab_id=f"{lab}-other")
    desk.record(event(lab, "b", integrator=f"{lab}2"))
    desk.settle()
    for limit in (1, 3, 1000):
        assert list(states(desk, lab, lab_id=lab, limit=limit)) == ["0", "2", "1", "3"]
        assert list(states(desk, lab, state="awaited", limit=limit)) == ["1", "3"]
        assert list(states(desk, lab, state="unseen", limit=limit)) == ["0", "other"]
        assert list(states(desk, lab, state="seen", lab_id=lab, limit=limit)) == ["2"]
    assert unseen(desk, lab, lab_id=lab) == ["0"]
    assert "unseen" in assert_problem(desk.get(BILLS, state="lost"), 400)


def test_ids_of_any_characters_are_expected(desk: Desk, lab: str) -> None:
    ids = [f"{lab}{text}"[:200] for text in ("/", "a/b", "..", "%2F", "#?", *HOSTILE)]
    for integrator in ids:
        answer = expect(desk, integrator, expected_by=PAST)
        assert (answer.status_code, answer.json()["integrator_id"]) == (200, integrator)
    desk.record(*(event(lab, f"b{place}", integrator=text) for place, text in enumerate(ids)))
    desk.settle()
    assert set(states(desk, lab).values()) == {"seen"}
    for integrator in ids:
        assert desk.api.delete(f"{BILLS}/{quote(integrator, safe='')}").status_code == 204


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_http", [True, False])
@pytest.mark.parametrize("form", ["csv", "csv of Excel", "json lines"])
def test_a_file_of_expected_bills_is_taken_and_may_be_taken_again(
    desk: Desk, lab: str, tmp_path: Path, form: str, *, by_http: bool
) -> None:
    said: list[Item] = [
        {"integrator_id": f'{lab}"1,', "expected_by": PAST, "lab_id": lab},
        {"integrator_id": f"{lab}2", "expected_by": FUTURE},
    ]
    quoted = f'"{lab}""1,"'
    content = {
        "csv": f"integrator_id,expected_by,lab_id\n{quoted},{PAST},{lab}\n{lab}2,{FUTURE},\n",
        "csv of Excel": f"\ufefflab_id,integrator_id,expected_by\r\n{lab},{quoted},{PAST}\r\n"
        f",{lab}2,{FUTURE}\r\n",
        "json lines": "\n".join(map(json.dumps, said)),
    }[form].encode()
    for _ in range(2):
        if by_http:
            answer = desk.api.post(BILLS, content=content)
            assert (answer.status_code, answer.json()) == (200, {"expected": 2, "refused": []})
        else:
            file = tmp_path / "expected"
            file.write_bytes(content)
            done = desk.run("import", "--expected-bills", str(file))
            assert (done.returncode, done.stdout) == (0, b"expected 2, refused 0\n")
        assert states(desk, lab) == {'"1,': "unseen", "2": "awaited"}
        assert list(states(desk, lab, lab_id=lab)) == ['"1,']


@pytest.mark.parametrize(
    ("lines_of_file", "refused"),
    [
        (["integrator_id,expected_by", "{}1," + PAST, "," + PAST, "{}3,soon", "{}4"], [3, 4, 5]),
        (
            [
                '{{"integrator_id": "{}1", "expected_by": "' + PAST + '"}}',
                "{{broken",
                '{{"integrator_id": "{}3"}}',
                '{{"integrator_id": "{}4", "expected_by": "2024-01-20T10:50:00"}}',
                '{{"integrator_id": "{}5", "expected_by": "0001-01-01T00:00:00+14:00"}}',
                '{{"integrator_id": "{}6", "expected_by": "2024-01-20T10:50:00+16:00"}}',
            ],
            [2, 3, 4, 5, 6],
        ),
    ],
    ids=["csv", "json lines"],
)
def test_lines_that_say_nothing_are_named_and_the_others_are_taken(
    desk: Desk, lab: str, lines_of_file: list[str], refused: list[int]
) -> None:
    content = "\n".join(line.format(lab) for line in lines_of_file).encode()
    said = desk.api.post(BILLS, content=content).json()
    assert (said["expected"], [line["line"] for line in said["refused"]]) == (1, refused)
    assert all(line["detail"] for line in said["refused"])
    assert states(desk, lab) == {"1": "unseen"}
    done = desk.run("import", "--expected-bills", "-", stdin=content)
    assert_sentence(done, *(f"line {number}" for number in refused))


@pytest.mark.parametrize(
    "content", [b"", b"foo,bar\n1,2\n", b"\xff\xfe\x00", b"integrator_id|expected_by\n"]
)
def test_a_file_that_says_nothing_is_refused(desk: Desk, content: bytes) -> None:
    assert "expected_by" in assert_problem(
        desk.api.post(BILLS, content=content), 400
    ) or content.startswith(b"\xff")
    assert_sentence(desk.run("import", "--expected-bills", "-", stdin=content))


def test_a_column_that_is_not_known_is_no_expectation(desk: Desk, lab: str) -> None:
    content = f"integrator_id,expected_by,labid\n{lab},{PAST},{lab}\n".encode()
    answer = desk.api.post(BILLS, content=content)
    assert "labid" in answer.text
    assert states(desk, lab) == {}
    more = f'{{"integrator_id": "{lab}", "expected_by": "{PAST}", "labid": "{lab}"}}'
    assert "labid" in desk.api.post(BILLS, content=more).text
    assert states(desk, lab) == {}


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {}, {"expected_by": None}, {"expected_by": 1705747800}, {"expected_by": "tomorrow"},
        {"expected_by": "2024-01-20"}, {"expected_by": "2024-01-20T10:50:00"},
        {"expected_by": "0001-01-01T00:00:00+14:00"}, {"expected_by": "9999-12-31T23:59:59-14:00"},
        {"expected_by": "2024-01-20T10:50:00+16:00"}, {"expected_by": "2024-01-20T10:50:00-16:00"},
        {"expected_by": PAST, "lab_id": 1}, {"expected_by": PAST, "lab_id": ""},
        {"expected_by": PAST, "lab": "l"}, {"expected_by": PAST, "lab_id": "a\x00b"},
    ],
    ids=str,
)  # fmt: skip
def test_an_expectation_that_is_not_right_is_refused(desk: Desk, lab: str, body: Item) -> None:
    head = desk.head()
    assert_problem(expect(desk, lab, **body), 400)
    assert (desk.head(), states(desk, lab)) == (head, {})


@pytest.mark.parametrize("text", ["x" * 201, "%00", "a%00b", "%ff", "%ed%a0%80", "x" * 20_000])
def test_an_id_that_no_bill_can_have_is_not_expected(desk: Desk, text: str) -> None:
    head = desk.head()
    answer = desk.api.put(f"{BILLS}/{text}", json={"expected_by": PAST})
    assert answer.status_code in {400, 404, 414}, answer.text
    assert desk.head() == head
