"""Who asks or decides: a name, an API key, and the labs that the key is for.

Source: docs/rules.md, "Operators' decisions".
"""

from msgspec import Struct

Labs = tuple[str, ...] | None
"""The labs that somebody may see and decide about; None: all, and what belongs to no lab."""


class Operator(Struct, frozen=True):
    """Who decides: the name that they gave, and the id of their API key, which proves it.

    Without a key it was the command line, which needs access to the database. They decide about
    `labs` only.
    """

    name: str
    key: str | None = None
    labs: Labs = None


def concerns(labs: Labs, lab_id: str | None) -> bool:
    """Return whether a lab is among `labs`. What belongs to no lab concerns only all labs."""
    return labs is None or lab_id in labs


def as_array(labs: Labs) -> list[str] | None:
    """Return labs as a parameter of a query."""
    return None if labs is None else list(labs)
