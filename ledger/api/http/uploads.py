"""Bodies that are files: received as a whole, on disk if they are long, and read in own threads."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
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

RECEIVE_SECONDS = 900
"""How long a file may take to come."""

T = TypeVar("T")

# Apart from the default pool, which other requests share: an import takes up to a minute. A thread
# is enough: two imports of hostile files, measured, delay a delivery by less than 0.3 s.
_threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="import")
_under_way: set[object] = set()


async def work_on_file(
    request: Request[Any, Any, Any],
    services: Services,
    work: Callable[[Connection, ImportFile], T],
) -> T:
    """Receive the body as a file, then do some work with it in a thread, with a connection.

    Raises a 413 problem for a body that is too long, 408 for one that takes too long, 400 for a
    connection that broke, `BusyError` while there are too many; nothing was done then. Raises what
    `work` raises.
    """

    async def receive() -> tuple[IO[bytes], str | None]:
        return await _receive(request), None

    return await work_on_upload(receive, services, work)


async def work_on_upload(
    receive: Callable[[], Awaitable[tuple[IO[bytes], str | None]]],
    services: Services,
    work: Callable[[Connection, ImportFile], T],
) -> T:
    """Receive a file, which may have a name, by `receive`, and go on as `work_on_file` does."""
    if len(_under_way) >= MOST_FILES:
        raise BusyError(f"{MOST_FILES} files are being imported or wait for it; try again")
    upload = object()
    _under_way.add(upload)
    try:
        file, name = await receive()
    except BaseException:
        _under_way.discard(upload)
        raise
    # No payload is longer than a delivery; while the parser reads one, other threads wait.
    longest = max(LIMITS.value, services.settings.max_body)
    limits = msgspec.structs.replace(LIMITS, value=longest)

    def do() -> T:
        with file, closing(connect(services.url, "import")) as connection:
            connection.execute(f"SET statement_timeout = '{REPORT_SECONDS}s'")
            return work(connection, ImportFile(file, name=name, limits=limits))

    future = _threads.submit(do)
    # Counted until the thread is done, which a caller that gave up does not change.
    future.add_done_callback(lambda _: _under_way.discard(upload))
    return await asyncio.wrap_future(future)


async def _receive(request: Request[Any, Any, Any]) -> IO[bytes]:
    file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 -- the caller's
    size = 0
    announced = request.headers.get("content-length", "")
    try:
        _check(int(announced[:20]) if announced.isdecimal() else 0)
        async with asyncio.timeout(RECEIVE_SECONDS):
            async for part in request.stream():
                size += len(part)
                _check(size)
                file.write(part)
    except TimeoutError as error:
        file.close()
        raise ProblemError(
            408,
            f"the file did not come within {RECEIVE_SECONDS} s; nothing was imported",
            {"Connection": "close"},
        ) from error
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
