"""What is said of the measurements: on the terminal, and in `RESULTS.md`."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.row import Figure, Row

Outcome = Row | str
"""A row, or why there is none."""


def text(row: Row) -> str:
    """Write a row for the terminal."""
    lines = [f"{row.number}  {row.what}", f"    against {row.against}"]
    if row.against == "-":
        del lines[1]
    if row.target:
        lines.append(f"    {_median(row)}   target {row.target}   {_verdict(row)}")
    lines += [f"    {figure.what:46} {_figure(figure)}" for figure in row.figures]
    lines += [f"    {remark}" for remark in row.remarks]
    return "\n".join(lines) + "\n"


def markdown(facts: Mapping[str, str], how: Sequence[str], outcomes: Mapping[str, Outcome]) -> str:
    """Write everything as a page: facts of the machine, the table, the figures of each row."""
    rows = [outcome for outcome in outcomes.values() if isinstance(outcome, Row)]
    failed = {number: why for number, why in outcomes.items() if isinstance(why, str)}
    parts = [
        "# Results",
        "Written by `python -m benchmarks`, not by hand.",
        "\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in facts.items())]),
        "\n".join(f"- {line}" for line in how),
        "\n".join(
            [
                "| # | What | Against | Median (min to max) | Target | |",
                "|---|---|---|---|---|---|",
                *(_cells(row) for row in rows),
                *(f"| {n} | failed: {_cell(why)} | | | | failed |" for n, why in failed.items()),
            ]
        ),
    ]
    for row in rows:
        lines = [f"## {row.number}: {row.what}", ""]
        if row.figures:
            lines += ["| | Median | Min to max | |", "|---|---:|---|---|"]
            lines += [_figure_cells(figure) for figure in row.figures]
        lines += [f"\n{remark}" for remark in row.remarks]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cells(row: Row) -> str:
    median = _median(row) if row.values else "see below"
    return (
        f"| {row.number} | {row.what} | {row.against} | {median} | {row.target or 'none'} "
        f"| {_verdict(row)} |"
    )


def _figure_cells(figure: Figure) -> str:
    low, high = min(figure.values), max(figure.values)
    median = statistics.median(figure.values)
    return (
        f"| {figure.what} | {_number(median)} | {_number(low)} to {_number(high)} | {figure.unit} |"
    )


def _median(row: Row) -> str:
    unit = row.target.unit if row.target else ""
    return _figure(Figure("", row.values, unit))


def _figure(figure: Figure) -> str:
    median = f"{_number(statistics.median(figure.values))} {figure.unit}".strip()
    if len(figure.values) == 1:
        return median
    return f"{median} ({_number(min(figure.values))} to {_number(max(figure.values))})"


def _verdict(row: Row) -> str:
    return {True: "reached", False: "NOT reached", None: ""}[row.reached]


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "/")
