"""Text that a spreadsheet would take for a formula, and how it is kept from doing so.

Senders choose the identifiers, and a spreadsheet runs a cell that begins like a formula. In CSV
such a text gets an apostrophe in front, as people type it into a spreadsheet to get text. Ledger's
own import of CSV takes it off again, so that every identifier comes back as it was. Source: OWASP,
"CSV Injection".
"""

import re

_BEGIN = "=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20"  # the last four: the same in full width
_FORMULA = re.compile(f"'*[{_BEGIN}]")
_NEUTRAL = re.compile(f"'+[{_BEGIN}]")


def is_formula(text: str) -> bool:
    """Return whether a text needs an apostrophe: a formula, or what looks like a neutral one."""
    return _FORMULA.match(text) is not None


def neutral(text: str) -> str:
    """Return a text as it is written into a cell of CSV."""
    return f"'{text}" if is_formula(text) else text


def original(cell: str) -> str:
    """Return the text of a cell that `neutral` made; any other cell as it is."""
    return cell[1:] if _NEUTRAL.match(cell) else cell
