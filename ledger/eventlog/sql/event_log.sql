-- The event log: every event once, as it was received. It is the only source of truth.

CREATE TABLE ledger.event_log (
    position    bigint      NOT NULL,
    received_at timestamptz NOT NULL,
    event_time  timestamptz,
    source      text        NOT NULL COLLATE "C",
    lab_id      text        NOT NULL COLLATE "C",
    bill_id     text        NOT NULL COLLATE "C",
    event_type  text        NOT NULL COLLATE "C",
    digest      bytea       NOT NULL,
    body        bytea,
    -- Identity: two bodies that are equal as JSON values are one event. The key begins with lab_id,
    -- so that the table can be distributed by it, and with the bill, which is how it is read.
    CONSTRAINT event_log_identity_key UNIQUE (lab_id, bill_id, digest),
    CONSTRAINT event_log_position_check CHECK (position > 0),
    -- The range of years that the drivers of all readers can represent.
    CONSTRAINT event_log_received_at_check
        CHECK (received_at >= '1970-01-01Z' AND received_at < '3000-01-01Z'),
    CONSTRAINT event_log_source_check CHECK (source IN ('webhook', 'import', 'operator')),
    CONSTRAINT event_log_digest_check CHECK (octet_length(digest) = 32),
    -- A null body stands in ledger.erasable_body. Decisions are kept here.
    CONSTRAINT event_log_body_check CHECK (body IS NOT NULL OR source <> 'operator')
);

-- Positions are unique, but a table distributed by lab_id cannot have a unique key without it.
-- ledger.append_events assigns each position once, and `ledger verify` checks it.
CREATE INDEX event_log_position_idx ON ledger.event_log (position);
-- Lists of the events of some labs alone, whose cost must not depend on, nor tell of, other labs.
CREATE INDEX event_log_lab_idx ON ledger.event_log (lab_id, position);

COMMENT ON TABLE ledger.event_log IS
    'Every event once, as it was received. Append-only: rows are never changed or removed.';
COMMENT ON COLUMN ledger.event_log.position IS
    'Place in the log: from 1, without gaps, in commit order.';
COMMENT ON COLUMN ledger.event_log.received_at IS
    'When the first delivery of the event was received.';
COMMENT ON COLUMN ledger.event_log.event_time IS
    'When the event occurred, according to its body; null if the body does not say.';
COMMENT ON COLUMN ledger.event_log.source IS
    'webhook, import (a file from support) or operator (a decision).';
COMMENT ON COLUMN ledger.event_log.lab_id IS
    'The lab, according to the body; empty if the body does not say.';
COMMENT ON COLUMN ledger.event_log.bill_id IS
    'The bill, according to the body; empty if the body does not say.';
COMMENT ON COLUMN ledger.event_log.event_type IS
    'The event type, according to the body; empty if the body does not say.';
COMMENT ON COLUMN ledger.event_log.digest IS
    'SHA-256 of the body''s JSON value with sorted keys and no white space; of the bytes if the body is not JSON.';
COMMENT ON COLUMN ledger.event_log.body IS
    'The bytes as they were received; null if the fold does not need them: ledger.erasable_body has them.';
