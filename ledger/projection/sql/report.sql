-- One row per report: a test of a bill.

CREATE TABLE report (
    lab_id       text        NOT NULL COLLATE "C",
    bill_id      text        NOT NULL COLLATE "C",
    test_id      text        NOT NULL COLLATE "C",
    status       text,
    completed_at timestamptz,
    evidence     text                 COLLATE "C",
    position     bigint      NOT NULL
);

COMMENT ON TABLE report IS 'One row per report: a test of a bill.';
COMMENT ON COLUMN report.evidence IS
    'The event type that proves completed_at; both are null unless status is completed.';
COMMENT ON COLUMN report.position IS
    'The position of the bill, repeated here to list the reports of one test by newest change.';
