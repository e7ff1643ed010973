"""Files that a form brings: looked at first, then taken if it is still the same file."""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from typing import IO, Any, TypeVar

from litestar import Request
from litestar.datastructures import UploadFile
from msgspec import Struct
from psycopg import Connection

from ledger.api.http.problems import ProblemError
from ledger.api.http.uploads import MAX_BYTES, RECEIVE_SECONDS, work_on_upload
from ledger.api.services import Services
from ledger.errors import QuestionError
from ledger.eventlog.import_files import ImportFile

MAX_FORM_BYTES = MAX_BYTES + 64 * 1024
"""Of a request with a file of the longest kind, and what a form adds to it."""

LONGEST_NAME = 200

T = TypeVar("T")

AnyRequest = Request[Any, Any, Any]


class Upload(Struct, frozen=True):
    """A file: its name, the SHA-256 of its bytes, and whether it was looked at before."""

    name: str
    digest: str
    is_sure: bool


async def work_on_form(
    request: AnyRequest, services: Services, work: Callable[[Connection, ImportFile, Upload], T]
) -> T:
    """Do some work with the file of a form, as `work_on_file` does with a body.

    A form says with `sure` which file was looked at, by its digest. Raises `QuestionError` without
    a file, and for another file than that.
    """
    taken: dict[str, Any] = {}

    async def receive() -> tuple[IO[bytes], str | None]:
        try:
            async with asyncio.timeout(RECEIVE_SECONDS):
                form = await request.form()
        except TimeoutError as error:
            raise ProblemError(408, f"the file did not come within {RECEIVE_SECONDS} s") from error
        file = form.get("file")
        if not isinstance(file, UploadFile) or not file.filename:
            raise QuestionError("no file was chosen: choose one")
        taken.update(sure=str(form.get("sure", "")), file=file.file)
        return file.file, file.filename.rpartition("\\")[2][-LONGEST_NAME:]

    def do(connection: Connection, file: ImportFile) -> T:
        digest = _digest(taken["file"])
        if taken["sure"] not in ("", digest):
            raise QuestionError(
                "this is another file than the one that was looked at, so nothing was taken: look "
                "at it first"
            )
        return work(connection, file, Upload(file.name or "", digest, taken["sure"] == digest))

    return await work_on_upload(receive, services, do)


def _digest(file: IO[bytes]) -> str:
    found = sha256()
    file.seek(0)
    while part := file.read(1024 * 1024):
        found.update(part)
    file.seek(0)
    return found.hexdigest()
