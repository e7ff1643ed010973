"""Labs: when each was heard of last, how much comes and how late, and what is subscribed."""

from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import Controller, Request, Response, get
from msgspec import Struct
from psycopg import Connection

from ledger.api.http.guards import READ
from ledger.api.http.parameters import read_cursor, write_cursor
from ledger.api.permissions import Caller
from ledger.api.services import Services
from ledger.model.silence import HearingState
from ledger.operations.api_keys import SCOPES
from ledger.operations.coverage import Coverage, coverage_findings, read_coverage
from ledger.operations.delivery_hours import LabRate, read_lab_rates
from ledger.operations.lab_list import LabItem, list_lab_items
from ledger.operations.near_losses import read_near_losses
from ledger.operations.policy import Policy
from ledger.operations.read_models import NearLoss
from ledger.page.parameters import choice_of, text_of
from ledger.page.render import respond
from ledger.projection import store

PART = 50
WEEK = timedelta(days=7)

AnyRequest = Request[Any, Any, Any]


class Habit(Struct, frozen=True):
    """What came from a lab in the last days."""

    deliveries: int
    late_share: float | None
    """Of those whose attempt is clear; None if there are none."""
    clock_seconds: int | None


class LabsController(Controller):
    """Labs."""

    path = "/"
    include_in_schema = False

    @get("/labs", opt=READ)
    async def list_labs(
        self, request: AnyRequest, services: Services, caller: Caller
    ) -> Response[str]:
        """List labs in the order of their ids."""
        key = read_cursor(text_of(request, "cursor"), str)
        state = choice_of(request, "state", HearingState)
        now = datetime.now(UTC)

        def work(
            connection: Connection,
        ) -> tuple[int, list[LabItem], dict[str, Habit], dict[str, LabRate], Coverage | None]:
            position = store.read_checkpoint(connection).position
            found = list_lab_items(
                connection, services.policy, now, services.hearings, labs=caller.labs, state=state,
                after=key[0] if key else None, limit=PART + 1,
            )  # fmt: skip
            habits = _habits(connection, services.policy, now, found[:PART])
            rates = read_lab_rates(connection, now, labs=[lab.lab_id for lab in found[:PART]])
            coverage = None
            if caller.scope == SCOPES[-1]:  # as the API
                coverage = read_coverage(connection, services.policy, labs=caller.labs)
            return position, found, habits, rates, coverage

        position, found, habits, rates, coverage = await services.run(work)
        wrong = coverage_findings(coverage) if coverage else []
        following = write_cursor(found[PART - 1].lab_id) if len(found) > PART else None
        return respond(
            request, "labs.html", position=position, labs=found[:PART], habits=habits,
            rates=rates, following=following, state=state,
            check=coverage.check if coverage else None,
            wrong=wrong[:PART], wrong_count=len(wrong),
        )  # fmt: skip


def _habits(
    connection: Connection, policy: Policy, now: datetime, labs: list[LabItem]
) -> dict[str, Habit]:
    days: dict[str, list[NearLoss]] = {}
    since = (now - WEEK).date()
    named = tuple(lab.lab_id for lab in labs)
    for day in read_near_losses(connection, policy, first_day=since, labs=named):
        days.setdefault(day.lab_id, []).append(day)
    return {lab_id: _habit(found) for lab_id, found in days.items()}


def _habit(days: list[NearLoss]) -> Habit:
    clear = sum(sum(day.attempts) for day in days)
    late = sum(sum(day.attempts[1:]) for day in days)
    skews = [day.clock_skew_seconds for day in days if day.clock_skew_seconds is not None]
    return Habit(
        deliveries=sum(day.deliveries for day in days),
        late_share=late / clear if clear else None,
        clock_seconds=skews[-1] if skews else None,
    )
