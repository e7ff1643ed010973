"""Taking in what support sends: whole, broken, twice, and with other times."""

import gzip
import io
import json
import socket
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.support.answers import answers_of, assert_problem
from tests.support.commands import assert_sentence
from tests.support.operations import AT_ONCE, DONE, Desk, Item, found_report
from tests.support.payloads import BASE, Payload, distinct, event, lines
from tests.support.server import wait_until


@pytest.fixture(scope="module")
def desk(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a server for which all is overdue at once."""
    folder = tmp_path_factory.mktemp("desk")
    with Desk(module_database_url, folder, settings=AT_ONCE) as started:
        yield started


def take(desk: Desk, content: bytes, **how: bool) -> Item:
    answer = desk.api.post("/v1/imports", content=content, params=how)
    assert answer.status_code == 200, answer.text
    report: Item = answer.json()
    assert answer.headers["Ledger-Position"] == str(report["position"])
    assert report["position"] >= desk.head()
    return report


def counts(report: Item) -> tuple[int, int, int]:
    return report["recorded"], report["duplicate"], report["unreadable"]


# --- forms ------------------------------------------------------------------------------------


def written(form: str, payloads: list[Payload]) -> bytes:
    packed = form.startswith("gzip ")
    content = {
        "lines": lines(*payloads),
        "lines without a last end": lines(*payloads).rstrip(),
        "lines of Windows": b"\xef\xbb\xbf" + lines(*payloads).replace(b"\n", b"\r\n"),
        "lines with empty ones": b"\n \n" + lines(*payloads).replace(b"\n", b"\n\n"),
        "array": json.dumps(payloads).encode(),
        "array that is pretty": b"\n " + json.dumps(payloads, indent=4).encode() + b"\n\n",
        "array with a mark": b"\xef\xbb\xbf" + json.dumps(payloads, indent="\t").encode(),
        "values over many lines": b"\n".join(json.dumps(p, indent=2).encode() for p in payloads),
        "UTF-16": b"".join(map(lines, payloads)).decode().encode("utf-16"),
        "wrapper": json.dumps({"count": 3, "events": payloads}).encode(),
        "zip": lines(*payloads),
    }[form.removeprefix("gzip ")]
    if form == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("answer/", "")
            archive.writestr("answer/day.jsonl", content)
        return buffer.getvalue()
    return gzip.compress(content) if packed else content


FORMS = [
    "lines", "lines without a last end", "lines of Windows", "lines with empty ones", "array",
    "array that is pretty", "array with a mark", "gzip lines", "gzip array that is pretty",
    "values over many lines", "UTF-16", "gzip UTF-16", "wrapper", "zip",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("by_http", [True, False])
def test_payloads_are_taken_in_any_usual_form_and_once(
    desk: Desk, lab: str, form: str, *, by_http: bool
) -> None:
    payloads = distinct(lab, 3)
    payloads[1]["data"]["integratorID"] = 'a "[{\\]}\u2028, 漢字'
    content = written(form, payloads)
    for expected in ((3, 0, 0), (0, 3, 0)):
        if by_http:
            assert counts(take(desk, content)) == expected
        else:
            done = desk.run("import", "-", stdin=content)
            assert done.returncode == 0, done.stderr
            told = "recorded {}, duplicate {}, unreadable {}\n".format(*expected)
            assert done.stdout.decode().startswith(told)
    desk.settle()
    assert len(desk.items("/v1/bills", lab_id=lab)) == 3
    found = desk.items("/v1/bills", lab_id=lab, integrator_id='a "[{\\]}\u2028, 漢字')
    assert len(found) == 1


@pytest.mark.parametrize("content", [b"", b" \n\n", b"[]", b"[ ]\n", gzip.compress(b"", mtime=0)])
def test_a_file_with_nothing_in_it_is_no_error(desk: Desk, content: bytes) -> None:
    head = desk.head()
    assert counts(take(desk, content)) == (0, 0, 0)
    assert desk.run("import", "-", stdin=content).returncode == 0
    assert desk.head() == head


# --- what is broken ---------------------------------------------------------------------------


def test_a_broken_line_is_named_and_the_others_are_taken(desk: Desk, lab: str) -> None:
    first, second = (lines(payload) for payload in distinct(lab, 2))
    broken = f"{{broken {lab}\n".encode()
    content = first + b"\n" + broken + b'{"labID": "' + lab.encode() + b'"}\n' + second
    report = take(desk, content)
    assert counts(report) == (2, 0, 2)
    assert [(line["line"], line["reason"]) for line in report["unreadable_lines"]] == [
        (3, "not_json"),
        (4, "missing_field"),
    ]
    assert report["unreadable_lines"][1]["path"].startswith("$.")
    assert report["unreadable_recorded"] == 0
    head = desk.head()
    assert take(desk, content, keep_unreadable=True)["unreadable_recorded"] == 2
    kept = desk.items("/v1/events/unreadable")[-2:]
    assert [(item["source"], item["position"]) for item in kept] == [
        ("import", head + 1),
        ("import", head + 2),
    ]
    done = desk.run("import", "-", stdin=content)
    assert done.returncode == 0
    assert b"line 3" in done.stderr
    assert b"line 4" in done.stderr


def test_a_broken_element_of_an_array_is_named_and_the_others_are_taken(
    desk: Desk, lab: str
) -> None:
    first, second = distinct(lab, 2)
    content = json.dumps([first, 5, {"labID": lab}, None, second], indent=1)
    report = take(desk, content.encode())
    assert report["recorded"] == 2
    assert [line["line"] for line in report["unreadable_lines"]] == [2, 3, 4]
    broken = f"[{json.dumps(first)}, {{broken {lab}}}, {json.dumps(event(lab, 'after'))}]"
    report = take(desk, broken.encode())
    assert counts(report) == (1, 1, 1)
    assert report["unreadable_lines"][0]["line"] == 2


@pytest.mark.parametrize("cut", ["in an element", "after an element", "after a comma"])
def test_an_array_that_is_cut_off_gives_what_is_whole_and_is_reported(
    desk: Desk, lab: str, cut: str
) -> None:
    first, second = (json.dumps(payload) for payload in distinct(lab, 2))
    end = {"in an element": f", {second[:-9]}", "after an element": "", "after a comma": ","}[cut]
    content = f"[{first}{end}".encode()
    report = take(desk, content)
    assert (report["recorded"], report["complete"]) == (1, False)
    assert report["unreadable"] == (cut == "in an element")
    done = desk.run("import", "-", stdin=content)
    assert done.returncode == 1
    assert b"cut off" in done.stderr


def test_a_gzip_file_that_is_cut_off_is_not_taken_over_http(desk: Desk, lab: str) -> None:
    whole = gzip.compress(lines(*distinct(lab, 9000)))
    for content in (whole[:-9], whole[: len(whole) // 2]):
        head = desk.head()
        assert "gzip" in assert_problem(desk.api.post("/v1/imports", content=content), 400)
        assert desk.head() == head
        assert_sentence(desk.run("import", "-", stdin=content), "gzip", "Nothing of it")
        assert desk.head() == head


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "csv": (lambda: b"id,payload\r\n1,{}\r\n", "CSV"),
    "html": (lambda: b"<!DOCTYPE html><html></html>", "HTML"),
    "utf-16": (lambda: b"\xff\xfe\x00", "UTF-16"),
    "quotes": (lambda: b'["' + b'\\"' * 20_000, "cut off or broken"),
    "brackets": (lambda: b"[" * 145_000, "cut off or broken"),
    "one string": (lambda: b'["' + b"a" * 20_000_000, "longer than"),
    "lines of objects": (lambda: gzip.compress(b"{}\n" * 40_000_000, 1), "more than 10,000"),
    "zeros": (lambda: gzip.compress(bytes(600 * 1024 * 1024), 1), "binary"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_file_of_events_is_refused_as_a_whole(desk: Desk, name: str) -> None:
    make, kind = REFUSED[name]
    content = make()
    head = desk.head()
    for how in ("dry_run", "keep_unreadable"):
        answer = desk.api.post("/v1/imports", content=content, params={how: "true"}, timeout=60)
        assert kind in assert_problem(answer, 400)
    assert desk.head() == head


def test_a_dry_run_counts_and_records_nothing(desk: Desk, lab: str) -> None:
    first, second = distinct(lab, 2)
    desk.record(first)
    head = desk.head()
    report = take(desk, lines(first, second, second) + b"{}\n", dry_run=True)
    assert counts(report) == (1, 2, 1)
    assert (report["dry_run"], report["import_id"], desk.head()) == (True, None, head)


def test_an_import_has_a_number_by_which_its_events_are_found(desk: Desk, lab: str) -> None:
    report = take(desk, lines(*distinct(lab, 2)))
    exported = desk.run("export", "--import", str(report["import_id"])).stdout
    assert [json.loads(line)["body"]["labID"] for line in exported.splitlines()] == [lab] * 2
    assert take(desk, lines(*distinct(lab, 2)))["import_id"] == report["import_id"] + 1


@pytest.mark.one_server("its time limits are those of one server")
def test_deliveries_go_on_while_large_files_are_imported(desk: Desk, lab: str) -> None:
    """An import has threads of its own; those of the intake are free."""
    hostile = b'{"a":[' + b",".join([b"[]"] * 300_000) + b"]}\n"
    content = gzip.compress(lines(event(lab, "b")) * 20_000 + hostile * 10)
    with ThreadPoolExecutor(4) as pool:
        imports = [pool.submit(take, desk, content, dry_run=True) for _ in range(3)]
        while not all(one.done() for one in imports):
            assert desk.send(event(lab, "b")).elapsed < timedelta(seconds=3)
    assert {counts(one.result()) for one in imports} == {(0, 20_000, 10)}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("rudely", [False, True])
def test_of_an_upload_that_breaks_nothing_is_taken(
    desk: Desk, lab: str, *, chunked: bool, rudely: bool
) -> None:
    body = lines(*distinct(lab, 3000))
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {2 * len(body)}"
    authorization = desk.api.headers["Authorization"]
    header = f"POST /v1/imports HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n{length}"
    part = b"%x\r\n%b\r\n" % (len(body), body) if chunked else body
    head = desk.head()
    with socket.create_connection(("127.0.0.1", desk.port)) as connection:
        connection.sendall(f"{header}\r\n\r\n".encode() + part)
        if not rudely:
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(20)
            answer = connection.recv(4096)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400"), answer
    # Whatever still was under way has ended when an import after it has.
    assert counts(take(desk, lines(*distinct(lab, 1)))) == (1, 0, 0)
    wait_until(lambda: desk.settle() == head + 1, "only the whole import is in the log")
    assert len(desk.items("/v1/bills", lab_id=lab)) == 1


# --- what was settled -------------------------------------------------------------------------


def test_an_import_says_which_lines_it_settled_and_which_it_did_not(desk: Desk, lab: str) -> None:
    desk.lose(lab, "b1", "b2", "b3")
    number = desk.ask(lab_id=lab)["number"]
    one = found_report(lab, "b1")

    def lines_of(items: list[Item]) -> list[Item]:
        return [item for item in items if item["lab_id"] == lab]

    name = {"event_type": "report.completed", "test_id": "t", "lab_id": lab, "request": number}
    for content in (lines(one, one), lines(one)):
        report = take(desk, content)
        position = desk.asked(number)["lines"][0]["received_position"]
        assert lines_of(report["settled"]) == [
            {**name, "bill_id": "b1", "received_position": position}
        ]
        assert report["settled_count"] == 1
        assert [item["bill_id"] for item in lines_of(report["still_open"])] == ["b2", "b3"]
        assert report["still_open_count"] == len(report["still_open"])
    done = desk.run("import", "-", stdin=lines(found_report(lab, "b2"), event(lab, "new")))
    assert f"request {number}" in done.stdout.decode()
    assert "b2" in done.stdout.decode()
    assert "b3" in done.stdout.decode()
    assert [line["state"] for line in desk.asked(number)["lines"]] == [
        "received",
        "received",
        "requested",
    ]


# --- what was sent again with another time ----------------------------------------------------


def complete_day(lab: str, bill: str) -> list[Payload]:
    """Make the history of a bill whose reports list all tests, as they are then."""
    states = [("pending", "pending"), (DONE, "pending"), (DONE, DONE), (DONE, DONE)]
    kinds = ["bill.created", "report.completed", "report.completed", "bill.completed"]
    return [
        event(lab, bill, kind, at=BASE + 10 * number, tests={"t1": first, "t2": second})
        for number, (kind, (first, second)) in enumerate(zip(kinds, states, strict=True))
    ]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("later", [5000, -5000])
def test_a_payload_sent_again_with_another_time_is_no_second_fact(
    desk: Desk, lab: str, number: int, later: int
) -> None:
    day = complete_day(lab, "b")
    positions = desk.record(*day)
    desk.settle()
    before = desk.get(f"/v1/labs/{lab}/bills/b").json()
    report = take(desk, lines({**day[number], "eventTime": BASE + later}))
    assert counts(report) == (1, 0, 0)
    assert report["resent"] == [
        {
            "position": report["position"],
            "lab_id": lab,
            "bill_id": "b",
            "same_as_position": positions[number],
        }
    ]
    after = desk.get(f"/v1/labs/{lab}/bills/b").json()
    for name in ("state", "created_at", "completed_at", "deleted_at", "reports", "missing_events"):
        assert after[name] == before[name], name
    assert set(after["findings"]) <= {"report_completed_again"}


def test_a_lost_payload_sent_with_another_time_settles_its_line_once(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    number = desk.ask(lab_id=lab)["number"]
    late = found_report(lab, at=BASE + 9999)
    assert take(desk, lines(late))["settled_count"] == 1
    assert desk.asked(number)["lines"][0]["state"] == "received"
    before = answers_of(desk)
    assert counts(take(desk, lines(late))) == (0, 1, 0)
    assert answers_of(desk) == before
