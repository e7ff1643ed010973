"""Carries out the decisions of the log to erase bodies; `ledger.erase_body` alone can."""

from collections.abc import Sequence

from psycopg import Connection


def carry_out(connection: Connection, decisions: Sequence[int]) -> list[int]:
    """Erase the bodies that decisions at these positions name; return the events' positions.

    A decision whose event is not here, or has no body any more, changes nothing. Raises
    `psycopg.Error`.
    """
    erased = []
    for decision in decisions:
        row = connection.execute("SELECT ledger.erase_body(%s)", (decision,)).fetchone()
        if row and row[0] is not None:
            erased.append(int(row[0]))
    return erased
