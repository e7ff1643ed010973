-- What the service may do. Run by each `ledger migrate`: a restore without roles or rights loses them.

DO $$
DECLARE
    -- From version 16 on, a member of a role is not always one that may act as it.
    needed CONSTANT text := CASE
        WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET'
        ELSE 'MEMBER'
    END;
BEGIN
    IF NOT pg_has_role(current_user, 'ledger_service', needed) THEN
        EXECUTE format('GRANT ledger_service TO %I', current_user);
    END IF;
    -- A rebuild creates a schema for its tables.
    EXECUTE format('GRANT CREATE ON DATABASE %I TO ledger_service', current_database());
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION '%', SQLERRM USING HINT = format(
        'let a superuser run: GRANT ledger_service TO %I; '
        'GRANT CREATE ON DATABASE %I TO ledger_service',
        current_user,
        current_database()
    );
END $$;

-- CREATE, because a rebuild points the public views, which the service owns, at its tables.
GRANT USAGE, CREATE ON SCHEMA ledger TO ledger_service;
GRANT USAGE ON SCHEMA ledger TO ledger_intake, ledger_reader;

-- The log is append-only: the service does not hold the right to change it.
REVOKE ALL
    ON ledger.event_log, ledger.erasable_body, ledger.repeat_delivery, ledger.policy
    FROM ledger_service;
GRANT SELECT, INSERT
    ON ledger.event_log, ledger.erasable_body, ledger.repeat_delivery, ledger.policy
    TO ledger_service;
GRANT EXECUTE ON FUNCTION ledger.erase_body TO ledger_service;

GRANT SELECT, INSERT, UPDATE ON ledger.import_run, ledger.api_key TO ledger_service;
GRANT SELECT, INSERT, UPDATE, DELETE
    ON ledger.liveness, ledger.refusal, ledger.alert_subject, ledger.alert, ledger.alert_delivery,
        ledger.reconciliation_run
    TO ledger_service;

GRANT SELECT, INSERT, UPDATE (deliveries) ON ledger.delivery_hour TO ledger_service, ledger_intake;

-- A token's digest and labs never change. What comes into the box is bounded by the function.
GRANT SELECT, INSERT, UPDATE (revoked_at, revoked_by, revoked_by_key, last_used_at)
    ON ledger.webhook_token
    TO ledger_service;
GRANT SELECT, DELETE ON ledger.refused_delivery TO ledger_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.flabs_check, ledger.flabs_lab TO ledger_service;
GRANT SELECT, INSERT, UPDATE (replaced, token_id, subscribed_at, finished_at)
    ON ledger.flabs_rotation
    TO ledger_service;
GRANT EXECUTE ON FUNCTION ledger.keep_refused_deliveries TO ledger_service;

-- Sessions and login links never change: they begin and end.
GRANT SELECT, INSERT, DELETE ON ledger.session, ledger.login_link TO ledger_service;

-- The last tile of a level grows. Checkpoints never change.
GRANT SELECT, INSERT, UPDATE (hashes) ON ledger.seal_tile TO ledger_service;
GRANT SELECT, INSERT ON ledger.seal_checkpoint TO ledger_service;

GRANT SELECT, INSERT ON ledger.verification TO ledger_service;

GRANT SELECT ON ledger.logged_event, ledger.current_policy, ledger.schema_version TO ledger_service;

-- The intake appends and recognises repeats. It cannot read what it appended.
REVOKE ALL
    ON ledger.event_log, ledger.erasable_body, ledger.repeat_delivery, ledger.policy
    FROM ledger_intake;
GRANT INSERT ON ledger.event_log, ledger.erasable_body, ledger.repeat_delivery TO ledger_intake;
GRANT SELECT (position, lab_id, bill_id, digest, received_at, source)
    ON ledger.event_log
    TO ledger_intake;
GRANT SELECT (position, received_at, source) ON ledger.repeat_delivery TO ledger_intake;
GRANT SELECT, INSERT, UPDATE (alive_until), DELETE ON ledger.liveness TO ledger_intake;
GRANT SELECT, INSERT, UPDATE ON ledger.refusal TO ledger_intake;
GRANT SELECT ON ledger.policy, ledger.schema_version TO ledger_intake;
GRANT SELECT (token_id, digest, labs, revoked_at, last_used_at), UPDATE (last_used_at)
    ON ledger.webhook_token
    TO ledger_intake;
GRANT EXECUTE ON FUNCTION ledger.keep_refused_deliveries TO ledger_intake;

-- Where the log is distributed, its head is a row.
DO $$
BEGIN
    IF to_regclass('ledger.log_head') IS NOT NULL THEN
        GRANT SELECT, UPDATE (position) ON ledger.log_head TO ledger_service, ledger_intake;
        GRANT SELECT (lab_id) ON ledger.repeat_delivery TO ledger_intake;
    END IF;
END $$;

-- PostgreSQL lets everybody run a new function. Those that take the log's lock are not for everybody.
REVOKE EXECUTE ON FUNCTION ledger.append_events, ledger.event_log_head FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.append_events TO ledger_intake;
GRANT EXECUTE ON FUNCTION ledger.append_events, ledger.event_log_head TO ledger_service;
REVOKE EXECUTE ON FUNCTION ledger.is_logged, ledger.last_position, ledger.received_after FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ledger.is_logged, ledger.last_position, ledger.received_after
    TO ledger_service;

-- The service owns the state and the public views.
DO $$
DECLARE
    foreign_object record;
BEGIN
    IF to_regnamespace('state') IS NOT NULL THEN
        ALTER SCHEMA state OWNER TO ledger_service;
    END IF;
    FOR foreign_object IN
        SELECT c.relname, n.nspname, c.relkind
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE
            c.relowner <> 'ledger_service'::regrole
            AND (
                (n.nspname = 'state' AND c.relkind = 'r')
                OR (
                    n.nspname = 'ledger' AND c.relkind = 'v'
                    AND c.relname IN (
                        'bill', 'report', 'missing_event', 'support_request',
                        'support_request_line', 'loss_window', 'lab', 'event', 'delivery'
                    )
                )
            )
    LOOP
        EXECUTE format(
            'ALTER %s %I.%I OWNER TO ledger_service',
            CASE foreign_object.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END,
            foreign_object.nspname,
            foreign_object.relname
        );
    END LOOP;
END $$;
