"""The Merkle tree: known vectors of RFC 6962, and a library that others wrote as the oracle."""

import random
from collections.abc import Sequence

import pytest
from pymerkle import InmemoryTree  # type: ignore[import-untyped]  # it has no types

from ledger.seals import merkle

LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
]
CONSISTENCY = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
]


class Tree:
    """A tree that holds the hashes of its leaves."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._hashes = [merkle.leaf_hash(leaf) for leaf in leaves]

    def hash_of(self, node: merkle.Node) -> bytes:
        level, index = node
        return merkle.complete_root(self._hashes[index << level : (index + 1) << level])

    def path(self, ranges: Sequence[merkle.Range]) -> list[bytes]:
        return [merkle.range_hash(leaves, self.hash_of) for leaves in ranges]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_vectors(size: int) -> None:
    assert merkle.root(size, Tree(LEAVES).hash_of).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size", "path"), INCLUSION)
def test_proofs_of_inclusion_are_those_of_the_vectors(
    index: int, size: int, path: list[str]
) -> None:
    found = Tree(LEAVES).path(merkle.inclusion_ranges(index, size))
    assert [each.hex() for each in found] == path
    leaf = merkle.leaf_hash(LEAVES[index])
    assert merkle.includes(index, size, leaf, found, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("old", "new", "path"), CONSISTENCY)
def test_proofs_of_consistency_are_those_of_the_vectors(
    old: int, new: int, path: list[str]
) -> None:
    found = Tree(LEAVES).path(merkle.consistency_ranges(old, new))
    assert [each.hex() for each in found] == path


def entries(count: int) -> list[bytes]:
    return [b"entry %d" % number for number in range(count)]


def test_every_root_and_proof_is_that_of_the_oracle() -> None:
    oracle, leaves = InmemoryTree(algorithm="sha256"), entries(40)
    for leaf in leaves:
        oracle.append_entry(leaf)
    tree = Tree(leaves)
    for size in range(1, len(leaves) + 1):
        root = merkle.root(size, tree.hash_of)
        assert root == oracle.get_root(size)
        for index in range(size):
            path = tree.path(merkle.inclusion_ranges(index, size))
            # The oracle's path begins with the leaf itself.
            assert path == oracle.prove_inclusion(index + 1, size).path[1:]
            assert merkle.includes(index, size, merkle.leaf_hash(leaves[index]), path, root)
        for old in range(size + 1):
            path = tree.path(merkle.consistency_ranges(old, size))
            old_root = merkle.root(old, tree.hash_of)
            assert merkle.is_consistent(old, size, old_root, root, path)


def test_no_changed_proof_proves() -> None:
    chance, leaves = random.Random(1), entries(70)
    tree = Tree(leaves)
    for _ in range(300):
        size = chance.randrange(2, 71)
        index, old = chance.randrange(size), chance.randrange(1, size)
        root, old_root = merkle.root(size, tree.hash_of), merkle.root(old, tree.hash_of)
        leaf = merkle.leaf_hash(leaves[index])
        path = tree.path(merkle.inclusion_ranges(index, size))
        between = tree.path(merkle.consistency_ranges(old, size))
        other = bytes([leaf[0] ^ 1]) + leaf[1:]
        place = chance.randrange(len(path))
        wrong = [*path[:place], other, *path[place + 1 :]]
        assert not merkle.includes(index, size, leaf, wrong, root)
        assert not merkle.includes(index, size, leaf, path[1:], root)
        assert not merkle.includes(index, size, leaf, [*path, other], root)
        assert not merkle.includes(index, size, other, path, root)
        assert not merkle.includes((index + 1) % size, size, leaf, path, root)
        assert not merkle.includes(size + index, size, leaf, path, root)
        assert not merkle.is_consistent(old, size, other, root, between)
        assert not merkle.is_consistent(old, size, old_root, other, between)
        assert not merkle.is_consistent(old, size, old_root, root, [*between, other])
        assert not merkle.is_consistent(old, size, old_root, root, between[1:])
        assert not merkle.is_consistent(size, old, root, old_root, between)
