"""Texts that look like formulas are neutral in cells, and come back as they were."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ledger.operations.spreadsheet_cells import is_formula, neutral, original

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", "\uff1d1", "=", "\uff20x"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_gets_an_apostrophe(text: str) -> None:
    assert is_formula(text)
    assert neutral(text) == f"'{text}"
    assert neutral(f"'{text}") == f"''{text}", "and is told from one that had it before"


@pytest.mark.parametrize("text", ["", "bill_1", "1-2", "a=b", "'bill", "''", " =1"])
def test_any_other_text_is_as_it_was(text: str) -> None:
    assert neutral(text) == text
    assert original(text) == text


@given(st.text(st.sampled_from("'=+-@\t\r\nab"), max_size=5) | st.text())
@example("'=1")
def test_every_text_comes_back(text: str) -> None:
    assert original(neutral(text)) == text
    assert not neutral(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
