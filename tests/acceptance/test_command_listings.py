"""Commands that list: whole lines with tabs in a pipe, a table on a terminal, JSON when asked."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.support.commands import assert_sentence, run_on_terminal
from tests.support.operations import AT_ONCE, Desk
from tests.support.payloads import event


@pytest.fixture(scope="module")
def desk(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a server for which all is overdue at once."""
    with Desk(module_database_url, tmp_path_factory.mktemp("desk"), settings=AT_ONCE) as started:
        yield started


def table_of(output: bytes) -> list[dict[str, str]]:
    """Read a table as a command writes it into a pipe."""
    names, *rows = [line.split("\t") for line in output.decode().splitlines()]
    return [dict(zip(names, row, strict=True)) for row in rows]


LONG = "bill-" + "0123456789" * 15


def test_in_a_pipe_a_row_is_a_line_with_tabs_and_no_identifier_is_broken(
    desk: Desk, lab: str
) -> None:
    desk.lose(lab, LONG)
    (row,) = table_of(desk.run("missing", "--lab", lab).stdout)
    assert (row["lab"], row["bill"], row["test"], row["state"]) == (lab, LONG, "t", "overdue")


def test_an_identifier_with_a_tab_or_a_control_character_stays_in_its_cell(
    desk: Desk, lab: str
) -> None:
    desk.lose(lab, "a\tb\x1b[31m")
    (row,) = table_of(desk.run("missing", "--lab", lab).stdout)
    assert row["bill"] == json.dumps("a\tb\x1b[31m")


def test_on_a_terminal_a_table_fits_its_width(desk: Desk, lab: str) -> None:
    desk.lose(lab, LONG)
    code, screen = run_on_terminal("missing", "--lab", lab, settings=desk.settings)
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", screen)
    assert "\t" not in plain
    assert LONG not in plain
    assert max(map(len, plain.splitlines())) <= 60


@pytest.mark.parametrize("colour", [True, False])
def test_colours_are_shown_on_a_terminal_unless_no_color_is_set(
    desk: Desk, lab: str, *, colour: bool
) -> None:
    desk.lose(lab)
    settings = desk.settings if colour else {**desk.settings, "NO_COLOR": "1"}
    _, screen = run_on_terminal("reconcile", "--lab", lab, settings=settings)
    assert ("\x1b[" in screen) is colour


def test_requests_are_listed_as_a_table_and_as_json(desk: Desk, lab: str) -> None:
    desk.lose(lab, "b1", "b2")
    number = desk.ask(lab_id=lab)["number"]
    listed = table_of(desk.run("request").stdout)
    assert listed[0]["request"] == str(number)
    assert (listed[0]["state"], listed[0]["lab"], listed[0]["requested"]) == ("open", lab, "2")
    lines = desk.run("request", "--json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == desk.items("/v1/support-requests")
    shown = json.loads(desk.run("request", str(number), "--json").stdout)
    assert shown == desk.asked(number)


def test_a_single_line_of_a_request_is_closed_by_its_number(desk: Desk, lab: str) -> None:
    desk.lose(lab, "b1", "b2", "b3")
    number = str(desk.ask(lab_id=lab)["number"])
    close = ["request", number, "--close", "--reason", "not found"]
    assert_sentence(desk.run(*close, "--line", "4"), "no line 4", "3 lines")
    assert desk.run(*close, "--line", "2").returncode == 0
    request = desk.asked(int(number))
    assert [line["state"] for line in request["lines"]] == ["requested", "closed", "requested"]
    assert (request["state"], request["closed_reason"]) == ("open", None)
    assert request["lines"][1]["bill_id"] == "b2"
    assert desk.run(*close, "--line", "1", "--line", "3").returncode == 0
    assert desk.asked(int(number))["state"] == "closed"


def test_the_log_and_its_unreadable_events_are_listed(desk: Desk, lab: str) -> None:
    start = desk.head()
    desk.record(event(lab, "b"), b"no JSON at all", event(lab, "c"))
    desk.settle()
    listed = table_of(desk.run("events", "--after", str(start)).stdout)
    assert [row["bill"] for row in listed] == ["b", "", "c"]
    (row,) = table_of(desk.run("events", "--unreadable", "--after", str(start)).stdout)
    assert (row["position"], row["reason"], row["path"]) == (str(start + 2), "not_json", "$")
    for arguments, path in (([], "/v1/events"), (["--unreadable"], "/v1/events/unreadable")):
        done = desk.run("events", *arguments, "--after", str(start), "--json")
        shown = [json.loads(line) for line in done.stdout.splitlines()]
        assert shown == desk.items(path, after=start)
    done = desk.run("events", "--unreadable", "--reason", "wrong_type", "--after", str(start))
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_long_list_is_cut_and_says_how_it_goes_on(desk: Desk, lab: str) -> None:
    start = desk.head()
    desk.record(*(event(lab, f"b{number}") for number in range(3)))
    done = desk.run("events", "--after", str(start), "--limit", "2")
    assert len(table_of(done.stdout)) == 2
    assert f"--after {start + 2}" in done.stderr.decode()
    desk.lose(lab, "m1", "m2", "m3")
    done = desk.run("missing", "--lab", lab, "--limit", "2")
    assert len(table_of(done.stdout)) == 2
    assert b"more than 2" in done.stderr


def test_no_loss_window_is_a_sentence_and_no_line(desk: Desk) -> None:
    done = desk.run("windows", "--lab", "unheard of")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"no loss window" in done.stderr
