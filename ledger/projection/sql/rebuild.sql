-- A rebuild under way, and the shares it is made of. Both exist only in the schema that it fills.

CREATE TABLE rebuild (
    only_row       boolean     NOT NULL DEFAULT true,
    events_done    bigint      NOT NULL,
    events_total   bigint      NOT NULL,
    started_at     timestamptz NOT NULL,
    ledger_version text        NOT NULL,
    is_archived    boolean     NOT NULL,
    is_cut         boolean     NOT NULL DEFAULT false,
    is_folded      boolean     NOT NULL DEFAULT false,
    CONSTRAINT rebuild_pkey PRIMARY KEY (only_row),
    CONSTRAINT rebuild_only_row_check CHECK (only_row)
);

COMMENT ON TABLE rebuild IS 'The progress of a rebuild, which may be interrupted and go on.';

-- Whoever folds a share holds its row locked until what it wrote is committed.
CREATE TABLE rebuild_share (
    share_id       bigint  NOT NULL GENERATED ALWAYS AS IDENTITY,
    after_lab_id   text    COLLATE "C",
    after_bill_id  text    COLLATE "C",
    last_lab_id    text    COLLATE "C",
    last_bill_id   text    COLLATE "C",
    is_done        boolean NOT NULL DEFAULT false,
    events         bigint  NOT NULL DEFAULT 0,
    bills          bigint  NOT NULL DEFAULT 0,
    unreadable     bigint  NOT NULL DEFAULT 0,
    parked         bigint  NOT NULL DEFAULT 0,
    delivery_stats bytea,
    CONSTRAINT rebuild_share_pkey PRIMARY KEY (share_id)
);

CREATE INDEX rebuild_share_open_idx ON rebuild_share (share_id) WHERE NOT is_done;

COMMENT ON TABLE rebuild_share IS
    'Bills after one key up to and with another, which one process folds in one transaction.';
