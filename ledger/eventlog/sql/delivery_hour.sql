-- What became of the deliveries of each hour, added up by every process that takes some. For people
-- who look at a day: the log itself says what it holds.

CREATE TABLE ledger.delivery_hour (
    hour       timestamptz NOT NULL,
    outcome    text        NOT NULL COLLATE "C",
    deliveries bigint      NOT NULL,
    CONSTRAINT delivery_hour_pkey PRIMARY KEY (hour, outcome),
    CONSTRAINT delivery_hour_outcome_check CHECK (
        outcome IN ('recorded', 'duplicate', 'unreadable', 'spooled', 'refused', 'not_stored')
    )
);

COMMENT ON TABLE ledger.delivery_hour IS
    'Deliveries by hour and outcome. Those of the last seconds before a kill are not counted.';
COMMENT ON COLUMN ledger.delivery_hour.hour IS 'The hour in UTC in which they were answered.';
COMMENT ON COLUMN ledger.delivery_hour.outcome IS
    'recorded, duplicate, unreadable and spooled were stored; refused were answered with 4xx and '
    'not_stored with 503.';
COMMENT ON COLUMN ledger.delivery_hour.deliveries IS 'How many deliveries.';
