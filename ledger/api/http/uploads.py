"""Bodies that are files: received as a whole, on disk if they are long, and read in own threads."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import IO, Any, TypeVar

import msgspec
from litestar import Request
from litestar.exceptions import HTTPException
from psycopg import Connection

from ledger.api.http.problems import ProblemError
from ledger.api.services import REPORT_SECONDS, Services
from ledger.errors import BusyError
from ledger.eventlog.import_files import MIB, ImportFile, Limits
from ledger.postgres.connect import connect

MAX_BYTES = 256 * MIB
LIMITS = Limits(value=MIB, unpacked=512 * MIB, values=1_000_000, unwanted=10_000, seconds=30)
IN_MEMORY = 4 * MIB

MOST_FILES = 8
"""Files that are received, wait or are read at a time: each can take `MAX_BYTES` of the disk."""

T = TypeVar("T")

# Apart from the default pool, which other requests share: an import takes up to a minute. A thread
# is enough: two imports of hostile files, measured, delay a delivery by less than 0.3 s.
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="import")
_files = 0


async def work_on_file(
    request: Request[Any, Any, Any],
    services: Services,
    work: Callable[[Connection, ImportFile], T],
) -> T:
    """Receive the body as a file, then do some work with it in a thread, with a connection.

    Raises `BusyError` while there are `MOST_FILES`, a 413 problem for a body that is too long, 400
    for a connection that broke; nothing was done then. Raises what `work` raises.
    """
    with _one_of_few():
        return await _work_on_file(request, services, work)


@contextmanager
def _one_of_few() -> Iterator[None]:
    global _files  # noqa: PLW0603 -- as many as the process has threads for
    if _files >= MOST_FILES:
        raise BusyError(f"{_files} files are being imported or wait for it; try again")
    _files += 1
    try:
        yield
    finally:
        _files -= 1


async def _work_on_file(
    request: Request[Any, Any, Any],
    services: Services,
    work: Callable[[Connection, ImportFile], T],
) -> T:
    # No payload is longer than a delivery; while the parser reads one, other threads wait.
    longest = max(LIMITS.value, services.settings.max_body)
    limits = msgspec.structs.replace(LIMITS, value=longest)
    file = await _receive(request)

    def do() -> T:
        with file, closing(connect(services.url, "import")) as connection:
            connection.execute(f"SET statement_timeout = '{REPORT_SECONDS}s'")
            return work(connection, ImportFile(file, limits=limits))

    return await asyncio.get_running_loop().run_in_executor(_threads, do)


async def _receive(request: Request[Any, Any, Any]) -> IO[bytes]:
    file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 -- the caller's
    size = 0
    announced = request.headers.get("content-length", "")
    try:
        _check(int(announced[:20]) if announced.isdecimal() else 0)
        async for part in request.stream():
            size += len(part)
            _check(size)
            file.write(part)
    except HTTPException as error:  # raised by the framework when the sender is gone
        file.close()
        raise ProblemError(400, f"the connection broke; nothing was imported: {error}") from error
    except BaseException:
        file.close()
        raise
    return file


def _check(size: int) -> None:
    if size > MAX_BYTES:
        raise ProblemError(
            413,
            f"the file is longer than {MAX_BYTES // MIB} MiB: send it in parts, or use "
            "`ledger import`",
            {"Connection": "close"},
        )
