"""Pieces of Markdown (CommonMark with GitHub's tables) that show hostile text as plain text."""

import re
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from rich.cells import cell_len

from ledger.operations.render.words import Missing, shown

_HARMLESS = re.compile(r"[^\W\d_][^\W_]*(?:[ .,@-]{1,2}[^\W_]+)*")
_MARKUP = re.compile(
    r"[\\`*\[\]<>|~#]|&#?\w+;|(?<![^\W_])_|_(?![^\W_])|^=|^[-+:](?!\d)|^\d{1,9}[.)](?: |$)"
)
"""What might be markup in a line of prose."""

_WIDEST = 40
"""The widest a column is padded, for people who read the table unrendered."""


def code(text: str | None) -> str:
    """Return a text as a code span, in which nothing is markup, or "" if there is no text."""
    if not text:
        return ""
    inside = as_span(text)
    runs = re.findall("`+", inside)
    if not runs:
        return f"`{inside}`"
    fence = "`" * (max(map(len, runs)) + 1)
    return f"{fence} {inside} {fence}"


def as_span(text: str) -> str:
    """Return a text as a code span shows it.

    A pipe would end a table's cell even in a code span. Escaping it with a backslash would show the
    backslash before rendering only, so it is escaped as in JSON, which reads the same either way.
    """
    return shown(text, unsafe="|")


def plain(text: str) -> str:
    """Return a name unchanged if it holds no markup, otherwise as a code span."""
    return text if _HARMLESS.fullmatch(text) else code(text)


def prose(text: str) -> str:
    """Return somebody's words line by line, a line that might hold markup as a code span."""
    return "\n".join(
        code(line) if _MARKUP.search(line) or not line.isprintable() else line
        for line in map(str.strip, text.splitlines())
    )


def quote(text: str) -> str:
    """Return somebody's words as a block quote that keeps their paragraphs."""
    return "".join(f"> {line}".rstrip() + "\n" for line in prose(text).split("\n"))


def row(cells: Iterable[str]) -> str:
    """Return a row of a table; its cells are already Markdown."""
    return f"| {' | '.join(cells)} |\n"


def head(columns: Sequence[str]) -> str:
    """Return the head of a table."""
    return row(columns) + f"|{'---|' * len(columns)}\n"


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose columns are aligned in its source, too."""
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
"""What a missing event belongs to, in the names of Flabs' fields."""


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
    """Write parts one by one."""
    for part in parts:  # noqa: FURB122 -- writelines of a SpooledTemporaryFile holds all in memory
        to.write(part.encode())
