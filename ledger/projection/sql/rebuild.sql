-- The progress of a rebuild. It exists only in the schema that a rebuild fills.

CREATE TABLE rebuild (
    only_row     boolean     NOT NULL DEFAULT true,
    events_done  bigint      NOT NULL,
    events_total bigint      NOT NULL,
    started_at   timestamptz NOT NULL,
    CONSTRAINT rebuild_pkey PRIMARY KEY (only_row),
    CONSTRAINT rebuild_only_row_check CHECK (only_row)
);

COMMENT ON TABLE rebuild IS 'The progress of a rebuild.';
