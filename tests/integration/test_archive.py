"""Archives: what is sealed in Parquet files, read back, checked, and damaged in every way."""

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow.parquet
import pytest
from msgspec import Struct
from psycopg import Connection

from ledger.archive import parquet, write
from ledger.archive.check import Checked, check
from ledger.archive.folder import Archive
from ledger.archive.rebuild import rebuild_from
from ledger.archive.restore import ArchivedLog
from ledger.archive.write import Archived, archiving, write_archive
from ledger.errors import ArchiveDamageError, ArchiveError
from ledger.eventlog import read
from ledger.eventlog.append import append
from ledger.eventlog.import_counts import Imported
from ledger.eventlog.import_events import import_events
from ledger.eventlog.import_values import Options
from ledger.model.operators import Operator
from ledger.operations.erasure import erase
from ledger.postgres.connect import connect
from ledger.projection import parallel, rebuild, store
from ledger.projection.rebuild import Rebuilt
from ledger.seals.comparison import compare
from ledger.seals.merkle import leaf_hash
from ledger.seals.notes import Checkpoint, SigningKey
from ledger.seals.sealing import log_head, seal_batch, sign
from tests.support.histories import HOSTILE, deliveries, mixed_history
from tests.support.postgres import ready_database
from tests.support.server import ROOT
from tests.support.sessions import drain, one, state_rows, tamper

pytestmark = pytest.mark.slow

KEY = SigningKey.new("lab.example/ledger")
NOW = datetime(2024, 1, 21, tzinfo=UTC)


def nothing(_done: int, _total: int) -> None:
    """Stand in for a listener."""


def seal(connection: Connection) -> Checkpoint:
    head = log_head(connection)
    while seal_batch(connection, head).size < head:
        pass
    checkpoint = sign(connection, KEY, NOW)
    assert checkpoint
    return checkpoint


def archived(connection: Connection, folder: Path, *, renew: bool = False) -> Archived:
    with archiving(connection):
        return write_archive(connection, Archive(folder), nothing, renew=renew)


def checked(folder: Path, *against: Checkpoint) -> Checked:
    return check(Archive(folder), nothing, key=KEY.public, against=against)


class Kept(Struct):
    """An archive of a log in three ranges that was archived twice."""

    url: str
    folder: Path
    checkpoints: list[Checkpoint]

    @property
    def last(self) -> int:
        return self.checkpoints[-1].size


@pytest.fixture(scope="module")
def kept(
    postgres_url: str, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("archive") / "of the log"
    with ready_database(postgres_url, migrated_template) as url:
        with pytest.MonkeyPatch.context() as patch, connect(url, "test") as connection:
            patch.setattr(write, "RANGE", 300)
            patch.setattr(write, "READ_AT_ONCE", 128)
            patch.setattr(parquet, "ROWS", 50)
            append(connection, mixed_history(400))
            append(connection, deliveries(HOSTILE.values()))
            first = seal(connection)
            archived(connection, folder)
            append(connection, mixed_history(60, seed=2))
            second = seal(connection)
            archived(connection, folder)
        yield Kept(url, folder, [first, second])


@pytest.fixture
def copy(kept: Kept, tmp_path: Path) -> Path:
    """Give a copy of the archive to damage."""
    return Path(shutil.copytree(kept.folder, tmp_path / "copy"))


@pytest.fixture
def log(kept: Kept) -> Iterator[Connection]:
    """Give a superuser's connection to the log, in a transaction that is rolled back."""
    with (
        psycopg.connect(kept.url, autocommit=True) as connection,
        connection.transaction(force_rollback=True),
    ):
        yield connection


def manifests(folder: Path) -> list[Path]:
    return sorted(folder.glob("positions-*.json"))


def file_of(folder: Path, number: int) -> Path:
    name: str = json.loads(manifests(folder)[number].read_bytes())["file"]["name"]
    return folder / name


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- written ----------------------------------------------------------------------------------


def test_each_row_of_the_log_is_in_the_archive_byte_for_byte(kept: Kept, log: Connection) -> None:
    query = (
        "SELECT position, received_at, event_time, source, lab_id, bill_id, event_type, digest,"
        " body_sha256, body, erased_at FROM ledger.logged_event ORDER BY position"
    )
    logged = [tuple(row) for row in log.execute(query)]
    rows = [
        tuple(row.values())[:-1]
        for path in sorted(kept.folder.glob("*.parquet"))
        for row in pyarrow.parquet.read_table(path).to_pylist()
    ]
    assert rows == logged
    assert len(rows) == kept.last
    assert {HOSTILE["each byte"], HOSTILE["empty"], HOSTILE["too deep"]} <= {row[9] for row in rows}


def test_the_archive_is_checked_without_a_database(kept: Kept) -> None:
    found = checked(kept.folder, *kept.checkpoints)
    assert found == Checked(last=kept.last, ranges=3, erased=0, signed=kept.last)
    assert check(Archive(kept.folder), nothing).signed == 0


def test_a_second_run_changes_nothing(kept: Kept, copy: Path, log: Connection) -> None:
    before = content(copy)
    done = archived(log, copy)
    assert (done.ranges, done.events, done.last, done.head) == (0, 0, kept.last, kept.last)
    assert content(copy) == before


def test_what_is_not_sealed_is_left_out_and_said(kept: Kept, copy: Path, log: Connection) -> None:
    append(log, mixed_history(40, seed=3))
    done = archived(log, copy)
    assert (done.last, done.events) == (kept.last, 0)
    assert done.head > done.last


def test_row_groups_are_bounded_by_rows_and_bytes(
    log: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BYTES", 100_000)
    append(log, deliveries(b"%d" % number + b"x" * 60_000 for number in range(6)))
    seal(log)
    archived(log, tmp_path / "new")
    (path,) = (tmp_path / "new").glob("*.parquet")
    metadata = pyarrow.parquet.ParquetFile(path).metadata
    assert metadata.num_row_groups >= 3
    assert checked(tmp_path / "new").last == log_head(log)


def test_duckdb_reads_it(kept: Kept) -> None:
    shown = (ROOT / "docs" / "archive.md").read_text()
    query = shown[shown.index("SELECT lab_id") : shown.index(";\n```")]
    with duckdb.connect() as duck, psycopg.connect(kept.url) as connection:
        found = duck.execute(query.replace("/mnt/archive", str(kept.folder))).fetchall()
        logged = connection.execute(
            "SELECT lab_id, count(*), max(convert_from(body, 'UTF8')::json -> 'data' ->> 'billID')"
            " FROM ledger.event_log WHERE event_type = 'bill.completed' GROUP BY 1"
        ).fetchall()
    assert sorted(found) == sorted(logged)
    assert len(found) == 3


# --- interrupted ------------------------------------------------------------------------------


class KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("step", range(1, 11))
def test_a_run_that_was_killed_at_any_step_is_simply_repeated(
    kept: Kept, log: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Cut off at each rename, before it or after it: two files, their manifests, and liveness."""
    monkeypatch.setattr(write, "RANGE", 300)
    renamed = Path.rename
    left = step

    def rename(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 2
        if left <= 0 and step % 2:
            raise KilledError
        done = renamed(self, target)
        if left <= 0:
            raise KilledError
        return done

    def unlink(_self: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 -- as it is
        """Leave it: a process that is killed cleans nothing up."""

    folder = tmp_path / "new"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(KilledError):
            archived(log, folder)
    monkeypatch.setattr(write, "RANGE", 200)  # what is left is divided otherwise
    archived(log, folder)
    assert checked(folder, *kept.checkpoints).last == kept.last
    assert len(list(folder.glob("*.parquet"))) == len(manifests(folder))
    assert not list(folder.glob(".*"))


def test_a_file_is_on_the_disk_before_it_has_its_name(
    log: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[int] = set()
    flush, renamed = os.fsync, Path.rename

    def fsync(file: int) -> None:
        flush(file)
        flushed.add(os.fstat(file).st_ino)

    def rename(self: Path, target: Path) -> Path:
        assert self.stat().st_ino in flushed
        return renamed(self, target)

    folder = tmp_path / "new"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        patch.setattr(Path, "rename", rename)
        archived(log, folder)
    assert {path.stat().st_ino for path in folder.iterdir()} <= flushed
    assert folder.stat().st_ino in flushed


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 5_000])
def test_a_full_disk_is_a_sentence_and_leaves_what_was_there(
    kept: Kept, log: Connection, copy: Path, size: int
) -> None:
    append(log, mixed_history(200, seed=3))
    seal(log)
    with small_disk(size), pytest.raises(ArchiveError, match=r"cannot write .*: File too large"):
        archived(log, copy)
    assert checked(copy).last == kept.last
    assert not list(copy.glob(".*"))
    assert archived(log, copy).events


def test_two_at_a_time_do_not_mix(kept: Kept, log: Connection, copy: Path) -> None:
    with (
        connect(kept.url, "test") as other,
        archiving(other),
        pytest.raises(ArchiveError, match="another `ledger archive` of this log runs"),
    ):
        archived(log, copy)


# --- another folder, another log --------------------------------------------------------------


def test_a_folder_with_other_files_is_left_alone(log: Connection, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("x")
    with pytest.raises(ArchiveError, match=r"holds other files \(letter.txt\)"):
        archived(log, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(ArchiveError, match="is no archive of Ledger"):
        checked(tmp_path)


def test_the_archive_of_another_log_is_refused(
    copy: Path, postgres_url: str, migrated_template: str
) -> None:
    before = content(copy)
    with (
        ready_database(postgres_url, migrated_template) as url,
        connect(url, "test") as connection,
    ):
        append(connection, mixed_history(100, seed=7))
        seal(connection)
        with pytest.raises(ArchiveError, match="this log is sealed up to"):
            archived(connection, copy)
        append(connection, mixed_history(600, seed=8))
        seal(connection)
        with pytest.raises(ArchiveError, match="of another log"):
            archived(connection, copy)
    assert content(copy) == before


def test_a_row_that_was_changed_in_the_log_is_not_archived(log: Connection, tmp_path: Path) -> None:
    for change, words in (
        ("UPDATE ledger.event_log SET source = 'import' WHERE position = 310", "is not what was"),
        ("DELETE FROM ledger.event_log WHERE position = 310", "is missing"),
    ):
        with log.transaction(force_rollback=True):
            tamper(log, change)
            with pytest.raises(ArchiveError, match=f"position 310 {words}"):
                archived(log, tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


# --- damaged ----------------------------------------------------------------------------------


def changed(folder: Path, number: int, place: int, **values: object) -> None:
    """Change a row of a file, as whoever has pyarrow can."""
    path = file_of(folder, number)
    table = pyarrow.parquet.read_table(path)
    rows = table.to_pylist()
    rows[place].update(values)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), path)


CHANGES: dict[str, object] = {
    "received_at": NOW,
    "event_time": NOW,
    "source": "import",
    "lab_id": "x",
    "bill_id": "x",
    "event_type": "x",
    "digest": bytes(32),
    "body_sha256": bytes(32),
    "body": b"x",
    "leaf_hash": bytes(32),
    "position": 7,
}


@pytest.mark.parametrize("column", CHANGES)
def test_a_change_of_any_column_is_named_with_its_position(copy: Path, column: str) -> None:
    changed(copy, 1, 19, **{column: CHANGES[column]})
    with pytest.raises(ArchiveDamageError, match="position 320 "):
        checked(copy)


def test_a_body_that_was_removed_is_named(copy: Path) -> None:
    changed(copy, 1, 19, body=None)
    with pytest.raises(ArchiveDamageError, match="position 320 lacks its body"):
        checked(copy)
    changed(copy, 1, 19, body=None, erased_at=NOW)
    with pytest.raises(ArchiveDamageError, match="1 erased bodies and its manifest counts 0"):
        checked(copy)


def test_a_row_that_was_changed_with_its_hashes_is_found_by_the_root(copy: Path) -> None:
    rows = list(parquet.read_rows(file_of(copy, 1), 301))
    forged = rows[19]._replace(body=b"x", body_sha256=sha256(b"x").digest())
    changed(
        copy,
        1,
        19,
        body=b"x",
        body_sha256=forged.body_sha256,
        leaf_hash=leaf_hash(forged.leaf),
    )
    with pytest.raises(
        ArchiveDamageError, match=r"positions 301 to \d+ .* do not lead to the root"
    ):
        checked(copy)


def test_rows_that_were_added_or_removed_are_named(copy: Path) -> None:
    path = file_of(copy, 2)
    table = pyarrow.parquet.read_table(path)
    first, last = (table.column("position")[at].as_py() for at in (0, -1))
    pyarrow.parquet.write_table(table.slice(1), path)
    with pytest.raises(ArchiveDamageError, match=f"position {first} is not in its place"):
        checked(copy)
    pyarrow.parquet.write_table(table.slice(0, table.num_rows - 1), path)
    with pytest.raises(ArchiveDamageError, match=f"position {last} is missing"):
        checked(copy)
    pyarrow.parquet.write_table(pyarrow.concat_tables([table, table.slice(0, 1)]), path)
    with pytest.raises(ArchiveDamageError, match=f"position {last + 1} is beyond its range"):
        checked(copy)


def test_flipped_bits_anywhere_in_a_file_are_found(copy: Path) -> None:
    path = file_of(copy, 2)
    whole = path.read_bytes()
    for at in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(ArchiveDamageError):
            checked(copy)
    for cut in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ArchiveDamageError, match="cannot be read"):
            checked(copy)
    path.unlink()
    with pytest.raises(ArchiveDamageError, match="is missing"):
        checked(copy)


def test_a_damaged_page_is_named_with_the_first_position_that_cannot_be_read(copy: Path) -> None:
    path = file_of(copy, 0)
    group = pyarrow.parquet.ParquetFile(path).metadata.row_group(2)  # the positions 101 to 150
    body = group.column(9)
    at = body.data_page_offset + body.total_compressed_size - 20
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
    with pytest.raises(ArchiveDamageError, match=r"position 101 of .* cannot be read"):
        checked(copy)


def test_a_gap_between_ranges_is_said_and_written_again(
    kept: Kept, log: Connection, copy: Path
) -> None:
    before = content(copy)
    first, last = manifests(copy)[1].stem.split("-")[1:]
    file_of(copy, 1).unlink()
    manifests(copy)[1].unlink()
    words = f"lacks the positions {int(first)} to {int(last)}"
    with pytest.raises(ArchiveError, match=words):
        checked(copy)
    assert archived(log, copy).events == int(last) - int(first) + 1
    assert checked(copy, *kept.checkpoints).last == kept.last
    assert set(content(copy)) == set(before)


MANIFESTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "root": lambda manifest: manifest.update(root="00" * 32),
    "before": lambda manifest: manifest["before"].__setitem__(0, "00" * 32),
    "last": lambda manifest: manifest.update(last=manifest["last"] - 1),
    "erased": lambda manifest: manifest.update(erased=1),
    "format": lambda manifest: manifest.update(format="ledger archive 2"),
    "path": lambda manifest: manifest["file"].update(name="../secret"),
    "hash": lambda manifest: manifest["file"].update(sha256="00" * 32),
    "unknown": lambda manifest: manifest.update(other=1),
    "no hash": lambda manifest: manifest.update(root="x"),
}


@pytest.mark.parametrize("change", MANIFESTS)
def test_a_changed_manifest_is_a_sentence(copy: Path, change: str) -> None:
    path = manifests(copy)[1]
    manifest = json.loads(path.read_bytes())
    MANIFESTS[change](manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArchiveError):
        checked(copy)


def test_a_checkpoint_that_cannot_be_read_is_damage(copy: Path) -> None:
    path = next(one for one in manifests(copy) if json.loads(one.read_bytes())["checkpoint"])
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "checkpoint": "x"}))
    with pytest.raises(ArchiveDamageError, match=rf"{path.name}: .*not a checkpoint"):
        check(Archive(copy), nothing)


def test_a_checkpoint_of_another_key_or_of_another_log_is_found(kept: Kept, copy: Path) -> None:
    other = SigningKey.new(KEY.name)
    with pytest.raises(ArchiveDamageError, match=r"positions-.*\.json: .*no good signature"):
        check(Archive(copy), nothing, key=other.public)
    for size in (5, 300, kept.last):
        wrong = Checkpoint(KEY.name, size, bytes(32), NOW)
        with pytest.raises(ArchiveDamageError, match="do not lead to the root"):
            checked(copy, wrong)
    later = Checkpoint(KEY.name, kept.last + 1, bytes(32), NOW)
    assert checked(copy, later).signed == kept.last


# --- erased -----------------------------------------------------------------------------------


def test_a_body_that_was_erased_since_is_said_and_renewed(
    database_url: str, tmp_path: Path
) -> None:
    with connect(database_url, "test") as connection:
        append(connection, mixed_history(200))
        before = seal(connection)
        archived(connection, tmp_path)
        position = one(connection, "SELECT min(position) FROM ledger.erasable_body")
        secret = one(
            connection, "SELECT body FROM ledger.erasable_body WHERE position = %s", position
        )
        erase(database_url, position, reason="asked", by=Operator("ann"), dry_run=False)
        seal(connection)
        done = archived(connection, tmp_path)
        assert (done.ranges, done.still_held) == (1, 1)
        done = archived(connection, tmp_path, renew=True)
        assert (done.ranges, done.still_held) == (1, 0)
        done = archived(connection, tmp_path, renew=True)
        assert (done.ranges, done.still_held) == (0, 0)
    assert checked(tmp_path, before).erased == 1
    rows = [
        row
        for path in tmp_path.glob("*.parquet")
        for row in pyarrow.parquet.read_table(path).to_pylist()
    ]
    assert len(rows) == len({row["position"] for row in rows})
    assert secret not in [row["body"] for row in rows]
    (erased,) = (row for row in rows if row["erased_at"])
    assert (erased["position"], erased["body_sha256"]) == (position, sha256(secret).digest())


# --- read back --------------------------------------------------------------------------------


@pytest.fixture
def empty(postgres_url: str, migrated_template: str) -> Iterator[Connection]:
    """Give a connection to an empty log."""
    with (
        ready_database(postgres_url, migrated_template) as url,
        connect(url, "test") as connection,
    ):
        yield connection


def imported(connection: Connection, folder: Path) -> Imported:
    options = Options(by=Operator("ann"), exports=True)
    source = ArchivedLog(Archive(folder))
    return import_events(connection, source, options, on_progress=lambda _: None)


def everything(connection: Connection) -> list[tuple[Any, ...]]:
    query = "SELECT * FROM ledger.logged_event WHERE position <= %s ORDER BY position"
    return connection.execute(query, [10**6]).fetchall()


def test_an_archive_makes_an_empty_log_the_one_that_was_archived(
    kept: Kept, log: Connection, empty: Connection
) -> None:
    found = imported(empty, kept.folder)
    assert found.ranges == [(1, kept.last)]
    assert everything(empty) == everything(log)
    assert seal(empty).root == kept.checkpoints[-1].root
    with empty.transaction():
        compared = compare(empty, kept.checkpoints, nothing)
    assert compared.verdict == "as sealed"
    again = imported(empty, kept.folder)
    assert (again.recorded, again.unreadable_recorded) == (0, 0)
    assert one(empty, "SELECT count(*) FROM ledger.repeat_delivery") == 0


def test_an_import_that_was_interrupted_is_repeated(
    kept: Kept, log: Connection, empty: Connection
) -> None:
    def stop(values: int) -> None:
        if values >= 200:
            raise KilledError

    options = Options(by=Operator("ann"), exports=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ledger.eventlog.import_events.BATCH", 100)
        with pytest.raises(KilledError):
            import_events(empty, ArchivedLog(Archive(kept.folder)), options, on_progress=stop)
    assert log_head(empty) == 200
    assert imported(empty, kept.folder).duplicate == 200
    assert everything(empty) == everything(log)


def test_erasures_and_liveness_come_with_an_archive(
    service: Connection, database_url: str, empty: Connection, tmp_path: Path
) -> None:
    append(service, mixed_history(200))
    seal(service)
    archived(service, tmp_path / "before")
    positions = [row[0] for row in service.execute(_ERASABLE).fetchall()]
    for position in positions[:2]:
        erase(database_url, position, reason="asked", by=Operator("ann"), dry_run=False)
    service.execute(
        "INSERT INTO ledger.liveness (instance, alive_from, alive_until)"
        " VALUES (gen_random_uuid(), '2024-01-20T12:00Z', '2024-01-20T13:00Z')"
    )
    seal(service)
    archived(service, tmp_path / "before")  # holds the first bodies and the decisions
    archived(service, tmp_path / "after")
    found = imported(empty, tmp_path / "after")
    assert found.liveness_records == 1
    assert everything(empty) == everything(service)
    empty_again = imported(empty, tmp_path / "before")
    assert empty_again.recorded == 0
    assert everything(empty) == everything(service)


def test_bodies_that_an_older_range_still_holds_are_erased_by_the_decision(
    service: Connection, database_url: str, empty: Connection, tmp_path: Path
) -> None:
    append(service, mixed_history(200))
    seal(service)
    archived(service, tmp_path)
    (position,) = service.execute(_ERASABLE).fetchall()[0]
    erase(database_url, position, reason="asked", by=Operator("ann"), dry_run=False)
    seal(service)
    archived(service, tmp_path)
    imported(empty, tmp_path)
    assert everything(empty) == everything(service)


_ERASABLE = "SELECT position FROM ledger.erasable_body ORDER BY position"


def test_nothing_of_a_damaged_archive_is_imported(empty: Connection, copy: Path) -> None:
    changed(copy, 2, 10, body=b"x")
    with pytest.raises(ArchiveDamageError, match=r"position 440 .* Nothing of it was recorded"):
        imported(empty, copy)
    assert log_head(empty) == 0


# --- the state from it ------------------------------------------------------------------------


@pytest.fixture
def followed(service: Connection, tmp_path: Path) -> Path:
    """Give the archive of a log that went on and is followed."""
    append(service, mixed_history(300))
    seal(service)
    archived(service, tmp_path / "archive")
    append(service, mixed_history(100, seed=2))
    drain(service)
    return tmp_path / "archive"


def rebuilt(url: str, folder: Path) -> Rebuilt:
    return rebuild_from(url, Archive(folder), processes=1, started_at=NOW, on_progress=nothing)


def test_the_state_from_an_archive_equals_the_live_one(
    service: Connection, database_url: str, followed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "chunks", partial(parallel.chunks, events=40))
    position = one(service, "SELECT min(position) FROM state.unreadable_event")
    erase(database_url, position, reason="asked", by=Operator("ann"), dry_run=False)
    drain(service)
    rebuild.rebuild(database_url, processes=1, started_at=NOW, on_progress=nothing)
    live = state_rows(service)
    made = rebuilt(database_url, followed)
    assert made.counts.events == made.position == log_head(service)
    assert state_rows(service) == live
    assert one(service, "SELECT to_regclass('state.archived_event') IS NULL")


def test_the_end_of_the_archive_is_looked_up_and_not_searched_for_with_each_chunk(
    service: Connection,
) -> None:
    read.keep_to_indexes(service)
    with service.transaction(force_rollback=True):
        service.execute("CREATE SCHEMA state_next")
        for name in ("archived_event", "archived_log"):
            store.run_file(service, "state_next", name)
        plan = service.execute("EXPLAIN SELECT position FROM state_next.archived_log").fetchall()
    lines = [line for (line,) in plan]
    assert any("archived_event_position_idx" in line for line in lines)
    assert not any("Seq Scan on archived_event" in line for line in lines)


def test_the_events_are_those_of_the_archive(
    owner: Connection, database_url: str, followed: Path
) -> None:
    live = state_rows(owner)
    where = "position = (SELECT min(position) FROM ledger.event_log WHERE body IS NOT NULL)"
    tamper(owner, f"UPDATE ledger.event_log SET body = '{{}}' WHERE {where}")
    rebuilt(database_url, followed)
    assert state_rows(owner) == live
    rebuild.rebuild(database_url, processes=1, started_at=NOW, on_progress=nothing)
    assert state_rows(owner) != live


def test_a_damaged_or_foreign_archive_leaves_the_live_state(
    service: Connection, database_url: str, followed: Path, copy: Path
) -> None:
    live = state_rows(service)
    with pytest.raises(ArchiveError, match="another log"):
        rebuilt(database_url, copy)
    changed(followed, 0, 9, body=b"x")
    with pytest.raises(ArchiveDamageError, match="position 10 "):
        rebuilt(database_url, followed)
    assert state_rows(service) == live


def test_without_pyarrow_it_is_a_sentence(
    log: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ArchiveError, match=r"pip install 'ledger\[archive\]'"):
        archived(log, tmp_path)
