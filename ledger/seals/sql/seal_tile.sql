-- The Merkle tree over the log, in tiles of 256 hashes (ledger/seals/tiles.py).

CREATE TABLE ledger.seal_tile (
    level  integer NOT NULL,
    number bigint  NOT NULL,
    hashes bytea   NOT NULL,
    CONSTRAINT seal_tile_pkey PRIMARY KEY (level, number),
    CONSTRAINT seal_tile_place_check CHECK (level >= 0 AND number >= 0),
    CONSTRAINT seal_tile_hashes_check
        CHECK (octet_length(hashes) % 32 = 0 AND octet_length(hashes) BETWEEN 32 AND 8192)
);

-- Hashes cannot be compressed.
ALTER TABLE ledger.seal_tile ALTER COLUMN hashes SET STORAGE EXTERNAL;

COMMENT ON TABLE ledger.seal_tile IS
    'The hashes of the Merkle tree (RFC 6962) over the log, one leaf an event, 256 hashes a row.';
COMMENT ON COLUMN ledger.seal_tile.level IS
    'The hashes are of subtrees of 256 ^ level leaves; those of level 0 are of leaves.';
COMMENT ON COLUMN ledger.seal_tile.number IS 'The place of the tile in its level, from 0.';
COMMENT ON COLUMN ledger.seal_tile.hashes IS
    'SHA-256 hashes, 32 bytes each, one after the other; 256 of them but in the last tile of a level.';
