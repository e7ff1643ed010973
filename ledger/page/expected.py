"""Expected bills: those that integrators announced, and which of them were never seen."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from litestar import Controller, Request, Response, get, post
from litestar.response import Redirect
from msgspec import Struct
from psycopg import Connection

from ledger.api.http.guards import OPERATE, READ
from ledger.api.http.parameters import (
    from_microseconds,
    read_cursor,
    to_microseconds,
    write_cursor,
)
from ledger.api.permissions import Caller
from ledger.api.services import PATIENCE, Services
from ledger.errors import DecisionError, ForbiddenError, ImportFileError, QuestionError
from ledger.eventlog.import_files import ImportFile
from ledger.model.operators import Operator
from ledger.operations import expected_bills
from ledger.operations.expected_bill_list import cursor_of, item_of, list_query
from ledger.operations.expected_bills import Expectation, Refused
from ledger.operations.read_models import ExpectedState
from ledger.page.headers import SECURITY
from ledger.page.parameters import LONGEST_ID, choice_of, moment_of, text_of, written
from ledger.page.render import respond, zone_of
from ledger.page.uploads import MAX_FORM_BYTES, Upload, work_on_form

PART = 50

AnyRequest = Request[Any, Any, Any]


class Taken(Struct, frozen=True):
    """What a file of expected bills says, or brought: how many, and the lines that say nothing."""

    expected: int
    refused: list[Refused]
    refused_count: int
    upload: Upload


class ExpectedBillsController(Controller):
    """Expected bills."""

    path = "/"
    include_in_schema = False

    @get("/expected-bills", opt=READ)
    async def list_expected(
        self, request: AnyRequest, services: Services, caller: Caller
    ) -> Response[str]:
        """List expected bills, the one expected first in the first place."""
        now = datetime.now(UTC)
        filters = {name: text_of(request, name) for name in ("state", "lab")}
        key = read_cursor(text_of(request, "cursor"), int, str, str)
        query, values = list_query(
            choice_of(request, "state", ExpectedState), now,
            labs=caller.narrowed(filters["lab"]), limit=PART + 1,
            after=(from_microseconds(key[0]), key[1], key[2]) if key else None,
        )  # fmt: skip
        rows = await services.fetch_state(query, values)
        found = [row for row in rows if row[1] is not None]
        following = None
        if len(found) > PART:
            expected_by, *rest = cursor_of(found[PART - 1])
            following = write_cursor(to_microseconds(expected_by), *rest)
        return respond(
            request, "expected.html", position=rows[0][0], filters=filters, following=following,
            bills=[item_of(row, now) for row in found[:PART]], done=text_of(request, "done"),
        )  # fmt: skip

    @post("/expected-bills/preview", opt=OPERATE, status_code=200)
    async def preview(self, request: AnyRequest) -> Response[str]:
        """Show the bill that would be expected, or no longer be."""
        form = await request.form()
        stop = form.get("action") == "stop"
        one = None if stop else _expectation(request, form)
        integrator_id = written(form, "integrator", longest=LONGEST_ID)
        return respond(
            request, "expected_preview.html", integrator_id=integrator_id, one=one,
            typed=str(form.get("by", "")),
        )  # fmt: skip

    @post("/expected-bills/expect", opt=OPERATE, status_code=200)
    async def expect(
        self, request: AnyRequest, services: Services, operator: Operator
    ) -> Response[Any]:
        """Expect a bill."""
        one = _expectation(request, await request.form())
        await services.decide(
            lambda: expected_bills.expect_one(services.url, one, by=operator, patience=PATIENCE)
        )
        return _back(services, "expected")

    @post("/expected-bills/stop", opt=OPERATE, status_code=200)
    async def stop(
        self, request: AnyRequest, services: Services, operator: Operator
    ) -> Response[Any]:
        """Stop expecting a bill, from whichever lab that the key is for."""
        integrator_id = written(await request.form(), "integrator", longest=LONGEST_ID)
        await services.decide(
            lambda: expected_bills.stop_expecting(
                services.url, integrator_id, by=operator, patience=PATIENCE
            )
        )
        return _back(services, "stopped")

    @get("/expected-bills/file", opt=OPERATE)
    async def show_form(self, request: AnyRequest) -> Response[str]:
        """Show the form for a file of expected bills."""
        return respond(request, "expected_file.html", taken=None, problem=None)

    @post(
        "/expected-bills/file",
        opt=OPERATE,
        status_code=200,
        request_max_body_size=MAX_FORM_BYTES,
    )
    async def take_file(
        self, request: AnyRequest, services: Services, operator: Operator
    ) -> Response[str]:
        """Show what a file says or, if it was looked at, expect what it says."""

        def work(_: Connection, file: ImportFile, upload: Upload) -> Taken:
            expected_bills.check_labs(expected_bills.read_expectations(file), by=operator)
            expectations = expected_bills.read_expectations(file)
            if upload.is_sure:
                report = expected_bills.expect(
                    services.url, expectations, by=operator, patience=PATIENCE
                )[0]
                return Taken(report.expected, report.refused[:PART], len(report.refused), upload)
            kinds: Counter[type] = Counter()
            refused: list[Refused] = []
            for one in expectations:
                kinds[type(one)] += 1
                if isinstance(one, Refused) and len(refused) < PART:
                    refused.append(one)
            return Taken(kinds[Expectation], refused, kinds[Refused], upload)

        taken, problem = None, None
        try:
            taken = await work_on_form(request, services, work)
        except (ImportFileError, QuestionError, ForbiddenError, DecisionError) as error:
            problem = str(error)
        return respond(request, "expected_file.html", taken=taken, problem=problem)


def _expectation(request: AnyRequest, form: Any) -> Expectation:  # noqa: ANN401 -- the framework's form
    return Expectation(
        written(form, "integrator", longest=LONGEST_ID),
        moment_of(str(form.get("by", "")), "the time", zone_of(request)[1]),
        written(form, "lab", longest=LONGEST_ID) if str(form.get("lab", "")).strip() else None,
    )


def _back(services: Services, done: str) -> Redirect:
    address = f"{services.settings.path_prefix}/expected-bills?done={done}"
    return Redirect(address, status_code=303, headers=SECURITY)
