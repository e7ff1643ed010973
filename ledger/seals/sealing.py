"""Seals the log: hashes what was committed into the tree, signs checkpoints and publishes them.

Each batch is a transaction, so a kill at any moment loses one at most, and the next one goes on
from what is stored. The append lock is held only while the head is looked up, once a round.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from msgspec import Struct
from psycopg import Connection

from ledger.errors import ForkError, SealError
from ledger.eventlog import read
from ledger.postgres.locks import Lock, lock_session, try_lock_session, unlock_session
from ledger.seals.leaf import read_leaves
from ledger.seals.merkle import complete_nodes, root
from ledger.seals.notes import Checkpoint, PublicKey, SigningKey
from ledger.seals.publication import Publication
from ledger.seals.tiles import read_edge, sealed_size, stored_tree, write_edge

BATCH = 512
"""Events in one transaction. Only their hashes come to this process, not their bodies.

Short work with pauses between: with 2,048, the intake's slowest answers on two busy cores were seen
to take longer.
"""


class SealedBatch(Struct, frozen=True):
    """What one transaction did: how many events it sealed, and how many are sealed now."""

    events: int
    size: int


@contextmanager
def sealing(connection: Connection, *, wait: bool) -> Iterator[bool]:
    """Be the only one that seals; give whether it is so. Without `wait`, another may be."""
    if wait:
        lock_session(connection, Lock.SEALS)
    elif not try_lock_session(connection, Lock.SEALS):
        yield False
        return
    try:
        yield True
    finally:
        if not connection.closed:
            unlock_session(connection, Lock.SEALS)


def seal_batch(connection: Connection, upto: int) -> SealedBatch:
    """Hash the next events, none after a position; the caller is `sealing`.

    Raises `SealError` if a position is missing or stands twice: what is before it is sealed, and
    nothing after it.
    """
    with connection.transaction():
        edge = read_edge(connection)
        before = edge.size
        wrong = None
        for row in read_leaves(connection, before, upto, BATCH):
            if row.position == edge.size + 1 and wrong is None:
                edge.append(row.hash)
            elif wrong is None:
                wrong = row.position
        if wrong is None and edge.size == before < upto:
            wrong = upto + 1
        write_edge(connection, edge)
    if wrong is not None:
        what = f"{edge.size + 1} is missing" if wrong > edge.size else f"{wrong} stands twice"
        raise SealError(
            f"nothing after position {edge.size} can be sealed: position {what} in the log; "
            "`ledger verify` says more"
        )
    return SealedBatch(edge.size - before, edge.size)


def log_head(connection: Connection) -> int:
    """Return how far can be sealed: what is committed before it stays as it is."""
    read.keep_to_indexes(connection)
    return read.head(connection)


def tree_root(connection: Connection, size: int) -> bytes:
    """Return the root of the first `size` events from the stored hashes. Raises `SealError`."""
    return root(size, stored_tree(connection, complete_nodes((0, size))).hash_of)


def sign(connection: Connection, key: SigningKey, now: datetime) -> Checkpoint | None:
    """Sign a checkpoint of all that is sealed; None if the key has signed it before."""
    size = sealed_size(connection)
    known = "SELECT max(tree_size) FROM ledger.seal_checkpoint WHERE key_id = %s"
    row = connection.execute(known, (key.public.key_id,)).fetchone()
    if size == ((row and row[0]) or 0):
        return None
    checkpoint = Checkpoint(key.name, size, tree_root(connection, size), now.replace(microsecond=0))
    connection.execute(
        "INSERT INTO ledger.seal_checkpoint (tree_size, key_id, root, sealed_at, note)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (
            size,
            key.public.key_id,
            checkpoint.root,
            checkpoint.sealed_at,
            key.sign(checkpoint.to_text()),
        ),
    )
    return checkpoint


def refuse_fork(connection: Connection, publication: Publication, key: PublicKey) -> None:
    """Raise `ForkError` if the last published checkpoint is not of this log.

    To sign another continuation would be two statements that contradict each other.
    """
    last = publication.last(key)
    if last is None:
        return
    size = sealed_size(connection)
    if last.size <= size and tree_root(connection, last.size) == last.root:
        return
    ends = f"this log ends at {size}" if last.size > size else "this log continued otherwise"
    raise ForkError(
        f"nothing is signed: {publication.path} has a checkpoint of {last.size} events and {ends}. "
        "Was an old backup restored? `ledger verify --against` says more. To begin anew, move the "
        "published checkpoints away and keep them"
    )


def publish(connection: Connection, publication: Publication, key: PublicKey) -> int:
    """Publish the checkpoints that are not yet; return how many."""
    last = publication.last(key)
    rows = connection.execute(
        "SELECT note FROM ledger.seal_checkpoint WHERE key_id = %s AND tree_size > %s"
        " ORDER BY tree_size",
        (key.key_id, last.size if last else 0),
    ).fetchall()
    for (note,) in rows:
        publication.append(note)
    return len(rows)
