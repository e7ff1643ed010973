"""A receiver of webhooks that answers as a test wants."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

HANG = None
Answer = Callable[[int], int | None]


class Receiver:
    """A tiny HTTP server. `answer` gives the status for the n-th try of a body; None hangs."""

    def __init__(self, answer: Answer) -> None:
        self.url = ""
        self.bodies: list[bytes] = []
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.received = asyncio.Semaphore(0)
        self._answer = answer
        self._tries: Counter[bytes] = Counter()

    async def wait_for(self, count: int) -> None:
        for _ in range(count):
            await asyncio.wait_for(self.received.acquire(), 30)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head)}
        body = await reader.readexactly(int(headers["content-length"]))
        self._tries[body] += 1
        self.bodies.append(body)
        self.times.append(monotonic())
        self.headers.append(headers)
        self.received.release()
        status = self._answer(self._tries[body])
        if status is HANG:
            await reader.read()  # ends when the sender gives up
            return False
        # A 204 has no body.
        answer = (
            b"" if status == 204 else b'{"outcome":"recorded","position":%d}' % len(self.bodies)
        )
        writer.write(b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n" % (status, len(answer)))
        writer.write(answer)
        await writer.drain()
        return True


@asynccontextmanager
async def receiving(answer: Answer) -> AsyncIterator[Receiver]:
    receiver = Receiver(answer)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(receiver.serve(reader, writer))
        tasks.add(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/webhooks/flabs"
    try:
        yield receiver
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
