"""Comparing the log with a checkpoint: each change is found and named, and a fork is no change."""

from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import Connection

from ledger.errors import SealError
from ledger.eventlog.append import append
from ledger.seals.comparison import Compared, compare, read_signed
from ledger.seals.notes import Checkpoint, SigningKey
from ledger.seals.sealing import log_head, seal_batch, sign
from tests.support.histories import mixed_history
from tests.support.sessions import one, tamper

pytestmark = pytest.mark.slow

NOW = datetime(2024, 1, 21, tzinfo=UTC)
KEY = SigningKey.new("lab.example/ledger")


def grow(connection: Connection, events: int, seed: int = 1) -> Checkpoint:
    append(connection, mixed_history(events, seed=seed))
    return seal(connection)


def seal(connection: Connection) -> Checkpoint:
    head = log_head(connection)
    while seal_batch(connection, head).size < head:
        pass
    checkpoint = sign(connection, KEY, NOW)
    assert checkpoint
    return checkpoint


def compared(connection: Connection, *checkpoints: Checkpoint) -> Compared:
    return compare(connection, checkpoints, lambda *_: None)


@pytest.fixture(scope="module")
def sealed(module_database_url: str) -> Checkpoint:
    """Give a checkpoint of a log of more than one tile, which every test finds as it is."""
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        checkpoint = grow(connection, 600)
        append(connection, mixed_history(20, seed=2))  # not sealed
    assert checkpoint.size > 512
    return checkpoint


CHANGES = {
    "position": "position = 10000",
    "received_at": "received_at = received_at + interval '1 us'",
    "received_at for ever": "received_at = 'infinity'",
    "event_time": "event_time = coalesce(event_time, '2024-01-01Z') + interval '1 us'",
    "no event_time": "event_time = nullif(event_time, event_time)",
    "source": "source = 'import'",
    "lab_id": "lab_id = lab_id || 'x'",
    "bill_id": "bill_id = bill_id || 'x'",
    "event_type": "event_type = event_type || 'x'",
    "digest": "digest = sha256(digest)",
    "body": "body = body || ' '",
}


def columns(connection: Connection) -> set[str]:
    query = (
        "SELECT attname FROM pg_attribute"
        " WHERE attrelid = 'ledger.event_log'::regclass AND attnum > 0 AND NOT attisdropped"
    )
    return {name for (name,) in connection.execute(query)}


def test_every_column_is_changed(undone: Connection) -> None:
    assert {change.split(" = ")[0] for change in CHANGES.values()} == columns(undone)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("position", [1, 257, 600])
def test_a_change_of_any_column_of_an_old_row_is_named(
    undone: Connection, sealed: Checkpoint, change: str, position: int
) -> None:
    if change == "no event_time":
        timed = "SELECT min(position) FROM ledger.event_log WHERE event_time IS NOT NULL"
        position = one(undone, f"{timed} AND position >= %s", position - 50)
    position = min(position, sealed.size)
    if change == "body":
        kept = "SELECT max(position) FROM ledger.event_log WHERE body IS NOT NULL"
        position = one(undone, f"{kept} AND position <= %s", min(position + 5, sealed.size))
    undone.execute("ALTER TABLE ledger.event_log DROP CONSTRAINT event_log_received_at_check")
    tamper(undone, f"UPDATE ledger.event_log SET {CHANGES[change]} WHERE position = {position}")
    found = compared(undone, sealed)
    assert (found.verdict, found.position) == ("changed", position)
    assert f"position {position} is " in found.words


ERASABLE = "SELECT min(position) FROM ledger.erasable_body WHERE position > 256"


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ("body = NULL, erased_at = now()", "as sealed"),
        ("body = body || ' '", "changed"),
        ("body_sha256 = sha256(body_sha256), body = NULL, erased_at = now()", "changed"),
    ],
)
def test_an_erased_body_is_as_sealed_and_a_changed_one_is_not(
    undone: Connection, sealed: Checkpoint, change: str, verdict: str
) -> None:
    position = one(undone, ERASABLE)
    undone.execute("ALTER TABLE ledger.erasable_body DROP CONSTRAINT erasable_body_sha256_check")
    undone.execute("ALTER TABLE ledger.erasable_body DISABLE TRIGGER ALL")
    where = f" WHERE position = {position}"
    undone.execute(f"UPDATE ledger.erasable_body SET {change}{where}".encode())
    found = compared(undone, sealed)
    assert found.verdict == verdict
    assert found.position == (position if verdict == "changed" else None)


def test_a_body_that_was_removed_altogether_is_named(
    undone: Connection, sealed: Checkpoint
) -> None:
    position = one(undone, ERASABLE)
    undone.execute("ALTER TABLE ledger.erasable_body DISABLE TRIGGER ALL")
    undone.execute(f"DELETE FROM ledger.erasable_body WHERE position = {position}".encode())
    assert compared(undone, sealed).position == position


def copied(position: int, source: int) -> str:
    return (
        f"INSERT INTO ledger.event_log SELECT {position}, received_at, event_time, source, 'x',"
        f" bill_id, event_type, digest, body FROM ledger.event_log WHERE position = {source}"
    )


ROWS = {
    "missing": ("DELETE FROM ledger.event_log WHERE position = 300", "position 300 is missing"),
    "first missing": ("DELETE FROM ledger.event_log WHERE position = 1", "position 1 is missing"),
    "extra": (copied(300, 300), "position 300 stands in the log twice"),
    "extra at the end of a tile": (copied(256, 1), "position 256 "),
}


@pytest.mark.parametrize("change", ROWS)
def test_missing_and_extra_rows_are_named(
    undone: Connection, sealed: Checkpoint, change: str
) -> None:
    statement, words = ROWS[change]
    tamper(undone, statement)
    found = compared(undone, sealed)
    assert found.verdict == "changed"
    assert words in found.words


def test_an_extra_row_at_the_very_end_is_named(undone: Connection, sealed: Checkpoint) -> None:
    tamper(undone, copied(sealed.size, sealed.size))
    found = compared(undone, sealed)
    assert (found.verdict, found.position) == ("changed", sealed.size)


def test_rows_that_were_cut_off_are_missing(undone: Connection, sealed: Checkpoint) -> None:
    undone.execute("ALTER TABLE ledger.event_log DISABLE TRIGGER event_log_is_append_only")
    undone.execute("DELETE FROM ledger.event_log WHERE position >= 512")
    found = compared(undone, sealed)
    assert (found.verdict, found.position) == ("changed", 512)
    assert "position 512 is missing" in found.words


def test_what_is_as_it_was_sealed_is_said_to_be(undone: Connection, sealed: Checkpoint) -> None:
    assert compared(undone, sealed) == Compared(
        "as sealed", sealed.size, None, f"The log is as it was sealed up to {sealed.size:,}."
    )


def test_a_change_of_what_is_not_sealed_is_not_known(
    undone: Connection, sealed: Checkpoint
) -> None:
    tamper(
        undone, f"UPDATE ledger.event_log SET source = 'import' WHERE position = {sealed.size + 1}"
    )
    assert compared(undone, sealed).verdict == "as sealed"


def test_a_changed_hash_is_told_from_a_changed_log(undone: Connection, sealed: Checkpoint) -> None:
    undone.execute(
        "UPDATE ledger.seal_tile SET hashes = set_byte(hashes, 32, 255 - get_byte(hashes, 32))"
        " WHERE level = 0 AND number = 0"
    )
    found = compared(undone, sealed)
    assert (found.verdict, found.position) == ("changed", 2)
    assert "ledger.seal_tile was changed" in found.words


@pytest.mark.parametrize("resealed", [False, True])
def test_who_changes_the_stored_hashes_too_is_found_by_the_checkpoint(
    undone: Connection, sealed: Checkpoint, *, resealed: bool
) -> None:
    tamper(undone, "UPDATE ledger.event_log SET source = 'import' WHERE position = 300")
    undone.execute("TRUNCATE ledger.seal_tile")
    if resealed:
        seal(undone)
    found = compared(undone, sealed)
    assert found.verdict == "changed"
    assert "this database made a checkpoint of" in found.words


def test_a_restored_backup_is_a_fork(undone: Connection, sealed: Checkpoint) -> None:
    with undone.transaction(force_rollback=True):
        later = grow(undone, 300, seed=3)
    assert compared(undone, sealed).verdict == "as sealed"
    short = compared(undone, sealed, later)
    assert (short.verdict, short.agreed) == ("fork", sealed.size)
    assert f"ends at position {one(undone, 'SELECT max(position) FROM ledger.event_log'):,}" in (
        short.words
    )
    own = grow(undone, 400, seed=4)
    assert own.size >= later.size
    other = compared(undone, sealed, later, own)
    assert (other.verdict, other.agreed) == ("fork", sealed.size)
    assert "continued otherwise" in other.words


def test_a_change_in_a_fork_is_a_change(undone: Connection, sealed: Checkpoint) -> None:
    with undone.transaction(force_rollback=True):
        later = grow(undone, 300, seed=3)
    assert later.size > sealed.size
    tamper(undone, "UPDATE ledger.event_log SET source = 'import' WHERE position = 300")
    found = compared(undone, later)
    assert (found.verdict, found.position) == ("changed", 300)


def test_checkpoints_of_a_file_must_all_be_signed(sealed: Checkpoint) -> None:
    note, other = KEY.sign(sealed.to_text()), SigningKey.new(KEY.name)
    assert read_signed(f"{note}\n\n{note}", KEY.public) == [sealed]
    wrong = note.replace(f"\n{sealed.size}\n", f"\n{sealed.size + 1}\n")
    for text in (f"{note}\n\n{wrong}", other.sign(sealed.to_text())):
        with pytest.raises(SealError, match="no good signature"):
            read_signed(text, KEY.public)
    for text in ("", note[:-1], note[:100]):
        with pytest.raises(SealError, match="no checkpoint"):
            read_signed(text, KEY.public)
