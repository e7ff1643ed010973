"""Compares the log with checkpoints that were signed before, and says what the difference is.

A checkpoint covers every column of every row up to its size. Where the log leads to another root,
the stored hashes tell which row differs, provided that they lead to the signed root themselves.

A log that never made the checkpoint, and is consistent in itself, is a fork: an old backup was
restored and went on. One that made it once and now leads to another root was changed.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Literal

from msgspec import Struct
from psycopg import Connection

from ledger.errors import SealError
from ledger.seals.leaf import SealedRow, read_leaves
from ledger.seals.merkle import HASH_BYTES, GrowingTree, complete_root
from ledger.seals.notes import Checkpoint, PublicKey, is_signed_by, notes_in, read_checkpoint
from ledger.seals.tiles import WIDTH, hashes_in

Verdict = Literal["as sealed", "changed", "fork"]

READ_AT_ONCE = 64 * WIDTH
"""Positions of the log that are read with one statement."""

_ALL = 2**62

_DIFFERS = "is not what was sealed"

_STORED = "SELECT number, hashes FROM ledger.seal_tile WHERE level = 0 ORDER BY number"
_RECORDED = """
SELECT EXISTS (SELECT FROM ledger.seal_checkpoint WHERE tree_size = %s AND root = %s)
"""


class Compared(Struct, frozen=True):
    """The result: the verdict, the last size up to which the log is as sealed, and a sentence.

    `position` is the first one that is known to differ, None if there is none or it is not known.
    """

    verdict: Verdict
    agreed: int
    position: int | None
    words: str


class _Seen(Struct):
    """What one pass over log and stored hashes has found."""

    log_roots: dict[int, bytes]
    stored_roots: dict[int, bytes]
    wrong: int | None = None
    """The first position at which the log is not what the stored hashes say."""
    kind: str = ""
    head: int = 0
    """Up to which position the log is without a gap."""


def read_signed(text: str, key: PublicKey) -> list[Checkpoint]:
    """Read the checkpoints of a file in order of size. Raises `SealError` if one is not signed.

    One that was written again, because the first time it was written in part, is read once.
    """
    signed: dict[str, bool] = {}
    for note in notes_in(text):
        said = note.partition("\n\n")[0]
        signed[said] = signed.get(said, False) or is_signed_by(note, key)
    found = [read_checkpoint(said) for said in signed]
    for checkpoint, is_signed in zip(found, signed.values(), strict=True):
        if not is_signed:
            raise SealError(
                f"a checkpoint of {checkpoint.size} events has no good signature of "
                f"{key.name} {key.key_id}: it was changed, or another key signed it"
            )
    if not found:
        raise SealError("there is no checkpoint in the file")
    return sorted(found, key=lambda checkpoint: checkpoint.size)


def compare(
    connection: Connection,
    checkpoints: Sequence[Checkpoint],
    on_progress: Callable[[int, int], None],
) -> Compared:
    """Recompute the leaves of the log and compare it with checkpoints, in order of size.

    The caller's transaction is one snapshot. `on_progress` gets the events read and those to read.
    """
    seen = _look(connection, sorted({each.size for each in checkpoints}), on_progress)
    agreed = 0
    for checkpoint in checkpoints:
        if seen.log_roots.get(checkpoint.size) != checkpoint.root:
            return _explain(connection, seen, checkpoint, agreed)
        agreed = checkpoint.size
    if seen.wrong is not None:
        words = _named(seen, seen.wrong)
        if seen.kind == _DIFFERS:
            words = (
                f"the log is as it was sealed, and the stored hash of position {seen.wrong} is "
                "not: ledger.seal_tile was changed"
            )
        return Compared("changed", agreed, seen.wrong, words)
    return Compared("as sealed", agreed, None, f"The log is as it was sealed up to {agreed:,}.")


def _explain(connection: Connection, seen: _Seen, checkpoint: Checkpoint, agreed: int) -> Compared:
    size = checkpoint.size
    sealed = f"a checkpoint of {size:,} events"
    if checkpoint.sealed_at:
        sealed += f", signed {checkpoint.sealed_at:%F %T} UTC"
    if agreed:
        sealed += f" (the one of {agreed:,} agrees)"
    if seen.stored_roots.get(size) == checkpoint.root:
        position = seen.wrong or seen.head + 1
        return Compared("changed", agreed, position, f"{_named(seen, position)}: {sealed}")
    row = connection.execute(_RECORDED, (size, checkpoint.root)).fetchone()
    if row == (True,):
        hint = f"position {seen.wrong} differs from them" if seen.wrong else "no row can be named"
        words = (
            f"the log was changed between position {agreed + 1} and {size}, and its stored hashes "
            f"as well ({hint}): this database made {sealed}"
        )
        return Compared("changed", agreed, seen.wrong, words)
    if seen.wrong is not None and seen.wrong <= min(size, seen.head + 1):
        words = f"{_named(seen, seen.wrong)}; and this database has not made {sealed}"
        return Compared("changed", agreed, seen.wrong, words)
    ends = f"ends at position {seen.head:,}" if seen.head < size else "continued otherwise"
    words = (
        f"this log {ends} and never made {sealed}: it is a copy from before, such as a restored "
        f"backup, that parted after position {agreed:,} at the earliest. Nothing in it contradicts "
        "itself. If nobody restored a backup, the log and all seals in the database were replaced"
    )
    return Compared("fork", agreed, None, words)


def _named(seen: _Seen, position: int) -> str:
    if seen.wrong is None:
        return f"position {position} is missing: the log ended later when it was sealed"
    return f"position {position} {seen.kind}"


def _look(
    connection: Connection, sizes: Sequence[int], on_progress: Callable[[int, int], None]
) -> _Seen:
    """Build the tree of the log and the one of the stored hashes, tile by tile."""
    seen = _Seen({}, {})
    log, stored, last = GrowingTree(), GrowingTree(), sizes[-1]
    wanted = set(sizes)
    intact = True
    pairs = zip_longest(_tiles_of_log(connection, last), _stored_tiles(connection, last))
    for number, (found, kept) in enumerate(pairs):
        rows, hashes = found or [], kept or []
        first = number * WIDTH
        if intact:
            good = _good(rows, first)
            seen.head = first + good
            if seen.wrong is None:
                _compare_tile(seen, rows, hashes, first)
            _grow(log, [row.hash for row in rows[:good]], first, wanted, seen.log_roots)
            intact = good == len(rows) == WIDTH
        _grow(stored, hashes, first, wanted, seen.stored_roots)
        on_progress(min(first + WIDTH, last), last)
    return seen


def _grow(
    tree: GrowingTree, hashes: list[bytes], first: int, wanted: set[int], roots: dict[int, bytes]
) -> None:
    """Add the hashes after the first leaves, and note the roots of the sizes that are wanted."""
    whole = len(hashes) == WIDTH
    if whole and wanted.isdisjoint(range(first + 1, first + WIDTH)):
        tree.add(complete_root(hashes), WIDTH.bit_length() - 1)
        if first + WIDTH in wanted:
            roots[first + WIDTH] = tree.root()
        return
    for size, hashed in enumerate(hashes, first + 1):
        tree.add(hashed)
        if size in wanted:
            roots[size] = tree.root()


def _good(rows: list[SealedRow], first: int) -> int:
    """Return how many rows have the positions that they should."""
    for place, row in enumerate(rows):
        if row.position != first + place + 1:
            return place
    return min(len(rows), WIDTH)


def _compare_tile(seen: _Seen, rows: list[SealedRow], hashes: list[bytes], first: int) -> None:
    """Find the first position of a tile at which the log is not what the stored hashes say."""
    for position, row in enumerate(rows, first + 1):
        if row.position < position:
            seen.wrong, seen.kind = row.position, "stands in the log twice"
        elif row.position > position:
            seen.wrong, seen.kind = position, "is missing"
        elif position - first <= len(hashes) and hashes[position - first - 1] != row.hash:
            seen.wrong, seen.kind = position, _DIFFERS
        else:
            continue
        return


def _tiles_of_log(connection: Connection, upto: int) -> Iterator[list[SealedRow]]:
    """Yield the rows of each tile; the last one has what is left, however much that is."""
    waiting: list[SealedRow] = []
    for after in range(0, upto, READ_AT_ONCE):
        until = min(after + READ_AT_ONCE, upto)
        waiting += read_leaves(connection, after, until, _ALL)
        while len(waiting) >= WIDTH:
            yield waiting[:WIDTH]
            waiting = waiting[WIDTH:]
    if waiting:
        yield waiting


def _stored_tiles(connection: Connection, upto: int) -> Iterator[list[bytes]]:
    with connection.cursor(name="tiles") as cursor:
        cursor.execute(_STORED)
        for number, tile in cursor:
            left = upto - number * WIDTH
            if left <= 0:
                return
            yield hashes_in(tile[: min(left, WIDTH) * HASH_BYTES])
