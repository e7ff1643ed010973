"""The Merkle tree of RFC 6962 (and RFC 9162): hashes, roots, proofs of inclusion and consistency.

Pure: no database, no clock. A node is `(level, index)`: the complete subtree over the leaves from
`index * 2**level` on. Leaves count from 0, so the leaf of position P of the log is P - 1.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

Node = tuple[int, int]
"""`(level, index)` of a complete subtree."""

Range = tuple[int, int]
"""Leaves from the first number up to and without the second."""

HashOf = Callable[[Node], bytes]
"""Returns the hash of a complete subtree."""

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf's bytes."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


def complete_root(hashes: Sequence[bytes]) -> bytes:
    """Return the hash over subtrees of equal size whose number is a power of two."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def complete_nodes(leaves: Range) -> list[Node]:
    """Return the complete subtrees that a range of a tree consists of, from left to right.

    The range is one that occurs in the tree: its start is a multiple of its greatest subtree.
    """
    start, end = leaves
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def range_hash(leaves: Range, hash_of: HashOf) -> bytes:
    """Return the hash of a range that occurs in the tree; of no leaves, the one of RFC 6962."""
    hashes = [hash_of(node) for node in complete_nodes(leaves)]
    if not hashes:
        return EMPTY_ROOT
    joined = hashes.pop()
    while hashes:
        joined = node_hash(hashes.pop(), joined)
    return joined


def root(size: int, hash_of: HashOf) -> bytes:
    """Return the root of the tree of the first `size` leaves."""
    return range_hash((0, size), hash_of)


class GrowingTree:
    """The root over the leaves so far, of a tree that grows by leaves or by complete subtrees.

    It may begin with leaves that are known by `before` alone: `(level, hash)` of the complete
    subtrees that they consist of, from left to right.
    """

    def __init__(self, before: Iterable[tuple[int, bytes]] = ()) -> None:
        self._complete = list(before)

    def add(self, hashed: bytes, level: int = 0) -> None:
        """Append a leaf, or a complete subtree."""
        while self._complete and self._complete[-1][0] == level:
            hashed, level = node_hash(self._complete.pop()[1], hashed), level + 1
        self._complete.append((level, hashed))

    def root(self) -> bytes:
        """Return the root of the tree as it is now."""
        hashes = [hashed for _, hashed in self._complete]
        if not hashes:
            return EMPTY_ROOT
        joined = hashes.pop()
        while hashes:
            joined = node_hash(hashes.pop(), joined)
        return joined


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """Return the ranges whose hashes prove that leaf `index` is in the tree of `size` leaves."""
    start, end = 0, size
    path = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    return path[::-1]


def consistency_ranges(old: int, new: int) -> list[Range]:
    """Return the ranges whose hashes prove that a tree of `new` leaves begins with one of `old`."""
    if old in {0, new}:
        return []
    start, end, is_whole = 0, new, True
    path = []
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start, is_whole = middle, False
    if not is_whole:  # the verifier knows the root of the whole old tree
        path.append((start, end))
    return path[::-1]


def nodes_of(ranges: Sequence[Range]) -> set[Node]:
    """Return the complete subtrees that are needed for the hashes of ranges."""
    return {node for leaves in ranges for node in complete_nodes(leaves)}


def includes(index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> bool:
    """Return whether a path proves that a leaf's hash is in the tree (RFC 9162, 2.1.3)."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for other in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(other, found)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, other)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root


def is_consistent(
    old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]
) -> bool:
    """Return whether a path proves that the new tree begins with the old (RFC 9162, 2.1.4)."""
    if not 0 <= old <= new:
        return False
    if old in {0, new}:
        known = EMPTY_ROOT if old == 0 else new_root
        return not path and old_root == known
    hashes = list(path)
    if old & (old - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    first = second = hashes[0]
    for other in hashes[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            first, second = node_hash(other, first), node_hash(other, second)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            second = node_hash(second, other)
        place, last = place >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _split(size: int) -> int:
    """Return the greatest power of two less than a size."""
    split: int = 1 << ((size - 1).bit_length() - 1)
    return split
