"""The tree in the database: tiles of 256 hashes, as of C2SP's tlog-tiles (c2sp.org/tlog-tiles).

A tile holds, one after the other, the hashes of 256 neighbouring subtrees of 256**level leaves
each. Only the last tile of a level may hold fewer. So an event costs 32 bytes and the 255th part of
that, and a proof reads at most two tiles a level.
"""

from collections.abc import Iterable

from psycopg import Connection
from psycopg.sql import SQL, Composed

from ledger.errors import SealError
from ledger.seals.merkle import HASH_BYTES, Node, complete_root

HEIGHT = 8
"""Levels of the tree that a tile spans."""

WIDTH = 1 << HEIGHT

Tile = tuple[int, int]
"""`(level, number)` of a tile."""

_TILES = SQL("""
SELECT t.level, t.number, t.hashes
FROM unnest({}::int[], {}::bigint[]) AS k (level, number)
JOIN ledger.seal_tile t ON t.level = k.level AND t.number = k.number
""")

_LAST_TILES = """
SELECT l.level, t.number, t.hashes
FROM generate_series(0, 7) AS l (level)
CROSS JOIN LATERAL (
    SELECT number, hashes
    FROM ledger.seal_tile
    WHERE level = l.level
    ORDER BY number DESC
    LIMIT 1
) t
"""

_WRITE = """
INSERT INTO ledger.seal_tile AS t (level, number, hashes)
SELECT * FROM unnest(%s::int[], %s::bigint[], %s::bytea[])
ON CONFLICT (level, number) DO UPDATE
SET hashes = excluded.hashes
WHERE octet_length(excluded.hashes) > octet_length(t.hashes)
"""

_LEAVES = """
SELECT number, hashes
FROM ledger.seal_tile
WHERE level = 0 AND number BETWEEN %s AND %s
ORDER BY number
"""

SIZE = """
SELECT coalesce(
    (
        SELECT number * 256 + octet_length(hashes) / 32
        FROM ledger.seal_tile
        WHERE level = 0
        ORDER BY number DESC
        LIMIT 1
    ),
    0
)
"""
"""How many events are in the tree."""


def sealed_size(connection: Connection) -> int:
    """Return how many events are in the tree: all up to this position."""
    row = connection.execute(SIZE).fetchone()
    assert row  # noqa: S101 -- an expression is one row
    return int(row[0])


def tiles_query(nodes: Iterable[Node]) -> Composed:
    """Return the query for the rows of which `StoredTree` computes the hashes of these nodes."""
    tiles = sorted({_tile_of(node) for node in nodes})
    return _TILES.format([level for level, _ in tiles], [number for _, number in tiles])


class StoredTree:
    """Hashes of subtrees, computed from rows of tiles."""

    def __init__(self, rows: Iterable[tuple[int, int, bytes]]) -> None:
        self._tiles = {(level, number): bytes(hashes) for level, number, hashes in rows}

    def hash_of(self, node: Node) -> bytes:
        """Return the hash of a complete subtree. Raises `SealError` if it is not stored."""
        level, index = node
        tile = _tile_of(node)
        inside = level - tile[0] * HEIGHT
        start = (index << inside) - tile[1] * WIDTH
        hashes = hashes_in(self._tiles.get(tile, b""))[start : start + (1 << inside)]
        if len(hashes) != 1 << inside:
            raise SealError(
                f"tile {tile[1]} of level {tile[0]} in ledger.seal_tile lacks hashes that are "
                "needed: seal up to there, or find out who removed them"
            )
        return complete_root(hashes)


def stored_tree(connection: Connection, nodes: Iterable[Node]) -> StoredTree:
    """Read what is needed for the hashes of some nodes."""
    return StoredTree(connection.execute(tiles_query(nodes)).fetchall())


def leaf_hashes(connection: Connection, after: int, upto: int) -> list[bytes]:
    """Return the stored hashes of the events after a position, those that there are."""
    first = after // WIDTH
    hashes: list[bytes] = []
    for number, tile in connection.execute(_LEAVES, (first, (upto - 1) // WIDTH)):
        if number * WIDTH != first * WIDTH + len(hashes):
            break  # a tile is missing
        hashes += hashes_in(tile)
    return hashes[after - first * WIDTH : upto - first * WIDTH]


class Edge:
    """The last tile of each level, to which hashes are appended."""

    def __init__(self, rows: Iterable[tuple[int, int, bytes]]) -> None:
        self._last = {level: (number, bytearray(hashes)) for level, number, hashes in rows}
        self._changed: dict[Tile, bytes] = {}
        self._touched: set[int] = set()

    @property
    def size(self) -> int:
        """How many leaves there are."""
        number, hashes = self._last.get(0, (0, b""))
        return number * WIDTH + len(hashes) // HASH_BYTES

    def append(self, hashed: bytes, level: int = 0) -> None:
        """Append the hash of a leaf, or of a complete tile of the level below."""
        number, hashes = self._last.setdefault(level, (0, bytearray()))
        if len(hashes) == WIDTH * HASH_BYTES:
            number, hashes = number + 1, bytearray()
            self._last[level] = number, hashes
        hashes += hashed
        self._touched.add(level)
        if len(hashes) == WIDTH * HASH_BYTES:
            self._changed[level, number] = bytes(hashes)
            self.append(complete_root(hashes_in(hashes)), level + 1)

    def changed(self) -> dict[Tile, bytes]:
        """Return the tiles that are new or longer."""
        last = {(level, self._last[level][0]): self._last[level][1] for level in self._touched}
        return self._changed | {tile: bytes(hashes) for tile, hashes in last.items()}


def read_edge(connection: Connection) -> Edge:
    """Read where the tree ends."""
    return Edge(connection.execute(_LAST_TILES).fetchall())


def write_edge(connection: Connection, edge: Edge) -> None:
    """Write what was appended, in the caller's transaction."""
    tiles = edge.changed()
    values = [level for level, _ in tiles], [number for _, number in tiles], list(tiles.values())
    connection.execute(_WRITE, values)


def hashes_in(tile: bytes | bytearray) -> list[bytes]:
    """Return the hashes of a tile."""
    return [bytes(tile[at : at + HASH_BYTES]) for at in range(0, len(tile), HASH_BYTES)]


def _tile_of(node: Node) -> Tile:
    level, index = node
    return level // HEIGHT, (index << level % HEIGHT) // WIDTH
