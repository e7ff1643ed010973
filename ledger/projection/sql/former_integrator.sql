-- Integrator ids that events of a bill carried and the bill no longer has.

CREATE TABLE former_integrator (
    lab_id        text NOT NULL COLLATE "C",
    bill_id       text NOT NULL COLLATE "C",
    integrator_id text NOT NULL COLLATE "C"
);

COMMENT ON TABLE former_integrator IS
    'Integrator ids that events of a bill carried and the bill no longer has.';
