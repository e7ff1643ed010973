-- One row per missing event that a support request asks for.

CREATE TABLE request_line (
    lab_id               text        NOT NULL COLLATE "C",
    bill_id              text        NOT NULL COLLATE "C",
    request              integer     NOT NULL,
    event_type           text        NOT NULL COLLATE "C",
    test_id              text        NOT NULL COLLATE "C",
    state                text        NOT NULL COLLATE "C",
    received_position    bigint,
    reason               text,
    integrator_id        text                 COLLATE "C",
    certainty            text        NOT NULL COLLATE "C",
    count                integer     NOT NULL,
    evidence_position    bigint      NOT NULL,
    evidence_event_type  text        NOT NULL COLLATE "C",
    evidence_event_time  timestamptz NOT NULL,
    evidence_received_at timestamptz NOT NULL,
    previous             integer,
    requested_at         timestamptz NOT NULL,
    requested_by         text        NOT NULL,
    requested_by_key     text
);

COMMENT ON TABLE request_line IS 'One row per missing event that a support request asks for.';
COMMENT ON COLUMN request_line.test_id IS
    'Empty if the event concerns no test, or a test that is not known.';
COMMENT ON COLUMN request_line.state IS 'requested, received or closed.';
COMMENT ON COLUMN request_line.received_position IS 'The position of the event that arrived.';
COMMENT ON COLUMN request_line.reason IS 'Why the line was closed.';
COMMENT ON COLUMN request_line.previous IS
    'The earlier request that asked for the same event without result.';
