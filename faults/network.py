"""A TCP relay between Ledger and PostgreSQL that can be cut, silenced and pointed elsewhere."""

import asyncio
import threading
from contextlib import suppress

CHUNK = 65_536


class Relay:
    """Runs an event loop in a thread of its own. Its methods may be called from any thread."""

    def __init__(self, target: int) -> None:
        """`target` is a port on 127.0.0.1, like the relay's own."""
        self.target = target
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._refuses = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()
        self._started.wait()

    def cut(self) -> None:
        """Reset all connections, and each new one."""
        self._refuses = True
        self.drop()

    def drop(self) -> None:
        """Reset all connections."""
        self._loop.call_soon_threadsafe(self._drop)

    def silence(self) -> None:
        """Take what is sent, and pass nothing on."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def mend(self) -> None:
        """Pass everything on again."""
        self._refuses = False
        self._loop.call_soon_threadsafe(self._flowing.set)

    def close(self) -> None:
        """End the relay."""
        self.drop()
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._flowing, self._ended = asyncio.Event(), asyncio.Event()
        self._flowing.set()
        server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._ended.wait()
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _drop(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._flowing.wait()
            if self._refuses:
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(far_writer)
            try:
                pumps = [self._pump(reader, far_writer), self._pump(far_reader, writer)]
                await asyncio.wait(
                    [asyncio.ensure_future(pump) for pump in pumps],
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                self._writers.discard(far_writer)
                far_writer.transport.abort()
        except OSError:
            return
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
            await writer.drain()
