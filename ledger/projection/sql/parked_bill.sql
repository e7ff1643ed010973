-- Bills that could not be folded. They have no rows in other tables but former_integrator.

CREATE TABLE parked_bill (
    lab_id   text   NOT NULL COLLATE "C",
    bill_id  text   NOT NULL COLLATE "C",
    position bigint NOT NULL,
    error    text   NOT NULL
);

COMMENT ON TABLE parked_bill IS 'Bills that could not be folded, and why.';
