"""The list of faults, which the modules with faults fill."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random

from msgspec import Struct

from faults.load import Load
from faults.world import World

Strike = Callable[[World, Load, Random], Iterator[None]]
Reason = Callable[[Path], str | None]


class Fault(Struct, frozen=True):
    """A kind of damage. Entering what `strike` returns does it, leaving that mends it.

    `reason` gets the folder of PostgreSQL's folder, and says why it cannot be done here, or
    None. `moves_clock`: the server's clock is not the senders', so that the times of refusals
    cannot be compared with theirs. `refuses`: deliveries may be refused, because neither the
    log nor the spool can take them. `lasts`: between how many seconds it lasts, unless told
    otherwise. `contained`: PostgreSQL must run in a container.
    """

    name: str
    strike: Callable[[World, Load, Random], AbstractContextManager[None]]
    reason: Reason
    moves_clock: bool
    refuses: bool
    lasts: tuple[float, float]
    contained: bool


USUAL_SECONDS = (0.3, 6.0)

FAULTS: dict[str, Fault] = {}


def fault(
    name: str,
    *,
    reason: Reason = lambda _: None,
    moves_clock: bool = False,
    refuses: bool = False,
    lasts: tuple[float, float] = USUAL_SECONDS,
    contained: bool = False,
) -> Callable[[Strike], Strike]:
    """Put a function that damages, yields and mends on the list."""

    def add(strike: Strike) -> Strike:
        FAULTS[name] = Fault(
            name, contextmanager(strike), reason, moves_clock, refuses, lasts, contained
        )
        return strike

    return add
