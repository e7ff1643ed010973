"""Tables of listing commands: drawn on a terminal, tab-separated lines everywhere else."""

import sys
from collections.abc import Iterable, Sequence

import rich_click as click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ledger.operations.render.words import shown


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, whole: Sequence[str] = ()
) -> None:
    """Print a table, with the columns' names in its first line.

    On a terminal it fits the width, and columns in `whole` are not broken; NO_COLOR is respected.
    Elsewhere a row is one line with a tab between cells. A cell with an unprintable character is
    shown as a JSON string: such characters could drive the terminal, or end the line.
    """
    if not sys.stdout.isatty():
        for cells in (columns, *rows):
            click.echo("\t".join(map(shown, cells)))
        return
    table = Table(box=SIMPLE)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in whole)
    for cells in rows:
        table.add_row(*(Text(shown(cell)) for cell in cells))
    Console().print(table)
