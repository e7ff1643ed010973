"""Raw connections to a server: requests sent byte for byte, in any pieces and order."""

import json
import socket
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.support.server import TOKEN, LedgerServer

PATIENCE = 10.0

Answer = tuple[int, dict[bytes, bytes], bytes]


class Wire:
    """A connection on which bytes are sent as they are."""

    def __init__(self, server: LedgerServer) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if server.tls:
            self.socket = server.tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self._reader = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def flood(self, data: bytes, *, most: int) -> int:
        """Send data again and again until it is no longer taken; return the bytes sent."""
        sent = 0
        self.socket.settimeout(1.0)
        with suppress(OSError):
            while sent < most:
                sent += self.socket.send(data)
        self.socket.settimeout(PATIENCE)
        return sent

    def line(self) -> bytes:
        """Return the next line that comes."""
        return self._reader.readline()

    def answer(self) -> Answer:
        """Return status, headers and content of the next answer to a request other than HEAD."""
        status, headers = self.head()
        return status, headers, self._reader.read(int(headers.get(b"content-length", 0)))

    def head(self) -> tuple[int, dict[bytes, bytes]]:
        """Return status and headers of the next answer."""
        status = int(self._reader.readline().split()[1])
        headers: dict[bytes, bytes] = {}
        while (line := self._reader.readline().strip()) != b"":
            name, value = line.split(b": ", 1)
            headers[name.lower()] = value
        return status, headers

    def is_at_end(self) -> bool:
        """Wait until the server closes the connection; return whether that was the next thing."""
        with suppress(ConnectionResetError):
            return self._reader.read(1) == b""
        return True


def request(
    body: bytes,
    *,
    method: str = "POST",
    path: str = "/webhooks/flabs",
    token: str | None = TOKEN,
    version: str = "1.1",
    **headers: str,
) -> bytes:
    given = {"Host": "ledger", "Content-Length": str(len(body)), **headers}
    if token is not None:
        given["Authorization"] = f"Bearer {token}"
    lines = [f"{method} {path} HTTP/{version}", *(f"{n}: {v}" for n, v in given.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*parts: bytes, token: str | None = TOKEN, trailers: bytes = b"") -> bytes:
    """Return a delivery in chunks."""
    head = request(b"", token=token, **{"Transfer-Encoding": "chunked"})
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return head.replace(b"Content-Length: 0\r\n", b"") + chunks + b"0\r\n" + trailers + b"\r\n"


def outcome(answer: Answer) -> tuple[int, str]:
    """Return the status and what became of the delivery."""
    status, headers, content = answer
    assert headers[b"content-type"] == b"application/json", content
    return status, json.loads(content)["outcome"]


def position(answer: Answer) -> int:
    return int(json.loads(answer[2])["position"])
