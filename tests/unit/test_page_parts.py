"""The parts of the page that need no server: assets, charts, and where a login leads."""

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from zoneinfo import ZoneInfo

import pytest

from ledger.model.loss_windows import Interval
from ledger.operations.needs import Needs
from ledger.page import assets, chart
from ledger.page.headers import CONTENT_SECURITY_POLICY
from ledger.page.json_place import place_of
from ledger.page.login import local_path
from ledger.page.needs_list import needs_list

AT = datetime(2024, 1, 20, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_what_others_wrote_is_as_they_published_it_with_its_licence() -> None:
    for name, (source, checksum) in assets.VENDORED.items():
        assert sha256(assets.content_of(name)).hexdigest() == checksum
        licence = assets.content_of(f"{name.split('.')[0]}.LICENSE").decode()
        assert source.rpartition(", ")[2] in licence


@pytest.mark.parametrize("name", assets.MEDIA_TYPES)
def test_an_asset_loads_nothing_from_elsewhere(name: str) -> None:
    text = assets.content_of(name).decode()
    if name not in assets.VENDORED:
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []
        assert "@import" not in text


def test_the_policy_allows_nothing_but_this_server() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'")


@pytest.mark.parametrize(
    "path",
    [
        "//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example", "bills", "",
        "javascript:alert(1)", "/bills\r\nSet-Cookie: x=1", "\t//elsewhere.example",
    ],
)  # fmt: skip
def test_a_login_leads_nowhere_else(path: str) -> None:
    assert local_path(path) == "/"


def test_a_login_leads_back_to_a_page() -> None:
    assert local_path("/bills?q=a%2Fb&lab=x") == "/bills?q=a%2Fb&lab=x"


def test_a_time_line_has_a_row_for_each_event_and_escapes_its_name() -> None:
    name = "<script>alert(1)</script>"
    drawn = chart.timeline(
        [
            chart.Row(name, AT, AT + MINUTE),
            chart.Row("decided", None, AT + 2 * MINUTE),
            chart.Row("missing", AT, None, is_latest=True),
        ]
    )
    root = ET.fromstring(drawn)  # noqa: S314 -- our own text
    assert [text.text for text in root.iter("text") if text.get("class") == "name"] == [
        name, "decided", "missing",
    ]  # fmt: skip
    kinds = [circle.get("class") for circle in root.iter("circle")]
    assert kinds == ["sent", "came", "came", "gone"]


def test_a_time_line_of_one_moment_can_be_drawn() -> None:
    assert "<svg" in chart.timeline([chart.Row("one", AT, AT)])
    assert not chart.timeline([])


def test_the_axis_is_in_the_reader_s_zone() -> None:
    rows = [chart.Row("one", AT, AT + MINUTE)]
    assert ">10:00:00 UTC<" in chart.timeline(rows)
    assert ">15:30:00 IST<" in chart.timeline(rows, ZoneInfo("Asia/Kolkata"))


def test_a_window_is_drawn_with_attempts_that_failed_and_one_that_did_not() -> None:
    outage = Interval(AT, AT + 10 * MINUTE)
    window = Interval(AT, AT + 4 * MINUTE)
    drawn = chart.attempts(window, [outage], 2 * MINUTE, 3, UTC)
    root = ET.fromstring(drawn)  # noqa: S314 -- our own text
    assert len(list(root.iter("path"))) == 7
    assert len(list(root.iter("circle"))) == 1


def test_bars_stand_on_each_other_in_the_order_of_their_parts() -> None:
    drawn = chart.bars(
        "x", [("10:00", {"recorded": 99_999, "refused": 1}), ("11:00", {"recorded": 0})]
    )
    bars = [one for one in ET.fromstring(drawn).iter() if one.tag.endswith("rect")]  # noqa: S314 -- our own
    assert [bar.get("class") for bar in bars] == ["recorded", "refused"]
    heights = [float(bar.get("height") or 0) for bar in bars]
    tops = [float(bar.get("y") or 0) for bar in bars]
    assert heights[1] >= chart.LOWEST_BAR, "one among very many can be seen"
    assert tops[1] + heights[1] == pytest.approx(tops[0], abs=0.2)
    assert chart.bars("x", [("10:00", {"recorded": 0})]) == ""


def test_what_needs_somebody_is_listed_the_oldest_first() -> None:
    needs = Needs(
        overdue=1, overdue_since=AT - MINUTE, possible=2, possible_since=AT - 3 * MINUTE,
        windows=0, windows_since=None, unseen=20_000, unseen_since=AT - 2 * MINUTE, unreadable=1,
        unreadable_from=7, parked=0, refused=3, refused_since=AT - 4 * MINUTE,
    )  # fmt: skip
    silent = [AT - MINUTE, AT - 5 * MINUTE]
    listed = needs_list(needs, AT, sees_refused=True, silent=silent)
    assert [(one.figure, one.what, one.more) for one in listed] == [
        (
            "2",
            "labs are silent",
            "not heard of for longer than usual; the longest for 5 minutes",
        ),
        ("3", "deliveries with a wrong token wait for a decision", "the first 4 minutes ago"),
        ("2", "events may be lost", "likely, not proven; the oldest overdue for 3 minutes"),
        ("more than 10,000", "expected bills were never seen", "the first was due 2 minutes ago"),
        ("1", "event is lost for certain", "the oldest overdue for 1 minute"),
        ("1", "event of the last day cannot be read", "kept as they came, not folded"),
    ]
    assert [one.path for one in needs_list(needs, AT, sees_refused=False)].count("/refused") == 0


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("$.data.testData[1]._id", "7"),
        ("$.data.testData[0]", r"""{"_id": "x, ]}\""}"""),
        ("$.labID", '"b"'),
        ("$.eventTime", "{"),
        ("$.data.billID", "{"),
        ("$.data.testData[2]", "["),
        ("$.labID.more", '"'),
        ("$.n", "1e999999"),
        ("$", None),
    ],
)
def test_the_place_of_a_fault_is_found_in_the_body(path: str, place: str | None) -> None:
    text = r""" {"labID":"a", "n" : 1e999999, "data": {"testData":
        [{"_id": "x, ]}\""}, {"_id":7}]}, "labID": "b"} """
    found = place_of(text, path)
    assert (text[slice(*found)] if found else None) == place


@pytest.mark.parametrize(
    "text", ["", "{", '{"a"', '{"a":', "[" * 100_000, '{"a":1', "\x00", '{"a" 1}']
)
def test_what_is_no_json_has_no_place(text: str) -> None:
    assert place_of(text, "$.b") is None
