"""The sender's side of the webhook protocol: how Flabs delivers one event.

A 2xx within the timeout is success. Otherwise the sender retries up to three times, each one retry
interval after the failure of the attempt before; then the event is lost.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx
import msgspec

from ledger.simulator.history import Event
from ledger.simulator.plan import ATTEMPTS
from ledger.simulator.truth import Delivery, Record, timestamp

UNAUTHORIZED = 401
INTERRUPTED = "stopped before the answer"
TIMED_OUT = "timed out"
UNREACHED = "cannot connect"
BROKEN = "connection broken"


@dataclass(frozen=True, slots=True)
class Target:
    """Where webhooks go, and the token that they carry as `Authorization: Bearer ...`."""

    endpoint: str
    token: str | None = field(default=None, repr=False)


Route = Callable[[Event], Sequence[Target]]
"""Tells where an event goes: nowhere if nobody has subscribed to it."""


class Sender:
    """Delivers events over kept-alive connections.

    `route` is asked at the first attempt; the retries go to the same targets, although a newer
    subscription may have replaced them, because nobody says that they do not. `interval` and
    `timeout` are in seconds, already divided by `speed`. `on_delivery` is called at the end of
    each HTTP attempt. Whatever the receiver does, no method raises.
    """

    def __init__(
        self,
        *,
        route: Route,
        concurrency: int,
        interval: float,
        timeout: float,
        on_delivery: Callable[[Delivery], None],
    ) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "ledger-simulate"}
        # One client per connection: httpx searches its pool at every request, and one pool of 64
        # connections made 500 deliveries/s where 64 pools of one made 1,900.
        tls = httpx.create_ssl_context(trust_env=False)
        self._clients = [_client(headers, tls) for _ in range(concurrency)]
        self._idle: asyncio.Queue[httpx.AsyncClient] = asyncio.Queue()
        for client in self._clients:
            self._idle.put_nowait(client)
        self._route = route
        self._interval = interval
        self._timeout = timeout
        self._on_delivery = on_delivery

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for client in self._clients:
            await client.aclose()

    async def until_free(self) -> None:
        """Wait until a delivery could begin at once.

        New events wait for this, so that a retry that is due never queues behind them.
        """
        self._idle.put_nowait(await self._idle.get())

    async def deliver(self, record: Record) -> None:
        """Attempt delivery until the event is acknowledged or lost; add attempts to `record`.

        With several targets it is delivered if one of them acknowledges it; with none, dropped.
        """
        targets = self._route(record.planned.event)
        if not targets:
            record.state = "dropped"
            return
        states = await asyncio.gather(*(self._deliver_to(target, record) for target in targets))
        record.state = "delivered" if any(states) else "lost"

    async def _deliver_to(self, target: Target, record: Record) -> bool:
        fate = record.planned.fate
        if fate.attempt > 1:
            await asyncio.sleep((fate.attempt - 1) * self._interval)
        for attempt in range(fate.attempt, ATTEMPTS + 1):
            if attempt > fate.attempt:
                await asyncio.sleep(self._interval)
            if (await self._attempt(target, record, attempt, repeat=False)).acknowledged:
                break
        else:
            return False
        record.state = "delivered"  # also if the simulation is stopped before the repeat
        if fate.duplicate:
            await self._attempt(target, record, attempt, repeat=True)
        return True

    async def _attempt(
        self, target: Target, record: Record, attempt: int, *, repeat: bool
    ) -> Delivery:
        client = await self._idle.get()
        sent_at, begun = time.time(), time.perf_counter()
        answer: httpx.Response | None = None
        error: str | None = INTERRUPTED
        try:
            answer, error = await self._post(client, target, record.planned.event.body)
        finally:
            self._idle.put_nowait(client)
            said = _said(answer)
            delivery = Delivery(
                attempt=attempt,
                repeat=repeat,
                sent_at=timestamp(sent_at),
                seconds=round(time.perf_counter() - begun, 6),
                status=None if answer is None else answer.status_code,
                error=error,
                outcome=said.outcome,
                position=said.position,
            )
            record.deliveries.append(delivery)
            self._on_delivery(delivery)
        return delivery

    async def _post(
        self, client: httpx.AsyncClient, target: Target, body: bytes
    ) -> tuple[httpx.Response | None, str | None]:
        """Make one HTTP request; return the answer, or the reason why there is none."""
        headers = {} if target.token is None else {"Authorization": f"Bearer {target.token}"}
        try:
            async with asyncio.timeout(self._timeout):
                return await client.post(target.endpoint, content=body, headers=headers), None
        except TimeoutError:
            return None, TIMED_OUT
        except httpx.ConnectError:
            return None, UNREACHED
        except httpx.TransportError:
            return None, BROKEN
        except httpx.HTTPError as problem:
            return None, type(problem).__name__


def _client(headers: dict[str, str], tls: ssl.SSLContext) -> httpx.AsyncClient:
    # Our timeout is for the whole attempt, which httpx does not offer. Proxies in the environment
    # are ignored, because the receiver is nearly always on the same machine.
    return httpx.AsyncClient(
        headers=headers,
        limits=httpx.Limits(max_connections=1),
        timeout=None,  # noqa: S113 see above
        trust_env=False,
        verify=tls,
    )


class _Said(msgspec.Struct, frozen=True):
    """The fields of the receiver's answer, if it has them."""

    outcome: str | None = None
    position: int | None = None


def _said(answer: httpx.Response | None) -> _Said:
    if answer is None:
        return _Said()
    try:
        return msgspec.json.decode(answer.content, type=_Said)
    except (msgspec.DecodeError, ValueError, RecursionError):  # a receiver may answer anything
        return _Said()
