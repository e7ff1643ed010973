"""Taking in over HTTP what support sends."""

from typing import Any

from litestar import Request, Response, post
from psycopg import Connection

from ledger.api.http.guards import OPERATE
from ledger.api.http.responses import answer, ok
from ledger.api.http.uploads import receive_file, whole
from ledger.api.services import PATIENCE, Services
from ledger.operations.support_requests.imports import ImportReport, import_file
from ledger.projection.rows import encode


@post(
    "/v1/imports",
    opt=OPERATE,
    operation_id="ImportEvents",
    status_code=200,
    request_max_body_size=None,  # the file has a limit of its own
    responses={200: ok(ImportReport, description="What became of it.")},
)
async def import_events(request: Request[Any, Any, Any], services: Services) -> Response[bytes]:
    """Take in payloads of Flabs as support sends them, and say what they settled.

    JSON Lines or a JSON array, plain or gzip. What is in the log already is a duplicate, so a file
    may be sent again.
    """
    file = await receive_file(request)

    def work(connection: Connection) -> ImportReport:
        with whole(file) as lines:
            return import_file(
                services.url,
                connection,
                lines,
                exports=False,
                patience=PATIENCE,
                on_progress=lambda _: None,
            )

    report = await services.run(work)
    return answer(encode(report), report.position)
