"""Imports, over HTTP, what support sends."""

from typing import Annotated, Any

from litestar import Request, Response, post
from litestar.params import QueryParameter
from psycopg import Connection

from ledger.api.http.guards import OPERATE
from ledger.api.http.responses import answer, encode, ok
from ledger.api.http.uploads import work_on_file
from ledger.api.services import PATIENCE, Services
from ledger.eventlog.import_files import ImportFile
from ledger.eventlog.import_values import Options
from ledger.model.operators import Operator
from ledger.operations.support_requests.imports import ImportReport, import_file, preview_file


@post(
    "/v1/imports",
    opt=OPERATE,
    operation_id="ImportEvents",
    status_code=200,
    request_max_body_size=None,  # the file has a limit of its own
    responses={200: ok(ImportReport, description="What became of it.")},
)
async def import_events(
    request: Request[Any, Any, Any],
    services: Services,
    operator: Operator,
    *,
    keep_unreadable: Annotated[
        bool,
        QueryParameter(
            required=False,
            description="Record values that are no webhook, too; otherwise they are only reported.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        QueryParameter(required=False, description="Count what would be recorded; record nothing."),
    ] = False,
) -> Response[bytes]:
    """Import payloads of Flabs as support sends them, and report what they settled.

    JSON Lines, a JSON array or JSON values one after the other, in UTF-8, UTF-16 or UTF-32, plain
    or packed by gzip or zip. Any other file is refused as a whole. What is in the log already is a
    duplicate, so a file may be sent again. A key that is for some labs imports events of these
    alone; a file with others is refused as a whole.
    """
    options = Options(by=operator, keep_unreadable=keep_unreadable)

    def work(connection: Connection, file: ImportFile) -> ImportReport:
        if dry_run:
            return preview_file(connection, file, options)
        return import_file(
            services.url,
            connection,
            file,
            options,
            patience=PATIENCE,
            on_progress=lambda _: None,
        )

    report = await work_on_file(request, services, work)
    return answer(encode(report), report.position)
