"""A prepared statement that an event loop runs on a plain connection.

The driver's asynchronous connections take more of the loop's time for one statement than all else
that an append does; a thread beside the loop would wait for the interpreter as often as for
PostgreSQL.
"""

import asyncio
from collections.abc import Callable, Sequence

from psycopg import Connection
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

_NAME = b"ledger"
_BINARY = 1


class Prepared:
    """The one statement of a connection that is run so."""

    def __init__(self, connection: Connection, query: str) -> None:
        """Prepare it, which blocks. Raises `psycopg.Error`."""
        self.connection = connection
        self._pgconn = connection.pgconn
        prepared = self._pgconn.prepare(_NAME, query.encode())
        if prepared.status != ExecStatus.COMMAND_OK:
            raise error_from_result(prepared)

    async def run(self, parameters: Sequence[bytes]) -> PGresult:
        """Return its rows; parameters and rows are in binary form. Raises `psycopg.Error`.

        Nobody else may use the connection until then.
        """
        pgconn = self._pgconn
        loop = asyncio.get_running_loop()
        pgconn.send_query_prepared(_NAME, parameters, [_BINARY] * len(parameters), _BINARY)
        while pgconn.flush():
            await _ready(pgconn.socket, loop.add_writer, loop.remove_writer)
            pgconn.consume_input()
        results = []
        while True:
            while pgconn.is_busy():
                await _ready(pgconn.socket, loop.add_reader, loop.remove_reader)
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                break
            results.append(result)
        if results[-1].status != ExecStatus.TUPLES_OK:
            raise error_from_result(results[-1])
        return results[-1]


async def _ready(socket: int, add: Callable[..., object], remove: Callable[[int], object]) -> None:
    """Wait until the socket can be read or written, as `add` and `remove` say."""
    ready = asyncio.get_running_loop().create_future()
    add(socket, _set, ready)
    try:
        await ready
    finally:
        remove(socket)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
