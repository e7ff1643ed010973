-- When a receiver refused deliveries that it should have stored. Such a time is an outage, even if
-- another receiver was alive.

CREATE TABLE ledger.refusal (
    instance      uuid        NOT NULL,
    number        integer     NOT NULL,
    refused_from  timestamptz NOT NULL,
    refused_until timestamptz NOT NULL,
    deliveries    bigint      NOT NULL,
    CONSTRAINT refusal_pkey PRIMARY KEY (instance, number),
    CONSTRAINT refusal_order_check CHECK (refused_from <= refused_until)
);

COMMENT ON TABLE ledger.refusal IS
    'When a receiver refused deliveries that it should have stored. Such a time is an outage.';
COMMENT ON COLUMN ledger.refusal.instance IS 'One run of one receiving process.';
COMMENT ON COLUMN ledger.refusal.number IS 'Counts the refusals of the instance from 1.';
COMMENT ON COLUMN ledger.refusal.refused_from IS
    'When the receiver was last known to be able to store deliveries before it refused one.';
COMMENT ON COLUMN ledger.refusal.refused_until IS
    'When the receiver was able again; while it is not, when it last refused a delivery.';
COMMENT ON COLUMN ledger.refusal.deliveries IS 'How many deliveries were refused.';
