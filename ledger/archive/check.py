"""Checks an archive by itself, without a database: every row against the seal.

Each leaf is computed from the row and its body, and must have the hash that stands beside it; the
hashes must lead to the roots of the manifests and of the signed checkpoints. So a changed row is
named, unless its hash was changed as well: then its range is.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from typing import TypeVar

from msgspec import Struct

from ledger.archive.folder import Archive, Manifest
from ledger.archive.parquet import ArchivedRow, read_rows
from ledger.errors import ArchiveDamageError, SealError
from ledger.seals.comparison import read_signed
from ledger.seals.merkle import EMPTY_ROOT, leaf_hash
from ledger.seals.notes import Checkpoint, PublicKey, read_checkpoint

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Gets the events done and those to do."""


class Checked(Struct, frozen=True):
    """What an archive holds. `signed` is the last size of which a signature was checked, or 0."""

    last: int
    ranges: int
    erased: int
    signed: int


def check(
    archive: Archive,
    on_progress: Progress,
    *,
    key: PublicKey | None = None,
    against: Sequence[Checkpoint] = (),
) -> Checked:
    """Check a whole archive. Raises `ArchiveError`, and `ArchiveDamageError` for what differs.

    With a key, the checkpoints of its manifests must be signed by it. `against` are checkpoints
    that the caller has from somewhere else; those of more events than the archive are left out.
    """
    manifests = archive.whole()
    last = manifests[-1].last
    signed = [each for each in against if each.size <= last]
    done = 0
    for manifest in manifests:
        if manifest.checkpoint and key:
            read = partial(read_signed, key=key)
            signed += _of_manifest(manifest.name, read, manifest.checkpoint)
    for before, manifest in zip([None, *manifests], manifests, strict=False):
        if manifest.tree_before().root().hex() != _root_before(before):
            raise ArchiveDamageError(
                f"the range of {manifest.name} does not continue the one before it"
            )
        for _ in checked_rows(archive, manifest, signed):
            done += 1
            on_progress(done, last)
    return Checked(
        last,
        len(manifests),
        sum(manifest.erased for manifest in manifests),
        max((each.size for each in signed), default=0),
    )


def _of_manifest(name: str, read: Callable[[str], T], checkpoint: str) -> T:
    try:
        return read(checkpoint)
    except SealError as error:  # it was changed as a row can be
        raise ArchiveDamageError(f"{name}: {error}") from error


def checked_rows(
    archive: Archive, manifest: Manifest, checkpoints: Iterable[Checkpoint] = ()
) -> Iterator[ArchivedRow]:
    """Yield the rows of a range, each as it was sealed; take all of them.

    `checkpoints` of sizes within it must hold as well. Raises `ArchiveDamageError`.
    """
    path = archive.path / manifest.file.name
    wanted = defaultdict[int, set[bytes]](set)
    wanted[manifest.last].add(bytes.fromhex(manifest.root))
    for checkpoint in checkpoints:
        wanted[checkpoint.size].add(checkpoint.root)
    if manifest.checkpoint:
        own = _of_manifest(manifest.name, read_checkpoint, manifest.checkpoint)
        if not manifest.first <= own.size <= manifest.last:
            raise ArchiveDamageError(f"{manifest.name} has a checkpoint of another range")
        wanted[own.size].add(own.root)
    tree = manifest.tree_before()
    expected, erased = manifest.first, 0
    for row in read_rows(path, manifest.first):
        words = _wrong(row, expected) if expected <= manifest.last else "is beyond its range"
        if words:
            raise ArchiveDamageError(f"position {expected} {words}, in {path}")
        tree.add(row.leaf_hash)
        if expected in wanted and {tree.root()} != wanted[expected]:
            raise ArchiveDamageError(
                f"the positions {manifest.first} to {expected} of {path} do not lead to the root "
                "that was sealed: rows of it were changed together with their hashes"
            )
        erased += row.body is None
        expected += 1
        yield row
    if expected <= manifest.last:
        raise ArchiveDamageError(f"position {expected} is missing in {path}")
    if erased != manifest.erased:
        raise ArchiveDamageError(
            f"{path} has {erased} erased bodies and its manifest counts {manifest.erased}"
        )
    if archive.describe(manifest.file.name) != manifest.file:
        raise ArchiveDamageError(
            f"all events of {path} are as they were sealed, but the file is not the one that was "
            "written: its SHA-256 differs"
        )


def _wrong(row: ArchivedRow, expected: int) -> str | None:
    if row.position != expected:
        return f"is not in its place: position {row.position} is"
    if leaf_hash(row.leaf) != row.leaf_hash:
        return "is not what was sealed"
    if row.body is None and row.erased_at is None:
        return "lacks its body"
    if row.body is not None and sha256(row.body).digest() != row.body_sha256:
        return "has another body than was sealed"
    return None


def _root_before(before: Manifest | None) -> str:
    return before.root if before else EMPTY_ROOT.hex()
