-- Deliveries of events that the log already holds.

CREATE TABLE ledger.repeat_delivery (
    lab_id      text        NOT NULL COLLATE "C",
    position    bigint      NOT NULL,
    received_at timestamptz NOT NULL,
    source      text        NOT NULL COLLATE "C",
    CONSTRAINT repeat_delivery_source_check CHECK (source IN ('webhook', 'import', 'operator'))
);

CREATE INDEX repeat_delivery_position_idx ON ledger.repeat_delivery (position);

COMMENT ON TABLE ledger.repeat_delivery IS
    'Every delivery of an event after its first. Append-only.';
COMMENT ON COLUMN ledger.repeat_delivery.lab_id IS 'The lab of the event.';
COMMENT ON COLUMN ledger.repeat_delivery.position IS 'The position of the event in the log.';
COMMENT ON COLUMN ledger.repeat_delivery.received_at IS 'When this delivery was received.';
COMMENT ON COLUMN ledger.repeat_delivery.source IS 'webhook, import or operator.';
