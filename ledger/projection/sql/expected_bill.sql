-- Bills that integrators expect, because they made a booking.

CREATE TABLE expectation (
    lab_id        text   NOT NULL COLLATE "C",
    position      bigint NOT NULL,
    integrator_id text   NOT NULL COLLATE "C",
    expected_by   timestamptz
);

COMMENT ON TABLE expectation IS
    'Each time that a bill was declared expected, or no longer expected (expected_by is null).';


CREATE TABLE expected_bill (
    lab_id        text        NOT NULL COLLATE "C",
    integrator_id text        NOT NULL COLLATE "C",
    position      bigint      NOT NULL,
    expected_by   timestamptz,
    is_seen       boolean     NOT NULL DEFAULT false,
    CONSTRAINT expected_bill_pkey PRIMARY KEY (lab_id, integrator_id)
);

COMMENT ON TABLE expected_bill IS 'The last expectation of each integrator id from each lab.';
COMMENT ON COLUMN expected_bill.lab_id IS 'Empty if the lab is not known.';
COMMENT ON COLUMN expected_bill.expected_by IS 'Null: not expected any more.';
COMMENT ON COLUMN expected_bill.is_seen IS
    'Whether an event with this integrator id has arrived: of this lab, or of any if it is empty.';
