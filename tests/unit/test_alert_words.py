"""The text of alerts: its content, its order, and that no identifier can break a message."""

import re
import sys
import tomllib
from datetime import UTC, datetime, timedelta, timezone

import apprise
import pytest

from ledger.errors import SettingsError
from ledger.operations import alerts
from ledger.operations.alerts.channels import channel_id, channel_of, check_channels
from ledger.operations.alerts.wording import (
    LINE_LENGTH,
    LISTED,
    AlertMessage,
    Kind,
    Subject,
    one_line,
)
from tests.support.server import ROOT

NOW = datetime(2024, 1, 20, 3, 0, 7, tzinfo=UTC)

HOSTILE = [
    "two\nlines",
    "carriage\r\nreturn",
    "a\x00b",
    "\x1b[2Jcleared",
    "\u202eturned round",
    "para\u2029graph",
    "next\x85line",
    "half a \ud800 pair",
    "x" * 200,
    ("y" * 200 + " ") * 20,
    "<script>alert(1)</script>",
    "@everyone <!channel> @here",
    "",
    " \t ",
    "%s %(x)s {0} \\n $1",
]


def subject(
    number: object = 1,
    kind: Kind = "overdue",
    *,
    lab: str | None = "lab_1",
    words: str | None = None,
) -> Subject:
    return Subject(kind, f"key {number}", lab, words or f"what happened to {number}")


def message(*subjects: Subject) -> AlertMessage:
    made = AlertMessage()
    for each in subjects:
        made.add(each)
    return made


# --- the message ------------------------------------------------------------------------------


def test_the_title_counts_each_kind_the_most_urgent_first() -> None:
    made = message(
        subject(1, "overdue"),
        subject(2, "overdue"),
        subject(3, "unseen_bill"),
        subject(4, "parked_bill"),
        subject(5, "loss_window", lab=None),
    )
    assert made.title() == (
        "Ledger: 1 loss window, 1 parked bill, 1 expected bill not seen, 2 events overdue"
    )
    assert made.count == 5


def test_numbers_of_one_and_of_many_are_written_as_people_do() -> None:
    kinds: list[Kind] = ["loss_window", "parked_bill", "unseen_bill", "overdue"]
    many = message(*(subject(n, kind) for kind in kinds for n in range(1200)))
    assert many.title() == (
        "Ledger: 1,200 loss windows, 1,200 parked bills, 1,200 expected bills not seen, "
        "1,200 events overdue"
    )


def test_the_whole_body_of_a_small_alert() -> None:
    made = message(
        subject(1, words="bill_1 of lab_1: report.completed of test_1"),
        subject(2, lab="lab_2", words="bill_2 of lab_2: bill.created"),
        subject(3, lab="lab_2", words="bill_3 of lab_2: bill.created"),
        subject(4, "parked_bill", lab=None, words="bill_9 of lab_1"),
    )
    assert made.body(NOW) == (
        "1 parked bill. Its events could not be folded. They are kept, but the bill's state is not "
        "shown.\n"
        "- bill_9 of lab_1\n"
        "Details: ledger status\n"
        "\n"
        "3 events overdue. The sender will not try again; these events arrive only if you ask for "
        "them.\n"
        "Labs: lab_2 (2), lab_1 (1)\n"
        "- bill_1 of lab_1: report.completed of test_1\n"
        "- bill_2 of lab_2: bill.created\n"
        "- bill_3 of lab_2: bill.created\n"
        "Details: ledger reconcile\n"
        "\n"
        "Noted 2024-01-20T03:00:07Z."
    )


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (
            "loss_window",
            (
                "1 loss window. No webhook could be stored for longer than the sender keeps trying."
                " Whatever happened in it is lost until you ask for it."
            ),
        ),
        (
            "parked_bill",
            (
                "1 parked bill. Its events could not be folded. They are kept, but the bill's state"
                " is not shown."
            ),
        ),
        (
            "unseen_bill",
            "1 expected bill not seen. The deadline has passed and no event has arrived.",
        ),
        (
            "overdue",
            (
                "1 event overdue. The sender will not try again; the event arrives only if you ask"
                " for it."
            ),
        ),
    ],
)
def test_one_subject_is_described_in_the_singular(kind: Kind, sentence: str) -> None:
    first, lab, *_ = message(subject(1, kind)).body(NOW).splitlines()
    assert first == sentence
    assert lab == "Lab: lab_1 (1)"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("loss_window", "2 loss windows. "),
        ("parked_bill", "2 parked bills. Their "),
        ("unseen_bill", "2 expected bills not seen. Their "),
        ("overdue", "2 events overdue. "),
    ],
)
def test_several_subjects_are_described_in_the_plural(kind: Kind, words: str) -> None:
    made = message(subject(1, kind), subject(2, kind, lab="lab_2"))
    first, labs, *_ = made.body(NOW).splitlines()
    assert first.startswith(words)
    assert not re.search(r"\b(in it|[Ii]ts|the event|bill's)\b", first)
    assert labs == "Labs: lab_1 (1), lab_2 (1)"


def test_the_first_ten_are_told_in_words_and_the_others_counted() -> None:
    body = message(*(subject(n) for n in range(1000))).body(NOW)
    told = [line for line in body.splitlines() if line.startswith("- ")]
    assert told == [f"- what happened to {n}" for n in range(LISTED)]
    assert "\nand 990 more: ledger reconcile\n" in body


def test_just_ten_are_all_told() -> None:
    body = message(*(subject(n) for n in range(LISTED))).body(NOW)
    assert "more" not in body
    assert body.count("\n- ") == LISTED


def test_the_labs_with_the_most_are_named_and_the_others_counted() -> None:
    made = message(
        *(subject(f"{lab}/{n}", lab=f"lab_{lab}") for lab in range(9) for n in range(lab))
    )
    labs = "Labs: lab_8 (8), lab_7 (7), lab_6 (6), lab_5 (5), lab_4 (4), and 3 more\n"
    assert labs in made.body(NOW)


def test_the_time_is_told_in_utc() -> None:
    india = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert message(subject()).body(india).endswith("Noted 2024-01-20T03:00:07Z.")


def test_a_message_has_a_bounded_size_whatever_it_tells() -> None:
    kinds: list[Kind] = ["loss_window", "parked_bill", "unseen_bill", "overdue"]
    made = message(
        *(
            subject(n, kind, lab=f"{n:03}" + "l" * 200, words="w" * 10_000 + f" {n}" * 10_000)
            for kind in kinds
            for n in range(100)
        )
    )
    assert len(made.title()) < 200
    assert len(made.body(NOW)) < 4 * (LISTED * (LINE_LENGTH + 3) + 600)


# --- hostile words ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_an_id_holds_it_stays_one_short_line(text: str) -> None:
    line = one_line(f"lab {text} bill")
    assert line.isprintable()
    assert len(line) <= LINE_LENGTH
    assert line.encode()
    assert "@" not in line
    body = message(subject(lab=text, words=f"lab {text} bill")).body(NOW)
    assert [part for part in body.splitlines() if part.startswith("- ")] == [f"- {line}"]
    assert len(body.splitlines()) == 6


def test_every_letter_that_cannot_be_printed_is_replaced() -> None:
    # All where scripts and signs mix, then one of each few, for most have no letter at all.
    for code in (*range(0x3000), *range(0x3000, sys.maxunicode + 1, 29)):
        letter = chr(code)
        if not letter.isprintable():
            assert one_line(f"a{letter}b") == "a\N{REPLACEMENT CHARACTER}b"


def test_a_long_word_keeps_its_begin_and_its_end() -> None:
    line = one_line("bill " + "a" * 100 + "the_very_end of lab")
    assert line == "bill " + "a" * 45 + "…" + "aathe_very_end of lab"


def test_a_long_line_is_cut_and_says_so() -> None:
    line = one_line("word " * 1000)
    assert len(line) == LINE_LENGTH
    assert line.endswith("…")


def test_ordinary_words_stay_as_they_are() -> None:
    for words in ("bill_12345 of lab_67890", "पैथोलॉजी लैब", "Ärzte & Söhne <1>", "x" * 60):
        assert one_line(words) == words


# --- keys -------------------------------------------------------------------------------------


def test_a_plain_key_is_stored_as_it_is() -> None:
    assert subject(7).stored_key == "key 7"


@pytest.mark.parametrize("key", ["x" * 501, "я" * 300, "a\x00b", "a\nb", "\ud800", "sha256:feed"])
def test_a_key_that_the_table_would_not_take_is_stored_as_a_hash(key: str) -> None:
    stored = Subject("overdue", key, None, "").stored_key
    assert stored.startswith("sha256:")
    assert len(stored) == 71
    assert stored != Subject("overdue", key + "x", None, "").stored_key


def test_nobody_can_make_a_key_that_is_stored_as_another_one() -> None:
    long = Subject("overdue", "x" * 501, None, "").stored_key
    assert Subject("overdue", long, None, "").stored_key != long


# --- the setting ------------------------------------------------------------------------------

GOOD = ("json://user:SECRET-1@localhost/SECRET-2", "mailto://user:SECRET-3@example.com")


def test_good_urls_pass() -> None:
    check_channels(GOOD)
    check_channels(())


@pytest.mark.parametrize(
    "bad",
    ["SECRET", "", "slack://SECRET", "nothing://SECRET", "json://", "https://x/SECRET", "\ud800"],
)
def test_a_bad_url_is_named_by_its_place_and_not_shown(
    bad: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    with pytest.raises(SettingsError, match=r"LEDGER_ALERT_URLS: URL 2 of 3") as raised:
        check_channels((GOOD[0], bad, GOOD[1]))
    said = str(raised.value) + caplog.text + "".join(capsys.readouterr())
    assert "SECRET" not in said
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("json://user:SECRET@localhost/SECRET", "json"),
        ("mailtos://user:SECRET@example.com", "mailtos"),
        ("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "slack"),
        ("SECRET://SECRET", "unknown"),
        ("SECRET", "unknown"),
    ],
)
def test_a_channel_is_named_by_its_place_and_kind(url: str, kind: str) -> None:
    channel = channel_of(2, url)
    assert f"{channel}" == f"channel 2 ({kind})"
    assert f"{channel!r}" == f"channel 2 ({kind})"


def test_without_apprise_a_set_channel_stops_the_start_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "ledger.operations.alerts.apprise_service", raising=False)
    monkeypatch.delattr(alerts, "apprise_service", raising=False)
    monkeypatch.setitem(sys.modules, "apprise", None)
    check_channels(())
    with pytest.raises(SettingsError, match=r'pip install "ledger\[alerts\]"') as raised:
        check_channels(GOOD)
    assert "LEDGER_ALERT_URLS" in str(raised.value)
    assert "SECRET" not in str(raised.value)


def test_apprise_is_pinned_to_the_minor_version_whose_undocumented_parts_are_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert extras["alerts"] == ["apprise>=2.2,<2.3"]
    assert extras["alerts"][0] in extras["dev"]
    assert not any(each.startswith("apprise") for each in project["dependencies"])
    assert apprise.__version__.startswith("2.2.")


def test_apprise_has_the_undocumented_parts_that_are_used() -> None:
    asset = apprise.AppriseAsset(async_mode=False, service_timeout=0)  # no threads
    service = apprise.Apprise.instantiate("json://localhost:1", asset=asset)
    assert service
    assert service.overflow_mode is apprise.OverflowMode.UPSTREAM
    results = list(apprise.Apprise(service, asset=asset).notify("a test"))
    assert [bool(attempt) for each in results for attempt in each.attempts] == [False]


def test_one_module_imports_apprise() -> None:
    found = {
        module.name
        for module in (ROOT / "ledger").rglob("*.py")
        if re.search(r"^\s*(import|from) apprise\b", module.read_text(), re.MULTILINE)
    }
    assert found == {"apprise_service.py"}


def test_channels_are_known_by_the_hash_of_their_url() -> None:
    known = "0d8e2208d9bea7912a79b33c0d1cfdbe4c2e6fb40e493913ad217d051faab0a3"
    assert channel_id("json://localhost/") == known
