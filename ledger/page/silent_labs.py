"""Silent labs for the overview, judged apart from it: a look back at many labs takes its time."""

import asyncio
import time
from contextvars import Context
from datetime import UTC, datetime

import psycopg
import structlog
from msgspec import Struct

from ledger.api.services import Services
from ledger.errors import LedgerError, one_line
from ledger.model.operators import Labs
from ledger.operations.read_models import LabSilence
from ledger.operations.silence import silences_of

TRUSTED_SECONDS = 10.0
"""How old what was judged may be."""

WAIT_SECONDS = 0.15
"""How long a page waits for it; the next one has it."""

_log = structlog.get_logger(__name__)


class Judged(Struct, frozen=True):
    """The silent labs, the longest silence first; None: they are not known yet."""

    silent: list[LabSilence] | None


class _Reading(Struct):
    task: asyncio.Task[Judged]
    began: float


_readings: dict[tuple[object, str, Labs], _Reading] = {}
"""By event loop, database and labs."""


async def read_silent(services: Services, labs: Labs) -> Judged:
    """Return the silent ones of these labs as far as they are known in time."""
    key = (asyncio.get_running_loop(), services.url, labs)
    reading = _readings.get(key)
    is_old = reading and reading.task.done() and _age(reading) > TRUSTED_SECONDS
    if reading is None or is_old:
        if len(_readings) > 1000:  # noqa: PLR2004 -- keys for many sets of labs
            _readings.clear()
        # It outlives the request that starts it, and must not log in its name.
        task = asyncio.create_task(_judge(services, labs), context=Context())
        reading = _Reading(task, time.monotonic())
        _readings[key] = reading
    done, _ = await asyncio.wait({reading.task}, timeout=WAIT_SECONDS)
    return reading.task.result() if done else Judged(None)


def _age(reading: _Reading) -> float:
    return time.monotonic() - reading.began


async def _judge(services: Services, labs: Labs) -> Judged:
    now = datetime.now(UTC)
    try:
        hearings = await services.run(
            lambda connection: services.hearings.read(connection, now, labs=labs)
        )
    except (LedgerError, psycopg.Error) as error:
        _log.warning("silent labs could not be judged", error=one_line(error))
        return Judged(None)
    return Judged([one for one in silences_of(hearings) if one.state == "silent"])
