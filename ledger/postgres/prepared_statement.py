"""A prepared statement that an event loop runs on a plain connection.

The driver's asynchronous connections take more of the event loop's time for one statement than
everything else that an append does; a thread would wait for the interpreter as often as for
PostgreSQL. This module uses the driver's documented wrapper of libpq (`psycopg.pq`) and its
adapters (`psycopg.adapt.Transformer`).
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import psycopg
from psycopg import Connection
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

_NAME = b"ledger"

Row = tuple[Any, ...]


class PreparedStatement:
    """A connection dedicated to one prepared statement."""

    def __init__(self, connection: Connection, query: str) -> None:
        """Prepare the statement, which blocks. Raises `psycopg.Error`."""
        self.connection = connection
        self._pgconn = connection.pgconn
        self._transformer = Transformer(connection)
        self._results: list[PGresult] = []
        self._watched: tuple[int, Callable[[], object]] | None = None
        self._unsent = False
        prepared = self._pgconn.prepare(_NAME, query.encode())
        if prepared.status != ExecStatus.COMMAND_OK:
            raise error_from_result(prepared)

    async def run(self, parameters: Sequence[Any]) -> list[Row]:
        """Run the statement and return its rows. Raises `psycopg.Error`.

        The connection must not be used for anything else until then.
        """
        rows: asyncio.Future[list[Row]] = asyncio.get_running_loop().create_future()

        def look() -> None:
            if rows.done():  # the caller may have been cancelled
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
        """Have the event loop call a function whenever `take` may return rows.

        This lasts until `unwatch`, or until `send` or `take` raises.
        """
        self._watched = (self._pgconn.socket, look)
        asyncio.get_running_loop().add_reader(*self._watched)

    def unwatch(self) -> None:
        """End what `watch` began."""
        if self._watched:
            loop, socket = asyncio.get_running_loop(), self._watched[0]
            loop.remove_reader(socket)
            loop.remove_writer(socket)
            self._watched = None

    def send(self, parameters: Sequence[Any]) -> None:
        """Begin to run the statement while it is watched; `take` returns its rows."""
        self._results = []
        dumped = self._transformer.dump_sequence(parameters, [PyFormat.BINARY] * len(parameters))
        with self._unwatched_on_error():
            formats = [Format.BINARY] * len(parameters)
            self._pgconn.send_query_prepared(_NAME, dumped, formats, Format.BINARY)
            self._unsent = bool(self._pgconn.flush())
        if self._unsent and self._watched:
            asyncio.get_running_loop().add_writer(*self._watched)

    def take(self) -> list[Row] | None:
        """Return the rows if they have arrived, without waiting. Raises `psycopg.Error`."""
        pgconn = self._pgconn
        with self._unwatched_on_error():
            pgconn.consume_input()  # which also sends what is left to send
            if self._unsent and self._watched and not pgconn.flush():
                self._unsent = False
                asyncio.get_running_loop().remove_writer(self._watched[0])
            while not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    return self._rows()
                self._results.append(result)
        return None

    def _rows(self) -> list[Row]:
        last = self._results[-1]
        if last.status != ExecStatus.TUPLES_OK:
            raise error_from_result(last)
        self._transformer.set_pgresult(last, format=Format.BINARY)
        return cast("list[Row]", self._transformer.load_rows(0, last.ntuples, tuple))

    @contextmanager
    def _unwatched_on_error(self) -> Iterator[None]:
        """Forget the socket at once on an error.

        The driver may have closed it, and its number may be reused.
        """
        try:
            yield
        except psycopg.Error:
            self.unwatch()
            raise
