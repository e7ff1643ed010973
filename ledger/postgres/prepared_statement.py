"""A prepared statement that an event loop runs on a plain connection.

The driver's asynchronous connections take more of the loop's time for one statement than all else
that an append does; a thread beside the loop would wait for the interpreter as often as for
PostgreSQL.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg import Connection
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

_NAME = b"ledger"
_BINARY = 1


class PreparedStatement:
    """The one statement of a connection that is run so."""

    def __init__(self, connection: Connection, query: str) -> None:
        """Prepare it, which blocks. Raises `psycopg.Error`."""
        self.connection = connection
        self._pgconn = connection.pgconn
        self._results: list[PGresult] = []
        self._watched: tuple[int, Callable[[], object]] | None = None
        self._unsent = False
        prepared = self._pgconn.prepare(_NAME, query.encode())
        if prepared.status != ExecStatus.COMMAND_OK:
            raise error_from_result(prepared)

    async def run(self, parameters: Sequence[bytes]) -> PGresult:
        """Return its rows; parameters and rows are in binary form. Raises `psycopg.Error`.

        Nobody else may use the connection until then.
        """
        rows: asyncio.Future[PGresult] = asyncio.get_running_loop().create_future()

        def look() -> None:
            if rows.done():  # who waits for them may have been cancelled
                return
            try:
                found = self.take()
            except psycopg.Error as error:
                rows.set_exception(error)
            else:
                if found is not None:
                    rows.set_result(found)

        self.watch(look)
        try:
            self.send(parameters)
            return await rows
        finally:
            self.unwatch()

    def watch(self, look: Callable[[], object]) -> None:
        """Have the event loop call a function whenever `take` may have something to give.

        Until `unwatch`, or until `send` or `take` raises.
        """
        self._watched = (self._pgconn.socket, look)
        asyncio.get_running_loop().add_reader(*self._watched)

    def unwatch(self) -> None:
        """End that."""
        if self._watched:
            loop, socket = asyncio.get_running_loop(), self._watched[0]
            loop.remove_reader(socket)
            loop.remove_writer(socket)
            self._watched = None

    def send(self, parameters: Sequence[bytes]) -> None:
        """Begin to run it while it is watched: what `run` does, but that `take` gives the rows."""
        self._results = []
        with self._unwatched_if_it_fails():
            formats = [_BINARY] * len(parameters)
            self._pgconn.send_query_prepared(_NAME, parameters, formats, _BINARY)
            self._unsent = bool(self._pgconn.flush())
        if self._unsent and self._watched:
            asyncio.get_running_loop().add_writer(*self._watched)

    def take(self) -> PGresult | None:
        """Return the rows if they have come, without waiting. Raises `psycopg.Error`."""
        pgconn = self._pgconn
        with self._unwatched_if_it_fails():
            pgconn.consume_input()  # which sends on as well
            if self._unsent and self._watched and not pgconn.flush():
                self._unsent = False
                asyncio.get_running_loop().remove_writer(self._watched[0])
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    return self._rows()
                self._results.append(result)
        return None

    def _rows(self) -> PGresult:
        last = self._results[-1]
        if last.status != ExecStatus.TUPLES_OK:
            raise error_from_result(last)
        return last

    @contextmanager
    def _unwatched_if_it_fails(self) -> Iterator[None]:
        """Let go of the socket at once: the driver may have closed it, and its number be reused."""
        try:
            yield
        except psycopg.Error:
            self.unwatch()
            raise
