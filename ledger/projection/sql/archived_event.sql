-- Events that a rebuild takes from an archive. It exists only in the schema that such a rebuild fills.

CREATE UNLOGGED TABLE archived_event (
    position    bigint      NOT NULL,
    received_at timestamptz NOT NULL,
    event_time  timestamptz,
    source      text        NOT NULL COLLATE "C",
    lab_id      text        NOT NULL COLLATE "C",
    bill_id     text        NOT NULL COLLATE "C",
    event_type  text        NOT NULL COLLATE "C",
    digest      bytea       NOT NULL,
    body        bytea
);

COMMENT ON TABLE archived_event IS 'Events that a rebuild takes from an archive.';
