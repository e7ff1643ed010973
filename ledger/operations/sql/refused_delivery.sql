-- Deliveries that were refused for their token and look like the sender's. They are not in the log.

CREATE TABLE ledger.refused_delivery (
    delivery_id      text        NOT NULL COLLATE "C",
    received_at      timestamptz NOT NULL,
    last_received_at timestamptz NOT NULL,
    times            bigint      NOT NULL,
    reason           text        NOT NULL COLLATE "C",
    client           text        NOT NULL COLLATE "C",
    lab_id           text        NOT NULL COLLATE "C",
    lab_is_known     boolean     NOT NULL,
    bill_id          text        NOT NULL COLLATE "C",
    event_type       text        NOT NULL COLLATE "C",
    event_time       timestamptz,
    digest           bytea       NOT NULL,
    bytes            bigint      NOT NULL,
    body             bytea       NOT NULL,
    CONSTRAINT refused_delivery_pkey PRIMARY KEY (delivery_id),
    CONSTRAINT refused_delivery_digest_key UNIQUE (digest),
    CONSTRAINT refused_delivery_digest_check CHECK (octet_length(digest) = 32),
    CONSTRAINT refused_delivery_reason_check CHECK (reason IN ('wrong', 'missing', 'foreign_lab')),
    CONSTRAINT refused_delivery_times_check CHECK (times > 0)
);

CREATE INDEX refused_delivery_lab_idx
    ON ledger.refused_delivery (lab_id, received_at, delivery_id);
CREATE INDEX refused_delivery_received_idx
    ON ledger.refused_delivery (received_at, delivery_id);
CREATE INDEX refused_delivery_client_idx ON ledger.refused_delivery (client);
CREATE INDEX refused_delivery_unknown_idx
    ON ledger.refused_delivery (received_at, delivery_id)
    WHERE NOT lab_is_known;

COMMENT ON TABLE ledger.refused_delivery IS
    'Deliveries that were refused for their token, until an operator accepts or drops them.';
COMMENT ON COLUMN ledger.refused_delivery.delivery_id IS
    'Names the delivery: the begin of its digest, so that ids tell nothing of other labs.';
COMMENT ON COLUMN ledger.refused_delivery.received_at IS 'When it was first received.';
COMMENT ON COLUMN ledger.refused_delivery.last_received_at IS 'When it was last received.';
COMMENT ON COLUMN ledger.refused_delivery.times IS 'How often it was received.';
COMMENT ON COLUMN ledger.refused_delivery.reason IS
    'wrong or missing, of the token; foreign_lab: the token is one of other labs.';
COMMENT ON COLUMN ledger.refused_delivery.client IS 'The address from which it first came.';
COMMENT ON COLUMN ledger.refused_delivery.lab_id IS 'The lab, according to the body.';
COMMENT ON COLUMN ledger.refused_delivery.lab_is_known IS
    'Whether the log had an event of the lab when the delivery was kept.';
COMMENT ON COLUMN ledger.refused_delivery.bill_id IS
    'The bill, according to the body; empty if the body does not say.';
COMMENT ON COLUMN ledger.refused_delivery.event_type IS
    'The event type, according to the body; empty if the body does not say.';
COMMENT ON COLUMN ledger.refused_delivery.event_time IS
    'When the event occurred, according to its body; null if the body does not say.';
COMMENT ON COLUMN ledger.refused_delivery.digest IS 'Identifies the event, as in the log.';
COMMENT ON COLUMN ledger.refused_delivery.bytes IS 'The length of the body.';
COMMENT ON COLUMN ledger.refused_delivery.body IS 'The bytes as they were received.';
