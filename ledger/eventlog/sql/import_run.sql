-- Each import that recorded at least one event, so that what it recorded can be found again.
-- It is kept for ever and is not part of the log: an import of n events takes n positions.
CREATE TABLE ledger.import_run (
    import_id bigint GENERATED ALWAYS AS IDENTITY,
    imported_at timestamptz NOT NULL,
    imported_by text NOT NULL,
    imported_by_key text,
    name text,
    recorded bigint NOT NULL,
    duplicate bigint NOT NULL,
    unreadable bigint NOT NULL,
    positions int8multirange NOT NULL,
    CONSTRAINT import_run_pkey PRIMARY KEY (import_id),
    CONSTRAINT import_run_counts_are_not_negative
        CHECK (recorded >= 0 AND duplicate >= 0 AND unreadable >= 0),
    CONSTRAINT import_run_recorded_something
        CHECK (NOT isempty(positions))
);

COMMENT ON TABLE ledger.import_run IS
    'Imports that recorded at least one event; ledger export --import writes what one recorded';
COMMENT ON COLUMN ledger.import_run.import_id IS
    'Number of the import, as its report shows it';
COMMENT ON COLUMN ledger.import_run.imported_at IS
    'When the import began';
COMMENT ON COLUMN ledger.import_run.imported_by IS
    'Name of the operator';
COMMENT ON COLUMN ledger.import_run.imported_by_key IS
    'Id of the API key; null for the command line';
COMMENT ON COLUMN ledger.import_run.name IS
    'Name of the file; null for standard input and for uploads without a name';
COMMENT ON COLUMN ledger.import_run.recorded IS
    'Webhooks that were recorded';
COMMENT ON COLUMN ledger.import_run.duplicate IS
    'Events that were in the log already';
COMMENT ON COLUMN ledger.import_run.unreadable IS
    'Values that are no webhook, recorded or not';
COMMENT ON COLUMN ledger.import_run.positions IS
    'Positions in the log of the events that this import recorded';

