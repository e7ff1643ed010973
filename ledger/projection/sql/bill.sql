-- One row per bill: what the fold says of it.

CREATE TABLE bill (
    lab_id            text        NOT NULL COLLATE "C",
    bill_id           text        NOT NULL COLLATE "C",
    integrator_id     text                 COLLATE "C",
    state             text        NOT NULL COLLATE "C",
    flabs_status      text,
    created_at        timestamptz,
    completed_at      timestamptz,
    deleted_at        timestamptz,
    report_url        text,
    reports_total     integer     NOT NULL,
    reports_completed integer     NOT NULL,
    findings          text[]      NOT NULL,
    events            integer     NOT NULL,
    first_received_at timestamptz NOT NULL,
    last_received_at  timestamptz NOT NULL,
    last_event_at     timestamptz NOT NULL,
    position          bigint      NOT NULL,
    missing           integer     NOT NULL
);

COMMENT ON TABLE bill IS 'One row per bill: what the fold says of it.';
COMMENT ON COLUMN bill.missing IS 'How many rows of missing_event the bill has.';
