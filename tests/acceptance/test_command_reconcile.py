"""`ledger reconcile` and `ledger request`: forms, files, checks for cron, and wrong usage."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.commands import assert_sentence, settings_of
from tests.support.operations import AT_ONCE, Desk, found_report, lost_end
from tests.support.payloads import event
from tests.support.server import run_ledger

FORMS = ["text", "json", "csv", "markdown", "xlsx"]


@pytest.fixture(scope="module")
def desk(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a server for which all is overdue at once."""
    folder = tmp_path_factory.mktemp("desk")
    with Desk(module_database_url, folder, settings=AT_ONCE) as started:
        yield started


@pytest.fixture
def own_desk(database_url: str, tmp_path: Path) -> Iterator[Desk]:
    """Give such a server with a database of the test's own."""
    with Desk(database_url, tmp_path, settings=AT_ONCE) as started:
        yield started


def bills_in(content: bytes, form: str) -> set[str]:
    """Return which of the bills `bill-1`, `bill-2` and `bill-3` a document names."""
    if form == "xlsx":
        with ZipFile(io.BytesIO(content)) as parts:
            content = b"".join(parts.read(name) for name in parts.namelist())
    return {bill for bill in ("bill-1", "bill-2", "bill-3") if bill.encode() in content}


# --- forms and files --------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("to_file", [True, False])
def test_the_report_is_written_in_each_form_to_a_file_or_not(
    desk: Desk, lab: str, tmp_path: Path, form: str, *, to_file: bool
) -> None:
    desk.lose(lab, "bill-1", "bill-2")
    desk.lose(f"{lab}-other", "bill-3")
    file = tmp_path / "report"
    file.write_text("older and longer" * 9999)
    wanted = ["reconcile", "--format", form, "--lab", lab]
    done = desk.run(*wanted, *(["--output", str(file)] if to_file else []))
    assert done.returncode == 0, done.stderr
    if to_file:
        assert done.stdout == b""
    content = file.read_bytes() if to_file else done.stdout
    assert bills_in(content, form) == {"bill-1", "bill-2"}
    if form == "json":
        told = json.loads(content)
        again = desk.get(
            "/v1/reconciliation", lab_id=lab, as_of=told["as_of"], position=told["position"]
        )
        # Which labs are registered is known for now alone.
        assert told["coverage"] == []
        assert again.json() == {**told, "coverage": None}
    if form == "csv":
        assert len(list(csv.DictReader(io.StringIO(content.decode())))) == 2


def test_text_is_the_form_unless_told_otherwise(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    said = desk.run("reconcile", "--lab", lab).stdout.decode()
    assert "overdue" in said
    assert lab in said
    assert not said.startswith("{")


@pytest.mark.parametrize("form", FORMS)
def test_a_request_is_made_and_written_in_each_form(desk: Desk, lab: str, form: str) -> None:
    desk.lose(lab, "bill-1", "bill-2")
    made = desk.run("reconcile", "--request", "--lab", lab, "--format", form, "--note", "n")
    assert made.returncode == 0, made.stderr
    (request, *_) = desk.items("/v1/support-requests")
    assert (request["lab_id"], request["note"], request["lines"]["requested"]) == (lab, "n", 2)
    assert f"request {request['number']}" in made.stderr.decode().lower()
    assert bills_in(made.stdout, form) == {"bill-1", "bill-2"}
    shown = desk.run("request", str(request["number"]), "--format", form)
    assert bills_in(shown.stdout, form) == {"bill-1", "bill-2"}
    if form == "json":
        assert json.loads(shown.stdout) == desk.asked(request["number"])
    if form == "markdown":
        assert "(labID)" in shown.stdout.decode()


@pytest.mark.parametrize("more", [[], ["--request"]])
def test_a_file_that_cannot_be_written_is_a_sentence(desk: Desk, lab: str, more: list[str]) -> None:
    desk.lose(lab)
    asked = len(desk.items("/v1/support-requests"))
    done = desk.run("reconcile", *more, "--lab", lab, "--output", "/no/such/folder/x")
    assert_sentence(done, "/no/such/folder/x")
    assert len(desk.items("/v1/support-requests")) == asked, "it was asked, and nobody was told"


# --- asking -----------------------------------------------------------------------------------


def test_nothing_overdue_is_a_sentence_and_no_request(own_desk: Desk, tmp_path: Path) -> None:
    own_desk.record(event("lab", "b"))
    own_desk.settle()
    done = own_desk.run("reconcile", "--request", "--output", str(tmp_path / "letter"))
    assert done.returncode == 0
    assert b"overdue" in done.stdout + done.stderr
    assert not (tmp_path / "letter").exists()
    assert own_desk.items("/v1/support-requests") == []


def test_the_command_asks_for_what_is_possible_when_told_to(desk: Desk, lab: str) -> None:
    desk.record(*lost_end(lab, "b1"))
    desk.settle()
    for more, asked in (([], 0), (["--include-possible"], 1), (["--include-possible"], 0)):
        done = desk.run("reconcile", "--request", "--lab", lab, *more, "--by", "ann")
        assert done.returncode == 0, done.stderr
        assert (b"b1" in done.stdout) is bool(asked)
        # What is left out is said, and how it is asked for.
        assert (b"1 possible event is overdue" in done.stderr) is not bool(more)
        assert (b"--include-possible" in done.stderr) is not bool(more)
    assert desk.items("/v1/support-requests")[0]["made_by"] == "ann"


def test_a_request_is_closed_by_command_with_a_reason(desk: Desk, lab: str) -> None:
    desk.lose(lab)
    number = desk.ask(lab_id=lab)["number"]
    assert_sentence(desk.run("request", "9999", "--close", "--reason", "r"), f"1 to {number}")
    assert_sentence(desk.run("request", "9999"), f"1 to {number}")
    for wrong in (["--close"], ["--reason", "r"], ["--close", "--reason", " "]):
        assert_sentence(desk.run("request", str(number), *wrong), "reason", code=2)
    assert desk.asked(number)["state"] == "open"
    done = desk.run("request", str(number), "--close", "--reason", "not found", "--by", "ann")
    assert done.returncode == 0
    asked = desk.asked(number)
    assert (asked["state"], asked["closed_reason"]) == ("closed", "not found")
    assert desk.run("request", str(number), "--close", "--reason", "again").returncode == 0
    assert desk.asked(number) == asked
    listed = desk.run("request").stdout.decode().splitlines()
    assert any(line.split()[:2] == [str(number), "closed"] for line in listed)


# --- checks -----------------------------------------------------------------------------------


def test_a_check_exits_with_3_while_anything_is_overdue(own_desk: Desk) -> None:
    desk = own_desk

    def check(*more: str) -> int:
        done = desk.run("reconcile", "--check", *more)
        assert done.stdout
        return done.returncode

    assert check() == 0
    desk.lose("lab")
    assert check() == 3
    assert check("--lab", "lab", "--format", "json") == 3
    assert check("--lab", "other") == 0
    assert desk.run("reconcile").returncode == 0
    desk.ask()
    assert check() == 0
    desk.record(found_report("lab"))
    desk.put("/v1/expected-bills/x", expected_by="2024-01-20T10:50:00Z")
    assert check() == 3
    desk.record(event("lab", "new", integrator="x"))
    desk.settle()
    assert check() == 0


def test_asking_with_a_check_tells_what_stays_overdue(own_desk: Desk) -> None:
    own_desk.lose("lab", "b1")
    own_desk.record(*lost_end("lab", "b2"))
    own_desk.settle()
    codes = [own_desk.run("reconcile", "--request", "--check").returncode for _ in range(2)]
    assert codes[1] == 3
    assert codes[0] == 3
    assert own_desk.run("reconcile", "--request", "--include-possible").returncode == 0
    assert own_desk.run("reconcile", "--request", "--check").returncode == 0


def test_only_what_is_new_since_the_last_run_is_told(own_desk: Desk) -> None:
    desk = own_desk

    def new() -> tuple[set[str], int]:
        done = desk.run("reconcile", "--since-last", "--check", "--format", "json")
        told = json.loads(done.stdout)
        assert told["totals"]["overdue"] == len(told["missing_events"])
        return {item["bill_id"] for item in told["missing_events"]}, done.returncode

    desk.lose("lab", "b1")
    assert new() == ({"b1"}, 3)
    assert new() == (set(), 0)
    desk.lose("lab", "b2")
    desk.report()
    assert desk.run("reconcile", "--check").returncode == 3  # this is no run of the job
    assert new() == ({"b2"}, 3)
    assert desk.run("rebuild", "--yes").returncode == 0
    assert new() == (set(), 0)
    desk.lose("lab", "b3")
    failed = desk.run("reconcile", "--since-last", "--output", "/no/such/folder/x")
    assert failed.returncode == 1
    assert new() == ({"b3"}, 3), "a run that told nobody does not count"


def test_a_run_without_news_tells_what_was_reported_before(own_desk: Desk, tmp_path: Path) -> None:
    desk = own_desk
    letter = tmp_path / "report"
    wanted = ["reconcile", "--since-last", "--output", str(letter)]
    desk.lose("lab", "b1", "b2")
    assert desk.run(*wanted).returncode == 0
    first = letter.read_text()
    assert first.startswith("2 events are overdue in 1 lab")
    done = desk.run(*wanted)
    assert done.returncode == 0
    said = done.stderr.decode()
    assert said.startswith("Nothing new is overdue since 20")
    assert "; 2 events overdue in all were reported before." in said
    assert f"{letter} was left as it is." in said
    assert letter.read_text() == first
    shown = desk.run("reconcile", "--since-last").stdout.decode()
    assert "2 events overdue in all were reported before." in shown
    assert "No event is overdue" not in shown
    desk.lose("lab", "b3")
    assert desk.run(*wanted).returncode == 0
    assert letter.read_text().startswith("1 new event is overdue in 1 lab")
    assert "; 3 events are overdue in all." in letter.read_text()


def test_a_run_without_news_writes_a_file_that_is_not_there(own_desk: Desk, tmp_path: Path) -> None:
    own_desk.lose("lab")
    own_desk.run("reconcile", "--since-last")
    file = tmp_path / "report"
    assert own_desk.run("reconcile", "--since-last", "--output", str(file)).returncode == 0
    assert "1 event overdue in all was reported before." in file.read_text()


def test_an_overdue_event_that_is_only_possible_is_told_with_the_option_that_asks_for_it(
    own_desk: Desk,
) -> None:
    own_desk.record(*lost_end("lab"))
    own_desk.settle()
    sentence = "1 possible event is overdue; it is asked for only with --include-possible."
    assert sentence in own_desk.run("reconcile").stdout.decode()
    checked = own_desk.run("reconcile", "--request", "--check")
    assert checked.returncode == 3
    assert sentence in checked.stderr.decode()
    own_desk.lose("lab", "b2")
    assert sentence in own_desk.run("reconcile", "--request").stderr.decode()
    asked = own_desk.run("reconcile", "--request", "--include-possible")
    assert "--include-possible" not in asked.stderr.decode()
    assert own_desk.run("reconcile", "--check").returncode == 0


# --- wrong usage ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ("--format pdf", "--format"),
        ("--include-possible", "--request"),
        ("--note n", "--request"),
        ("--request --as-of 2024-01-20T10:50:00Z", "--request"),
        ("--request --position 1", "--request"),
        ("--request --since-last", "--request"),
        ("--as-of yesterday", "--as-of"),
        ("--as-of 2024-01-20T10:50:00", "--as-of"),
        ("--position -1", "--position"),
        ("--formt csv", "--formt"),
        ("extra", "extra"),
    ],
)
def test_contradictory_options_are_wrong_usage(arguments: str, word: str) -> None:
    settings = settings_of("postgresql://localhost:1/none")
    done = run_ledger("reconcile", *arguments.split(), settings=settings)
    assert_sentence(done, word, code=2)
    assert done.stdout == b""


@pytest.mark.parametrize(
    "arguments",
    ["reconcile", "reconcile --request", "reconcile --check", "reconcile --since-last", "request",
     "request 1", "request 1 --close --reason r", "missing", "waive --lab l --reason r --yes",
     "import -", "import --expected-bills -"],
)  # fmt: skip
def test_without_the_database_a_command_fails_with_a_sentence(arguments: str) -> None:
    settings = settings_of("postgresql://user:secret@localhost:1/none")
    done = run_ledger(*arguments.split(), settings=settings)
    assert "secret" not in assert_sentence(done, "database")


def test_a_position_that_is_not_there_yet_is_a_sentence(desk: Desk) -> None:
    assert_sentence(desk.run("reconcile", "--position", "999999"), "999999")
