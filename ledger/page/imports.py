"""Imports of what support sends: a look at the file, then the import and what it settled."""

from typing import Any

from litestar import Controller, Request, Response, get, post
from psycopg import Connection

from ledger.api.http.guards import OPERATE
from ledger.api.services import PATIENCE, Services
from ledger.errors import DecisionError, ForbiddenError, ImportFileError, QuestionError
from ledger.eventlog.import_files import ImportFile
from ledger.eventlog.import_values import Options
from ledger.model.operators import Operator
from ledger.operations.support_requests.imports import ImportReport, import_file, preview_file
from ledger.page.parameters import number_of
from ledger.page.render import respond
from ledger.page.uploads import MAX_FORM_BYTES, Upload, work_on_form

SHOWN = 50
"""Lines of each kind that the page lists; its counts cover all."""

AnyRequest = Request[Any, Any, Any]


class ImportsController(Controller):
    """Imports."""

    path = "/"
    include_in_schema = False

    @get("/imports", opt=OPERATE)
    async def show_form(self, request: AnyRequest) -> Response[str]:
        """Show the form for a file."""
        return respond(
            request, "import.html", report=None, upload=None, problem=None, shown=SHOWN,
            number=number_of(request, "request"),
        )  # fmt: skip

    @post("/imports", opt=OPERATE, status_code=200, request_max_body_size=MAX_FORM_BYTES)
    async def import_events(
        self, request: AnyRequest, services: Services, operator: Operator
    ) -> Response[str]:
        """Show what a file would bring or, if it was looked at, import it and tell what it did."""
        options = Options(by=operator)

        def work(
            connection: Connection, file: ImportFile, upload: Upload
        ) -> tuple[ImportReport, Upload]:
            if not upload.is_sure:
                return preview_file(connection, file, options), upload
            report = import_file(
                services.url, connection, file, options,
                patience=PATIENCE, on_progress=lambda _: None,
            )  # fmt: skip
            return report, upload

        report, upload, problem = None, None, None
        try:
            report, upload = await work_on_form(request, services, work)
        except (ImportFileError, QuestionError, ForbiddenError, DecisionError) as error:
            problem = str(error)
        return respond(
            request, "import.html", report=report, upload=upload, problem=problem, shown=SHOWN,
            number=number_of(request, "request"), position=report.position if report else None,
        )  # fmt: skip
