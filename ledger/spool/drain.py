"""Moves what is in the spool into the log, through the lane, when the database takes it again.

Own deliveries, and those of processes that are gone. A delivery is in the log once, however often
this is interrupted: the log knows it by its digest, and its repeat by the time it was received.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TypeVar

import psycopg
import structlog

from ledger.errors import AppendError, ContentError, LedgerError, one_line
from ledger.eventlog.append import Delivery
from ledger.eventlog.group_commit import GroupCommit
from ledger.eventlog.liveness import record_alive
from ledger.postgres.connect import connect
from ledger.spool.folder import WorkerFolder, worker_folders
from ledger.spool.records import Damage, Record, scan
from ledger.spool.writer import SpoolWriter

LOOK_SECONDS = 0.5
"""How often the spool of this process is looked at."""

ABANDONED_SECONDS = 5.0
"""How often folders of processes that are gone are looked for."""

GROUP = 256
GROUP_BYTES = 4 * 1024 * 1024

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class _InterruptedError(Exception):
    """The database does not take deliveries; what is left is tried again later."""


class Drain:
    """Runs beside the intake, in its event loop; reads and parses in a thread of its own."""

    def __init__(self, root: Path, writer: SpoolWriter, lane: GroupCommit, url: str) -> None:
        self._root = root
        self._writer = writer
        self._lane = lane
        self._url = url
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="drain")
        self._complaint = ""

    def start(self) -> None:
        """Start in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop; what is left is drained by another process, or by the next."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_look = loop.time()
        while True:
            if self._lane.is_able:
                await self._attempt(self._drain_own)
                if loop.time() >= next_look:
                    next_look = loop.time() + ABANDONED_SECONDS
                    await self._attempt(self._drain_abandoned)
            await asyncio.sleep(LOOK_SECONDS)

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except _InterruptedError:
            return
        except (OSError, psycopg.Error, LedgerError) as error:
            complaint = one_line(error)
            if complaint != self._complaint:  # not every half a second
                _log.error("the spool cannot be drained", error=complaint)
            self._complaint = complaint

    async def _drain_own(self) -> None:
        folder = self._writer.folder
        if folder is None:
            return
        for path, begin, end in self._writer.undrained():
            content = await self._in_thread(path.read_bytes)
            done = partial(self._writer.drained, path)
            await self._drain(folder, path, content[:end], begin, done)

    async def _drain_abandoned(self) -> None:
        for path in await self._in_thread(partial(worker_folders, self._root)):
            folder = await self._in_thread(partial(WorkerFolder.take_over, path))
            if folder is None:
                continue
            try:
                await self._drain_folder(folder)
            except BaseException:
                folder.close()
                raise

    async def _drain_folder(self, folder: WorkerFolder) -> None:
        drained = 0

        def count(_: int, deliveries: int) -> None:
            nonlocal drained
            drained += deliveries

        for path in folder.segments():
            content = await self._in_thread(path.read_bytes)
            await self._drain(folder, path, content, 0, count)
            await self._in_thread(path.unlink)
        await self._in_thread(partial(self._record_alive, folder))
        await self._in_thread(folder.remove)
        _log.info("drained the spool of a process that is gone", deliveries=drained)

    async def _drain(
        self,
        folder: WorkerFolder,
        path: Path,
        content: bytes,
        begin: int,
        done: Callable[[int, int], object],
    ) -> None:
        """Append the records of a segment in groups; call `done` after each with its end."""
        records = scan(content, begin)
        while True:
            group, damage, end = await self._in_thread(partial(_next_group, records, begin))
            for each in damage:
                await self._in_thread(partial(_set_aside, folder, path, content, each))
            if not group and not damage:
                break
            await self._append(folder, path, group)
            begin = end
            done(end, len(group))
        done(len(content), 0)

    async def _append(self, folder: WorkerFolder, path: Path, group: list[Delivery]) -> None:
        outcomes = await asyncio.gather(
            *(self._lane.append(each, from_spool=True) for each in group), return_exceptions=True
        )
        for delivery, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, ContentError):
                # The digest, because several may have come at once.
                name = (
                    f"{path.stem}-{delivery.received_at:%Y%m%dT%H%M%S.%fZ}"
                    f"-{delivery.columns.digest.hex()}.body"
                )
                kept = await self._in_thread(partial(folder.set_aside, name, delivery.body))
                _log.error("the database does not take a spooled delivery", kept=str(kept))
            elif isinstance(outcome, AppendError):
                raise _InterruptedError
            elif isinstance(outcome, BaseException):
                raise outcome

    def _record_alive(self, folder: WorkerFolder) -> None:
        if alive := folder.read_alive():
            with closing(connect(self._url, "liveness")) as connection:
                record_alive(connection, alive)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run work in the thread; who is cancelled meanwhile goes on when it is done."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise


def _next_group(
    records: Iterator[Record | Damage], begin: int
) -> tuple[list[Delivery], list[Damage], int]:
    """Return the next deliveries, the damage among them, and where they end."""
    group: list[Delivery] = []
    damage: list[Damage] = []
    size, end = 0, begin
    for each in records:
        if isinstance(each, Damage):
            damage.append(each)
            end = each.end
        else:
            group.append(Delivery.of(each.body, received_at=each.received_at, source="webhook"))
            size += len(each.body)
            end = each.end
        if len(group) >= GROUP or size >= GROUP_BYTES:
            break
    return group, damage, end


def _set_aside(folder: WorkerFolder, path: Path, content: bytes, damage: Damage) -> None:
    kept = folder.set_aside(f"{path.stem}-{damage.begin}.bin", content[damage.begin : damage.end])
    if damage.is_last:
        _log.warning("the last record of a spool was not finished", kept=str(kept))
    else:
        _log.error("a record of the spool is damaged", kept=str(kept))
