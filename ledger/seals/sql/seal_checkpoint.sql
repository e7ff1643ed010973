-- Signed checkpoints: what the log said of itself, and when.

CREATE TABLE ledger.seal_checkpoint (
    tree_size bigint      NOT NULL,
    key_id    text        NOT NULL COLLATE "C",
    root      bytea       NOT NULL,
    sealed_at timestamptz NOT NULL,
    note      text        NOT NULL COLLATE "C",
    CONSTRAINT seal_checkpoint_pkey PRIMARY KEY (tree_size, key_id),
    CONSTRAINT seal_checkpoint_size_check CHECK (tree_size > 0),
    CONSTRAINT seal_checkpoint_root_check CHECK (octet_length(root) = 32)
);

COMMENT ON TABLE ledger.seal_checkpoint IS
    'Signed checkpoints of the log. Append-only; a copy outside the database is what proves something.';
COMMENT ON COLUMN ledger.seal_checkpoint.tree_size IS
    'How many events the log had: the last position that the root covers.';
COMMENT ON COLUMN ledger.seal_checkpoint.key_id IS 'The id of the key that signed it.';
COMMENT ON COLUMN ledger.seal_checkpoint.root IS 'The root of the Merkle tree over these events.';
COMMENT ON COLUMN ledger.seal_checkpoint.sealed_at IS 'When it was signed.';
COMMENT ON COLUMN ledger.seal_checkpoint.note IS 'The signed note, as it is published.';

CREATE TRIGGER seal_checkpoint_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.seal_checkpoint
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.seal_checkpoint ENABLE ALWAYS TRIGGER seal_checkpoint_is_append_only;
