"""Proofs for who has no Ledger: that an event is in the log, and that one log begins with another.

`docs/check_proof.py` checks both with nothing else at hand.
"""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from psycopg import Connection
from psycopg.sql import SQL

from ledger.errors import SealError, UnknownSubjectError
from ledger.model.operators import Labs, as_array
from ledger.seals.leaf import LEAF, Leaf
from ledger.seals.merkle import (
    Node,
    complete_nodes,
    consistency_ranges,
    inclusion_ranges,
    is_consistent,
    nodes_of,
    range_hash,
    root,
)
from ledger.seals.notes import Checkpoint, read_checkpoint
from ledger.seals.tiles import SIZE, StoredTree, stored_tree

INCLUSION = "ledger inclusion proof 1"
CONSISTENCY = "ledger consistency proof 1"

HEADS = SQL(f"""
SELECT
    ({SIZE}),
    (
        SELECT note
        FROM ledger.seal_checkpoint
        ORDER BY tree_size DESC, sealed_at DESC
        LIMIT 1
    )
""")  # noqa: S608 -- our own query
"""How many events are sealed, and the newest signed checkpoint."""


class InclusionProof(Struct, frozen=True):
    """That an event is in the log; hashes are hexadecimal.

    `leaf` is the text that was hashed, `body` the bytes as they were received in base64, null if
    they were erased. Without a signed checkpoint of it, `checkpoint` is null.
    """

    format: str
    leaf: str
    body: str | None
    tree_size: int
    root: str
    path: list[str]
    checkpoint: str | None


class ConsistencyProof(Struct, frozen=True):
    """That the log of one checkpoint begins with the log of another."""

    format: str
    old: str
    new: str
    path: list[str]


class Wanted(Struct, frozen=True):
    """An event to prove and the tree in which to prove it."""

    leaf: Leaf
    body: bytes | None
    size: int
    note: str | None

    @property
    def nodes(self) -> set[Node]:
        """The subtrees that the proof is made of."""
        ranges = inclusion_ranges(self.leaf.position - 1, self.size)
        return nodes_of(ranges) | {*complete_nodes((0, self.size))}

    def proof(self, tree: StoredTree) -> InclusionProof:
        """Make the proof. Raises `SealError` if the stored tree is not the one that was signed."""
        found = root(self.size, tree.hash_of)
        if self.note and read_checkpoint(self.note).root != found:
            raise SealError(
                f"the stored hashes do not lead to the checkpoint of {self.size} events: they were "
                "changed; compare with a published checkpoint: `ledger verify --against`"
            )
        ranges = inclusion_ranges(self.leaf.position - 1, self.size)
        return InclusionProof(
            INCLUSION,
            self.leaf.to_bytes().decode(),
            None if self.body is None else base64.b64encode(self.body).decode(),
            self.size,
            found.hex(),
            [range_hash(leaves, tree.hash_of).hex() for leaves in ranges],
            self.note,
        )


def wanted(position: int, rows: Sequence[tuple[Any, ...]], heads: tuple[int, str | None]) -> Wanted:
    """Choose the tree for a proof from the rows of `LEAF` and the row of `HEADS`.

    Raises `UnknownSubjectError` if there is no such event, or if it is not sealed yet.
    """
    size, note = heads
    if not rows:
        raise UnknownSubjectError(f"there is no event at position {position}")
    signed = read_checkpoint(note).size if note else 0
    if position <= signed:
        size = signed
    elif position <= size:
        note = None
    else:
        raise UnknownSubjectError(
            f"the event at position {position} is not sealed yet: ask again later, or run "
            "`ledger seal`"
        )
    return Wanted(Leaf.of_row(rows[0]), rows[0][9], size, note)


def prove(connection: Connection, position: int, labs: Labs = None) -> InclusionProof:
    """Prove that an event is in the log. Raises `UnknownSubjectError` or `SealError`."""
    rows = connection.execute(LEAF, leaf_parameters(position, labs)).fetchall()
    heads = connection.execute(HEADS).fetchone()
    assert heads  # noqa: S101 -- expressions are one row
    found = wanted(position, rows, heads)
    return found.proof(stored_tree(connection, found.nodes))


def leaf_parameters(position: int, labs: Labs) -> tuple[Any, ...]:
    """Return the parameters of `LEAF`."""
    return position, as_array(labs), as_array(labs)


def prove_consistent(connection: Connection, old: str, new: str) -> ConsistencyProof:
    """Prove that the log of a signed checkpoint begins with that of another. Raises `SealError`."""
    first, second = read_checkpoint(old), read_checkpoint(new)
    if first.size > second.size:
        raise SealError(
            f"the old checkpoint has {first.size} events and the new one {second.size}: name the "
            "older one first"
        )
    ranges = consistency_ranges(first.size, second.size)
    ends = [*complete_nodes((0, first.size)), *complete_nodes((0, second.size))]
    tree = stored_tree(connection, nodes_of(ranges) | {*ends})
    path = [range_hash(leaves, tree.hash_of) for leaves in ranges]
    if not is_consistent(first.size, second.size, first.root, second.root, path):
        wrong = _other(first, tree) or _other(second, tree)
        raise SealError(
            f"there is no proof: {wrong or 'the checkpoints contradict each other'}; "
            "`ledger verify --against` says more"
        )
    return ConsistencyProof(CONSISTENCY, old, new, [each.hex() for each in path])


def _other(checkpoint: Checkpoint, tree: StoredTree) -> str | None:
    if root(checkpoint.size, tree.hash_of) == checkpoint.root:
        return None
    return f"the checkpoint of {checkpoint.size} events is not of this log"


def to_json(proof: InclusionProof | ConsistencyProof) -> bytes:
    """Return a proof as it is written to a file."""
    return msgspec.json.format(msgspec.json.encode(proof), indent=2) + b"\n"
