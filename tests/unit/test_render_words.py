"""Words and marks that the forms for people share."""

import json
import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ledger.operations.render.markup import as_span, code, head, plain, prose, quote, row
from ledger.operations.render.words import count, lasting, shown, up_to, utc

ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
MARKDOWN = MarkdownIt("commonmark").enable("table")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bill_1", "bill_1"),
        ("=1+1", "=1+1"),
        ("बिल 7", "बिल 7"),
        ("a\\nb", "a\\nb"),
        ("a\nb", r'"a\nb"'),
        (" a", '" a"'),
        ('"a"', r'"\"a\""'),
        ("a\x1b[2J", r'"a\u001b[2J"'),
        ("a\x7f", r'"a\u007f"'),
        ("a\u202eb", r'"a\u202eb"'),
        ("a\u00a0b", r'"a\u00a0b"'),
        ("a\U000e0001", r'"a\udb40\udc01"'),
    ],
)
def test_a_text_is_shown_as_it_is_or_as_a_json_string(text: str, expected: str) -> None:
    assert shown(text) == expected


@given(ids)
def test_what_is_shown_can_be_seen_and_tells_the_text(text: str) -> None:
    seen = shown(text)

    assert seen.isprintable()
    assert (json.loads(seen) if seen.startswith('"') else seen) == text


@given(ids)
def test_a_code_span_in_a_table_shows_the_same_before_and_after_rendering(text: str) -> None:
    written = code(text)
    html = MARKDOWN.render(head(("A", "B")) + row((written, "end")))

    assert as_span(text) in written
    assert "<td>end</td>\n</tr>\n</tbody>" in html
    cell = html.partition("<tbody>")[2].partition("<td><code>")[2].partition("</code></td>")[0]
    assert unescape(cell) == as_span(text)


markup = st.text("`*_[]()<>&#|!~\\-+=:.1a \n\t\u2028\x07\u202e", max_size=40)


@given(st.one_of(ids, markup))
def test_a_quote_shows_every_word_before_and_after_rendering(text: str) -> None:
    html = MARKDOWN.render(quote(text))

    assert set(re.findall(r"</?(\w+)", html)) <= {"blockquote", "p", "code"}
    rendered = unescape(re.sub(r"</?(blockquote|p|code)>", " ", html))
    lines = [line.strip() for line in text.splitlines()]
    seen = [line if line in quote(text) else as_span(line) for line in lines]
    assert all(line in quote(text) for line in seen)
    assert rendered.split() == " ".join(seen).split()


@pytest.mark.parametrize(
    "text",
    [
        "bill_12345 of lab_1 & co. (urgent!)",
        "call +91 22 5555 0100, ask for R&D",
        "+91 22 5555 0100",
        "पैथोलॉजी लैब",
        "See https://ledger.example/x?a=1; it's 50% done.",
    ],
)
def test_ordinary_prose_stays_as_it_is(text: str) -> None:
    assert prose(text) == text


@pytest.mark.parametrize("text", ["# a", "- a", "1. a", "=1+1", "a|b", "<b>", "*a*", "_a_", "&lt;"])
def test_a_line_that_might_be_markup_is_a_code_span(text: str) -> None:
    assert prose(f"one\n{text}\ntwo") == f"one\n{code(text)}\ntwo"


@given(ids)
def test_a_name_is_rendered_as_it_is_or_in_a_code_span(text: str) -> None:
    html = MARKDOWN.render(f"Thank you,\n\n{plain(text)}\n")

    inside = html.removeprefix("<p>Thank you,</p>\n<p>").removesuffix("</p>\n")
    name = unescape(inside.removeprefix("<code>").removesuffix("</code>"))
    assert name in {text, as_span(text)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ops@lab.example", "ops@lab.example"),
        ("Asha Rao", "Asha Rao"),
        ("- a", "`- a`"),
        ("a_b_", "`a_b_`"),
        ("1. a", "`1. a`"),
        ("<b>a</b>", "`<b>a</b>`"),
    ],
)
def test_a_name_that_could_be_markup_is_a_code_span(name: str, expected: str) -> None:
    assert plain(name) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (187_200 + 59, "2 days 4 hours"),
        (86_400, "1 day"),
        (86_400 + 59 * 60, "1 day"),
        (3_660, "1 hour 1 minute"),
        (61, "1 minute 1 second"),
        (0.4, "less than a second"),
        (-5, "less than a second"),
    ],
)
def test_durations_have_two_units(seconds: float, expected: str) -> None:
    assert lasting(timedelta(seconds=seconds)) == expected


def test_counts_agree_with_their_noun() -> None:
    assert [count(number, "lab") for number in (0, 1, 2_000)] == ["0 labs", "1 lab", "2,000 labs"]


def test_times_are_in_utc_whatever_their_zone() -> None:
    india = datetime.fromisoformat("2024-01-20T16:20:00.9+05:30")

    assert utc(india) == "2024-01-20 10:50:00 UTC"


def test_the_end_of_a_window_is_rounded_up() -> None:
    end = datetime(2024, 1, 20, 10, 50, 0, 1, tzinfo=UTC)

    assert utc(up_to(end)) == "2024-01-20 10:50:01 UTC"
    assert up_to(end.replace(microsecond=0)) == end.replace(microsecond=0)
