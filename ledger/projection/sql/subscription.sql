-- Event types subscribed at Flabs for one lab.

CREATE TABLE subscription (
    lab_id   text   NOT NULL COLLATE "C",
    position bigint NOT NULL,
    events   text[]          COLLATE "C"
);

COMMENT ON TABLE subscription IS
    'Event types subscribed for one lab; the last row counts, null: those of ledger.policy.';
