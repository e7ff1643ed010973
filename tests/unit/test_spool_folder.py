"""Folders of a spool: a process has its own for itself from the moment in which others see it."""

import os
import resource
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ledger.eventlog.liveness import Alive
from ledger.spool import folder as folder_module
from ledger.spool.folder import WorkerFolder, worker_folders


def test_whoever_looks_for_abandoned_folders_never_gets_one_that_is_being_made(
    tmp_path: Path,
) -> None:
    stop = threading.Event()
    taken = []

    def take_all() -> None:
        while not stop.is_set():
            for path in worker_folders(tmp_path):
                if folder := WorkerFolder.take_over(path):
                    taken.append(path)
                    folder.close()

    thread = threading.Thread(target=take_all)
    thread.start()
    made: list[WorkerFolder] = []
    try:
        made.extend(WorkerFolder.create(tmp_path) for _ in range(60))
    finally:
        stop.set()
        thread.join()
        for folder in made:
            folder.close()
    assert taken == []
    assert len(worker_folders(tmp_path)) == 60


def test_a_folder_that_another_process_has_just_removed_is_nothing_to_drain(
    tmp_path: Path,
) -> None:
    folder = WorkerFolder.create(tmp_path)
    folder.remove()
    assert WorkerFolder.take_over(folder.path) is None
    assert list(tmp_path.iterdir()) == []


def test_what_a_process_left_that_was_killed_while_it_made_a_folder_is_removed(
    tmp_path: Path,
) -> None:
    old, young = tmp_path / ".worker-old", tmp_path / ".worker-young"
    for path in (old, young):
        path.mkdir()
        (path / "lock").touch()
    os.utime(old, (0, 0))
    folder = WorkerFolder.create(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([young, folder.path])
    folder.close()


def test_new_folders_are_durable_with_all_above_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a power cut takes the folder, with what was acknowledged in it."""
    synced: list[Path] = []
    monkeypatch.setattr(folder_module, "sync_folder", synced.append)
    spool = tmp_path / "a" / "b"
    folder = WorkerFolder.create(spool)
    assert {tmp_path, tmp_path / "a", spool} <= {*synced}
    synced.clear()
    kept = folder.set_aside("x", b"y")
    assert {spool, kept.parent} <= {*synced}
    folder.close()


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Let files take a part of what is written, as a disk does that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_fits_the_disk_in_part_is_not_taken_for_kept(tmp_path: Path) -> None:
    """Or the delivery that is set aside is removed from the spool, and its end is nowhere."""
    folder = WorkerFolder.create(tmp_path)
    now = datetime.now(UTC)
    alive, later = (Alive(uuid.uuid4(), now, now) for _ in range(2))
    folder.write_alive(alive)
    with small_files(10):
        with pytest.raises(OSError, match="File too large"):
            folder.set_aside("x", b"y" * 100)
        with pytest.raises(OSError, match="File too large"):
            folder.write_alive(later)
    assert folder.read_alive() == alive
    assert folder.set_aside("x", b"y" * 100).read_bytes() == b"y" * 100
    folder.close()
