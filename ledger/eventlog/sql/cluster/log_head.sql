-- The last position of a distributed log. It is local to the coordinator, and changes in the
-- transaction that appends: the shards commit one after the other, so that none of them knows the head.

CREATE TABLE IF NOT EXISTS ledger.log_head (
    only_row boolean NOT NULL DEFAULT true,
    position bigint  NOT NULL,
    CONSTRAINT log_head_pkey PRIMARY KEY (only_row),
    CONSTRAINT log_head_only_row_check CHECK (only_row)
);

COMMENT ON TABLE ledger.log_head IS
    'The last position of a log that is distributed over the nodes of a cluster.';
