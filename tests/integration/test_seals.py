"""Sealing: the tree over the log, its checkpoints, and what is published of them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection

from ledger.errors import ForkError, SealError
from ledger.eventlog.append import append
from ledger.operations.alerts.seal_watch import SealWatch
from ledger.postgres.connect import connect
from ledger.seals import sealing
from ledger.seals.comparison import read_signed
from ledger.seals.leaf import read_leaves
from ledger.seals.merkle import EMPTY_ROOT, complete_root, leaf_hash, node_hash
from ledger.seals.notes import Checkpoint, SigningKey, is_signed_by, notes_in, read_checkpoint
from ledger.seals.publication import Publication
from ledger.seals.sealer import Sealer
from ledger.seals.sealing import log_head, publish, refuse_fork, seal_batch, sign, tree_root
from ledger.seals.tiles import read_edge, sealed_size, write_edge
from tests.support.histories import deliveries, mixed_history
from tests.support.server import Process
from tests.support.sessions import (
    one,
    sessions_named,
    tamper,
    wait_until,
    wait_until_blocked,
)

pytestmark = pytest.mark.slow

NOW = datetime(2024, 1, 21, tzinfo=UTC)
KEY = SigningKey.new("lab.example/ledger")


def log_of(connection: Connection, events: int) -> None:
    append(connection, mixed_history(events))


def seal_all(connection: Connection) -> int:
    head = log_head(connection)
    while (batch := seal_batch(connection, head)).size < head:
        assert batch.events
    return head


def leaf_hashes(connection: Connection) -> list[bytes]:
    return [row.hash for row in read_leaves(connection, 0, 2**62, 10**6)]


def plain_root(hashes: list[bytes]) -> bytes:
    """Compute a root as the RFC defines it, by recursion."""
    if not hashes:
        return EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node_hash(plain_root(hashes[:split]), plain_root(hashes[split:]))


def test_the_stored_tree_is_the_tree_over_the_log_however_it_grew(
    undone: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "BATCH", 300)
    log_of(undone, 1400)
    hashes = leaf_hashes(undone)
    for upto in (1, 2, 255, 256, 257, 700, len(hashes)):
        while seal_batch(undone, upto).size < upto:
            pass
        assert sealed_size(undone) == upto
        assert tree_root(undone, upto) == plain_root(hashes[:upto])
    for size in (0, 1, 3, 255, 256, 512, 513, 1024):
        assert tree_root(undone, size) == plain_root(hashes[:size])
    assert seal_batch(undone, len(hashes)) == sealing.SealedBatch(0, len(hashes))


def test_65_537_leaves_fill_tiles_of_three_levels(undone: Connection) -> None:
    hashes = [leaf_hash(b"%d" % number) for number in range(65_537)]
    edge = read_edge(undone)
    for hashed in hashes:
        edge.append(hashed)
    write_edge(undone, edge)
    assert one(undone, "SELECT max(level) FROM ledger.seal_tile") == 2
    assert tree_root(undone, 65_537) == plain_root(hashes)
    assert tree_root(undone, 65_536) == complete_root(hashes[:65_536])
    again = read_edge(undone)
    assert again.size == 65_537
    again.append(hashes[0])
    write_edge(undone, again)
    assert tree_root(undone, 65_538) == plain_root([*hashes, hashes[0]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DELETE FROM ledger.event_log WHERE position = 7", "position 7 is missing"),
        ("UPDATE ledger.event_log SET position = 7 WHERE position = 8", "position 7 stands twice"),
    ],
)
def test_nothing_is_sealed_after_a_gap(undone: Connection, change: str, words: str) -> None:
    log_of(undone, 20)
    tamper(undone, change)
    head = log_head(undone)
    with pytest.raises(SealError, match=words):
        seal_batch(undone, head)
    assert sealed_size(undone) in {6, 7}
    with pytest.raises(SealError, match="nothing after position"):
        seal_batch(undone, head)


def test_a_checkpoint_is_signed_once_for_each_size_and_key(undone: Connection) -> None:
    log_of(undone, 30)
    seal_all(undone)
    first = sign(undone, KEY, NOW)
    assert first
    assert first.root == tree_root(undone, first.size)
    assert sign(undone, KEY, NOW) is None
    assert sign(undone, SigningKey.new("other"), NOW)
    note = one(
        undone, "SELECT note FROM ledger.seal_checkpoint WHERE key_id = %s", KEY.public.key_id
    )
    assert read_checkpoint(note) == first
    assert is_signed_by(note, KEY.public)


def test_checkpoints_cannot_be_changed(undone: Connection) -> None:
    with pytest.raises(psycopg.errors.RestrictViolation):
        undone.execute("UPDATE ledger.seal_checkpoint SET tree_size = 1")


@pytest.fixture(params=["file", "folder"])
def publication(request: pytest.FixtureRequest, tmp_path: Path) -> Publication:
    if request.param == "folder":
        return Publication(tmp_path)
    return Publication(tmp_path / "checkpoints")


def grow(connection: Connection, seed: int, events: int = 5) -> None:
    append(connection, mixed_history(events, seed=seed))
    seal_all(connection)
    assert sign(connection, KEY, NOW)


def test_what_was_not_published_is_published_later_and_once(
    undone: Connection, publication: Publication
) -> None:
    grow(undone, 2)
    grow(undone, 3)
    assert publish(undone, publication, KEY.public) == 2
    assert publish(undone, publication, KEY.public) == 0
    grow(undone, 4)
    refuse_fork(undone, publication, KEY.public)
    assert publish(undone, publication, KEY.public) == 1
    last = publication.last(KEY.public)
    assert last
    assert last.size == sealed_size(undone)


def test_a_note_that_was_written_in_part_counts_for_nothing(
    undone: Connection, tmp_path: Path
) -> None:
    publication = Publication(tmp_path / "checkpoints")
    grow(undone, 2)
    publish(undone, publication, KEY.public)
    whole = publication.path.read_text()
    for cut in range(1, len(whole)):
        publication.path.write_text(whole + "\n\n" + whole[:cut])
        grown = publication.last(KEY.public)
        assert grown
        publication.append(whole)
        assert list(notes_in(publication.path.read_text()))[-1] == whole
        assert len(read_signed(publication.path.read_text(), KEY.public)) == 1


def test_another_continuation_is_not_signed(undone: Connection, publication: Publication) -> None:
    log_of(undone, 20)
    seal_all(undone)
    head = sealed_size(undone)
    with undone.transaction(force_rollback=True):  # what a restored backup has lost
        grow(undone, 8)
        publish(undone, publication, KEY.public)
    with pytest.raises(ForkError, match=f"this log ends at {head}"):
        refuse_fork(undone, publication, KEY.public)
    grow(undone, 9, events=40)
    with pytest.raises(ForkError, match="this log continued otherwise"):
        refuse_fork(undone, publication, KEY.public)


# --- the thread -------------------------------------------------------------------------------


@pytest.fixture
def sealer(database_url: str, tmp_path: Path) -> Iterator[Sealer]:
    made = Sealer(database_url, key=KEY, publish_to=tmp_path / "checkpoints", interval=0.01)
    yield made
    made.stop()


@pytest.fixture
def second_sealer(database_url: str, tmp_path: Path) -> Iterator[Sealer]:
    made = Sealer(database_url, key=KEY, publish_to=tmp_path / "checkpoints", interval=0.01)
    yield made
    made.stop()


def test_two_sealers_do_what_one_does(
    database_url: str, sealer: Sealer, second_sealer: Sealer, tmp_path: Path
) -> None:
    sealer.start()
    second_sealer.start()
    with connect(database_url, "test") as connection:
        for seed in range(1, 6):
            append(connection, mixed_history(20, seed=seed))
        head = log_head(connection)
        path = tmp_path / "checkpoints"

        def published() -> bool:
            last = Publication(path).last(KEY.public)
            return last is not None and last.size == head

        wait_until(published, "all is sealed and published")
        assert tree_root(connection, head) == plain_root(leaf_hashes(connection))
        sizes = [read_checkpoint(note).size for note in notes_in(path.read_text())]
        assert sizes == sorted(set(sizes))


def test_a_sealer_leaves_the_log_to_another_that_seals(service: Connection, sealer: Sealer) -> None:
    append(service, deliveries([b"1"]))
    with sealing.sealing(service, wait=True) as alone:
        assert alone
        sealer.seal_once()
        assert sealed_size(service) == 0
    sealer.seal_once()
    assert sealed_size(service) == 1
    wait_until(lambda: not sessions_named(service, "sealer"), "it closed its connection")


# --- alerts -----------------------------------------------------------------------------------

MINUTE = timedelta(minutes=1)


def alerted(watch: SealWatch, connection: Connection, minutes: int) -> list[str]:
    found = list(watch.subjects(connection, NOW + minutes * MINUTE))
    assert {subject.kind for subject in found} <= {"seal"}
    return [subject.words for subject in found]


def test_seals_that_stand_still_are_alerted_and_those_that_move_are_not(
    undone: Connection,
) -> None:
    watch = SealWatch(lambda: None)
    assert alerted(watch, undone, 0) == []
    for minutes in range(1, 40, 3):  # there is always something that is not sealed yet
        append(undone, mixed_history(5, seed=100 + minutes))
        assert alerted(watch, undone, minutes) == []
        head = log_head(undone)
        append(undone, mixed_history(5, seed=200 + minutes))
        while seal_batch(undone, head).size < head:
            pass
    assert alerted(watch, undone, 41) == []
    assert alerted(watch, undone, 50) == []
    (words,) = alerted(watch, undone, 51)
    assert f"the seals end at position {sealed_size(undone):,}" in words
    seal_all(undone)
    assert alerted(watch, undone, 52) == []


def test_checkpoints_that_are_signed_no_more_are_alerted(undone: Connection) -> None:
    watch = SealWatch(lambda: None)
    log_of(undone, 10)
    seal_all(undone)
    assert alerted(watch, undone, 0) == alerted(watch, undone, 20) == []  # there is no key
    sign(undone, KEY, NOW)
    append(undone, mixed_history(5, seed=3))
    seal_all(undone)
    assert alerted(watch, undone, 21) == []
    (words,) = alerted(watch, undone, 31)
    assert "LEDGER_SEAL_KEY missing" in words
    sign(undone, KEY, NOW)
    assert alerted(watch, undone, 32) == []


def test_a_fork_that_the_sealer_finds_is_alerted_once_a_day(
    database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoints"
    foreign = Checkpoint(KEY.name, 500, EMPTY_ROOT, NOW)
    path.write_text(KEY.sign(foreign.to_text()))
    sealer = Sealer(database_url, key=KEY, publish_to=path, interval=0.01)
    watch = SealWatch(lambda: sealer.trouble)
    with connect(database_url, "test") as connection:
        append(connection, deliveries([b"1"]))
        sealer.start()
        try:
            wait_until(lambda: sealer.trouble, "it finds the fork")
            first, later = (
                list(watch.subjects(connection, NOW + minutes * MINUTE)) for minutes in (0, 1)
            )
            assert "this log ends at 1" in first[0].words
            assert [each.key for each in first] == [each.key for each in later]
            path.unlink()
            wait_until(lambda: sealer.trouble is None, "it goes on")
        finally:
            sealer.stop()


# --- killed -----------------------------------------------------------------------------------


def test_a_sealer_that_is_killed_in_the_middle_of_a_batch_loses_that_batch_alone(
    database_url: str, owner: Connection, tmp_path: Path
) -> None:
    settings = {"LEDGER_DATABASE_URL": database_url}
    append(owner, mixed_history(3_000))
    head = log_head(owner)
    seal_batch(owner, head)  # the second one waits to be written
    before = sealed_size(owner)
    assert 0 < before < head
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE ledger.seal_tile IN SHARE ROW EXCLUSIVE MODE")
        process = Process("project", settings=settings, output=tmp_path / "output")
        try:
            wait_until(lambda: sessions_named(owner, "sealer"), "it seals")
            wait_until_blocked(owner, *sessions_named(owner, "sealer"))
        finally:
            process.kill()
        holder.rollback()
    wait_until(lambda: not sessions_named(owner, "sealer"), "its session is gone")
    assert sealed_size(owner) == before
    assert tree_root(owner, before) == plain_root(leaf_hashes(owner)[:before])
    seal_all(owner)
    assert tree_root(owner, head) == plain_root(leaf_hashes(owner))
