"""Bodies that are files: received whole, on disk if they are long, before anything is done."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from litestar import Request
from litestar.exceptions import HTTPException

from ledger.api.http.problems import ProblemError
from ledger.errors import ImportFileError
from ledger.eventlog.import_files import unpacked

MAX_BYTES = 256 * 1024 * 1024
MAX_UNPACKED = 1024 * 1024 * 1024
PART = 1024 * 1024
IN_MEMORY = 4 * 1024 * 1024


async def receive_file(request: Request[Any, Any, Any]) -> IO[bytes]:
    """Return the body as a file, from its beginning; the caller closes it.

    Raises a 413 problem for one that is too long, 400 for a connection that broke: nothing was done
    then.
    """
    file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 -- the caller's
    size = 0
    announced = request.headers.get("content-length", "")
    try:
        _check(int(announced) if announced.isdecimal() else 0)
        async for part in request.stream():
            size += len(part)
            _check(size)
            file.write(part)
    except HTTPException as error:  # the framework's word for a sender that is gone
        file.close()
        raise ProblemError(400, f"the connection broke; nothing was taken: {error}") from error
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


@contextmanager
def whole(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give what is in an uploaded file, plain or gzip, once all of it can be read; then close it.

    Raises `ImportFileError` for a broken one, before anything is done with it.
    """
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as plain:
        with unpacked(file, "the body") as lines:
            size = 0
            while part := lines.read(PART):
                size += len(part)
                if size > MAX_UNPACKED:
                    raise ImportFileError(
                        f"the body is longer than {MAX_UNPACKED >> 20} MiB when it is unpacked: "
                        "send it in parts, or use `ledger import`"
                    )
                plain.write(part)
        plain.seek(0)
        yield cast("IO[bytes]", plain)


def _check(size: int) -> None:
    if size > MAX_BYTES:
        raise ProblemError(
            413,
            f"the file is longer than {MAX_BYTES >> 20} MiB: send it in parts, or use "
            "`ledger import`",
            {"Connection": "close"},
        )
