-- When each receiver could make deliveries durable. A time that no row covers is an outage.

CREATE TABLE ledger.liveness (
    instance    uuid        NOT NULL,
    alive_from  timestamptz NOT NULL,
    alive_until timestamptz NOT NULL,
    CONSTRAINT liveness_pkey PRIMARY KEY (instance, alive_from),
    CONSTRAINT liveness_order_check CHECK (alive_from <= alive_until)
);

COMMENT ON TABLE ledger.liveness IS
    'When each receiver could make deliveries durable. A time that no row covers is an outage.';
COMMENT ON COLUMN ledger.liveness.instance IS
    'One run of one receiving process. It has several rows if it failed for a while.';
COMMENT ON COLUMN ledger.liveness.alive_from IS 'When the receiver became able to store deliveries.';
COMMENT ON COLUMN ledger.liveness.alive_until IS 'When it last recorded that it still was.';
