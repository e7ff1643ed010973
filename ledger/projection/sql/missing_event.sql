-- Events that other events of the bill prove, or make likely, to be missing.

CREATE TABLE missing_event (
    lab_id               text        NOT NULL COLLATE "C",
    bill_id              text        NOT NULL COLLATE "C",
    event_type           text        NOT NULL COLLATE "C",
    test_id              text        NOT NULL COLLATE "C",
    certainty            text        NOT NULL COLLATE "C",
    count                integer     NOT NULL,
    integrator_id        text                 COLLATE "C",
    evidence_position    bigint      NOT NULL,
    evidence_event_type  text        NOT NULL COLLATE "C",
    evidence_event_time  timestamptz NOT NULL,
    evidence_received_at timestamptz NOT NULL,
    decided              integer     NOT NULL,
    request              integer,
    requested_at         timestamptz,
    waived_at            timestamptz
);

COMMENT ON TABLE missing_event IS
    'Events that other events of the bill prove, or make likely, to be missing.';
COMMENT ON COLUMN missing_event.test_id IS
    'Empty if the event concerns no test, or a test that is not known.';
COMMENT ON COLUMN missing_event.decided IS
    'For how many of count an operator has requested or waived the event.';
