"""Bodies that are files: received whole, on disk if they are long, before anything is done."""

import tempfile
from typing import IO, Any

from litestar import Request
from litestar.exceptions import ClientException

from ledger.api.problem_handlers import ProblemError

MAX_BYTES = 256 * 1024 * 1024
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
    except ClientException as error:
        file.close()
        raise ProblemError(400, f"the connection broke; nothing was taken: {error}") from error
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _check(size: int) -> None:
    if size > MAX_BYTES:
        raise ProblemError(
            413,
            f"the file is longer than {MAX_BYTES >> 20} MiB: send it in parts, or use "
            "`ledger import`",
            {"Connection": "close"},
        )
