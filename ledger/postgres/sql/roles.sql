-- The roles of the cluster. Run by each `ledger migrate`: a dump holds no roles, and another database
-- of the same cluster may have created them already.
--
-- ledger_service: every Ledger process acts as it, whoever logs in, except one that serves the intake
-- alone.
-- ledger_intake: a process that serves the intake alone. It may append to the log and look digests up,
-- and cannot read a body or the state. ledger_service is a member, so that its logins may act as it.
-- ledger_reader: people and report tools; it may read the public views and nothing else.

DO $$
DECLARE
    missing_role text;
BEGIN
    FOREACH missing_role IN ARRAY '{ledger_service,ledger_intake,ledger_reader}'::text[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = missing_role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', missing_role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
    END LOOP;
    IF NOT pg_has_role('ledger_service', 'ledger_intake', 'MEMBER') THEN
        GRANT ledger_intake TO ledger_service;
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION '%', SQLERRM USING HINT = format(
        'let a superuser run: CREATE ROLE ledger_service NOLOGIN; CREATE ROLE ledger_intake NOLOGIN; '
        'CREATE ROLE ledger_reader NOLOGIN; GRANT ledger_intake TO ledger_service; '
        'GRANT ledger_service TO %I',
        current_user
    );
END $$;
