"""What the desk remembers outside the log: liveness, alerts, the last run of the reconciliation.

None of it is the truth about a bill. All are plain local tables, also where the log is distributed.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE liveness (
    instance    uuid        NOT NULL,
    alive_from  timestamptz NOT NULL,
    alive_until timestamptz NOT NULL,
    CONSTRAINT liveness_pkey PRIMARY KEY (instance, alive_from),
    CONSTRAINT liveness_order_check CHECK (alive_from <= alive_until)
);

COMMENT ON TABLE liveness IS
    'When which process could make a delivery durable; what no row covers is an outage.';
COMMENT ON COLUMN liveness.instance IS
    'One run of one process that takes webhooks. It has several rows if it could not for a while.';


-- Written inside the lane, as a delivery is: while nothing gets through there, nobody was alive.
CREATE FUNCTION record_liveness(
    of_instance uuid,
    since       timestamptz,
    until_now   timestamptz
) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT has_table_privilege('event_log', 'INSERT') THEN
        RAISE EXCEPTION 'no right to append to event_log'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM pg_advisory_xact_lock(7402, 1);
    INSERT INTO liveness AS l (instance, alive_from, alive_until)
    VALUES (of_instance, since, until_now)
    ON CONFLICT (instance, alive_from) DO UPDATE SET alive_until = excluded.alive_until;
END $$;

COMMENT ON FUNCTION record_liveness IS
    'Says that a process could make deliveries durable from one time to another.';


CREATE TABLE alert_subject (
    kind       text        NOT NULL COLLATE "C",
    subject    text        NOT NULL COLLATE "C",
    alerted_at timestamptz NOT NULL,
    CONSTRAINT alert_subject_pkey PRIMARY KEY (kind, subject)
);

COMMENT ON TABLE alert_subject IS
    'What was put into an alert already, so that each is told once, whatever becomes of the state.';


CREATE TABLE alert (
    id      bigint      GENERATED ALWAYS AS IDENTITY,
    made_at timestamptz NOT NULL,
    title   text        NOT NULL,
    body    text        NOT NULL,
    CONSTRAINT alert_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE alert IS 'Alerts, kept until they are sent.';


CREATE TABLE alert_delivery (
    alert_id    bigint      NOT NULL,
    channel     text        NOT NULL COLLATE "C",
    tries       integer     NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL,
    sent_at     timestamptz,
    given_up_at timestamptz,
    CONSTRAINT alert_delivery_pkey PRIMARY KEY (alert_id, channel),
    CONSTRAINT alert_delivery_alert_fkey FOREIGN KEY (alert_id) REFERENCES alert
);

CREATE INDEX alert_delivery_due_idx
    ON alert_delivery (next_try_at) WHERE sent_at IS NULL AND given_up_at IS NULL;

COMMENT ON TABLE alert_delivery IS 'Each alert on each channel: sent, to be tried again, or given up.';
COMMENT ON COLUMN alert_delivery.channel IS
    'SHA-256 of the channel''s URL in hex: the URL itself may hold a secret.';


CREATE TABLE reconciliation_run (
    as_of    timestamptz NOT NULL,
    position bigint      NOT NULL,
    CONSTRAINT reconciliation_run_pkey PRIMARY KEY (as_of, position)
);

COMMENT ON TABLE reconciliation_run IS
    'Runs of ledger reconcile --since-last that were finished; the newest is the last.';


-- State that an older version made is served until it is rebuilt, so it gets what the questions of
-- this version name, empty. (All else of its shape comes with the rebuild.)
DO $$
BEGIN
    IF to_regclass('state.missing_event') IS NULL THEN
        RETURN;
    END IF;
    ALTER TABLE state.missing_event
        ADD COLUMN decided      integer NOT NULL DEFAULT 0,
        ADD COLUMN request      integer,
        ADD COLUMN requested_at timestamptz,
        ADD COLUMN waived_at    timestamptz;
    CREATE TABLE state.request_line (
        lab_id text, bill_id text, request integer, event_type text, test_id text, state text,
        received_position bigint, line json
    );
    CREATE TABLE state.desk_event (
        lab_id text, position bigint, kind text, request integer, decision json
    );
    CREATE TABLE state.subscription (lab_id text, position bigint, events text[]);
    CREATE TABLE state.former_integrator (lab_id text, bill_id text, integrator_id text);
    CREATE TABLE state.expected_bill (
        integrator_id text, lab_id text, position bigint, expected_by timestamptz, is_seen boolean
    );
    CREATE TABLE state.lab (
        lab_id text, first_received_at timestamptz, last_received_at timestamptz
    );
    CREATE TABLE state.delay (lab_id text, day date, seconds integer, deliveries bigint);
    GRANT SELECT ON ALL TABLES IN SCHEMA state TO ledger_service;
    ALTER TABLE state.request_line OWNER TO ledger_service;
    ALTER TABLE state.desk_event OWNER TO ledger_service;
    ALTER TABLE state.subscription OWNER TO ledger_service;
    ALTER TABLE state.former_integrator OWNER TO ledger_service;
    ALTER TABLE state.expected_bill OWNER TO ledger_service;
    ALTER TABLE state.lab OWNER TO ledger_service;
    ALTER TABLE state.delay OWNER TO ledger_service;
END $$;


GRANT SELECT, INSERT, UPDATE, DELETE
    ON liveness, alert_subject, alert, alert_delivery, reconciliation_run TO ledger_service;
"""

DOWNGRADE = """
DROP TABLE reconciliation_run, alert_delivery, alert, alert_subject;
DROP FUNCTION record_liveness;
DROP TABLE liveness;
"""


def upgrade() -> None:
    """Make the desk's tables."""
    _run(UPGRADE)


def downgrade() -> None:
    """Take them away; the log and the state stay as they are."""
    _run(DOWNGRADE)


def _run(script: str) -> None:
    # The driver's cursor: SQLAlchemy's own would read colons and percent signs as parameters.
    op.get_bind().connection.cursor().execute(script)
