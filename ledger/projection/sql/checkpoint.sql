-- How far the state reflects the log.

CREATE TABLE checkpoint (
    only_row     boolean NOT NULL DEFAULT true,
    position     bigint  NOT NULL,
    fold_version integer NOT NULL,
    CONSTRAINT checkpoint_pkey PRIMARY KEY (only_row),
    CONSTRAINT checkpoint_only_row_check CHECK (only_row)
);

COMMENT ON TABLE checkpoint IS 'The state reflects the log up to this position.';
