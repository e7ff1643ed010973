"""Pieces of Markdown (CommonMark with GitHub's tables) in which hostile text stays text."""

import re
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from rich.cells import cell_len

from ledger.operations.render.words import Missing, shown

_HARMLESS = re.compile(r"[^\W\d_][^\W_]*(?:[ .,@-]{1,2}[^\W_]+)*")
_WIDEST = 40
"""Up to how many characters a table's columns are aligned for who reads it unrendered."""


def code(text: str | None) -> str:
    """Return a text as a code span, in which nothing is markup; nothing for no text."""
    if not text:
        return ""
    inside = as_span(text)
    runs = re.findall("`+", inside)
    if not runs:
        return f"`{inside}`"
    fence = "`" * (max(map(len, runs)) + 1)
    return f"{fence} {inside} {fence}"


def as_span(text: str) -> str:
    """Return what a code span shows of a text.

    A pipe would end a table's cell even there, unless escaped with a backslash that shows before
    rendering and not after it. It is escaped as in JSON, so that both show the same.
    """
    return shown(text, unsafe="|")


def plain(text: str) -> str:
    """Return a name as it is where it holds no markup, else as a code span."""
    return text if _HARMLESS.fullmatch(text) else code(text)


def row(cells: Iterable[str]) -> str:
    """Return a row of a table, of cells that are Markdown already."""
    return f"| {' | '.join(cells)} |\n"


def head(columns: Sequence[str]) -> str:
    """Return the head of a table."""
    return row(columns) + f"|{'---|' * len(columns)}\n"


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns are aligned in the text as well."""
    widths = [
        min(max(cell_len(cells[place]) for cells in [columns, *rows]), _WIDEST)
        for place in range(len(columns))
    ]
    lines = [columns, ["-" * width for width in widths], *rows]
    return "".join(
        row(
            cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)
        )
        for cells in lines
    )


SUBJECT = (
    "Bill (billID)",
    "Integrator (integratorID)",
    "Event (eventType)",
    "Test (testData _id)",
)
"""What a missing event is of, in the sender's names."""


def subject(missing: Missing) -> list[str]:
    """Return the cells under `SUBJECT`."""
    unknown = "not known" if missing.event_type == "report.completed" else "the whole bill"
    return [
        code(missing.bill_id),
        code(missing.integrator_id) or "not known",
        code(missing.event_type),
        code(missing.test_id) or unknown,
    ]


def write_parts(parts: Iterable[str], to: BinaryIO) -> None:
    """Write parts as they come."""
    for part in parts:  # noqa: FURB122 -- writelines of a SpooledTemporaryFile holds all in memory
        to.write(part.encode())
