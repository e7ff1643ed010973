-- The state tables, made in whichever schema is first on the search path: `state`, or `state_next`
-- for a rebuild. They are no migration's business: a new shape comes with a new fold version.
-- json, not jsonb: what the fold said is shown as it was said, and holds what jsonb cannot (\u0000).

CREATE TABLE bill (
    lab_id        text      NOT NULL COLLATE "C",
    bill_id       text      NOT NULL COLLATE "C",
    position      bigint    NOT NULL,
    missing       integer   NOT NULL,
    state         text      NOT NULL COLLATE "C",
    integrator_id text               COLLATE "C",
    summary       json      NOT NULL,
    reports       json      NOT NULL,
    test_ids      text[]    NOT NULL COLLATE "C",
    completed     boolean[] NOT NULL
);
COMMENT ON TABLE bill IS 'One row a bill; position is the last of its events.';
COMMENT ON COLUMN bill.missing IS 'How many rows of missing_event it has.';
COMMENT ON COLUMN bill.summary IS
    '[flabs_status, report_url, created_at, completed_at, deleted_at, last_event_at,'
    ' first_received_at, last_received_at, events, reports_total, reports_completed, findings];'
    ' times of events are Unix seconds, the two of receptions microseconds.';
COMMENT ON COLUMN bill.reports IS
    'Of each test [test_id, completed_at, evidence], and its status if that is not plainly'
    ' "completed"; evidence: 0 bill.created, 1 report.completed, 2 bill.completed, 3 bill.deleted.'
    ' The view report says it in words.';
COMMENT ON COLUMN bill.test_ids IS 'The tests of reports, in the same order.';
COMMENT ON COLUMN bill.completed IS 'Which of reports are completed, in the same order.';

-- The operators -> and ->> read all of a value, and refuse NUL in the status of one not completed.
CREATE VIEW report AS
SELECT
    b.lab_id, b.bill_id, r.test_id, b.position, r.is_completed, b.integrator_id,
    coalesce(
        (
            SELECT e.part
            FROM json_array_elements(r.report) WITH ORDINALITY AS e (part, nth)
            WHERE e.nth = 4
        ),
        '"completed"'
    ) AS status,
    CASE WHEN r.is_completed THEN to_timestamp((r.report ->> 1)::bigint) END AS completed_at,
    CASE WHEN r.is_completed THEN (
        '{bill.created,report.completed,bill.completed,bill.deleted}'::text[]
    )[(r.report ->> 2)::integer + 1] END AS evidence,
    r.report, b.completed AS bill_completed
FROM bill b
CROSS JOIN LATERAL ROWS FROM (
    unnest(b.test_ids), unnest(b.completed), json_array_elements(b.reports)
) AS r (test_id, is_completed, report);
COMMENT ON VIEW report IS 'One row a test of a bill; what bill_ begins is its bill''s, and position.';
COMMENT ON COLUMN report.status IS 'JSON, for it may hold what text cannot.';
COMMENT ON COLUMN report.report IS 'The entry in the reports of its bill.';

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
COMMENT ON TABLE missing_event IS 'What bills prove or make likely to be missing.';
COMMENT ON COLUMN missing_event.test_id IS 'Empty where the event is of no test, or of one not known.';

CREATE TABLE request_line (
    lab_id            text    NOT NULL COLLATE "C",
    bill_id           text    NOT NULL COLLATE "C",
    request           integer NOT NULL,
    event_type        text    NOT NULL COLLATE "C",
    test_id           text    NOT NULL COLLATE "C",
    state             text    NOT NULL COLLATE "C",
    received_position bigint,
    line              json    NOT NULL
);
COMMENT ON TABLE request_line IS 'What support requests asked for, one row an event and request.';

CREATE TABLE former_integrator (
    lab_id        text NOT NULL COLLATE "C",
    bill_id       text NOT NULL COLLATE "C",
    integrator_id text NOT NULL COLLATE "C"
);
COMMENT ON TABLE former_integrator IS 'Integrator ids that events of a bill had and it has no more.';

CREATE TABLE desk_event (
    lab_id   text   NOT NULL COLLATE "C",
    position bigint NOT NULL,
    kind     text   NOT NULL COLLATE "C",
    request  integer,
    decision json   NOT NULL
);
COMMENT ON TABLE desk_event IS 'Support requests made and closed, windows closed: as the log has them.';

CREATE TABLE subscription (
    lab_id   text   NOT NULL COLLATE "C",
    position bigint NOT NULL,
    events   text[]          COLLATE "C"
);
COMMENT ON TABLE subscription IS
    'Event types subscribed for a lab; the last row counts, null: those of the setting.';

CREATE TABLE expectation (
    lab_id        text   NOT NULL COLLATE "C",
    position      bigint NOT NULL,
    integrator_id text   NOT NULL COLLATE "C",
    expected_by   timestamptz
);
COMMENT ON TABLE expectation IS 'Each time that a bill was said to be expected, or not any more.';

CREATE TABLE expected_bill (
    integrator_id text        NOT NULL COLLATE "C",
    lab_id        text        NOT NULL COLLATE "C",
    position      bigint      NOT NULL,
    expected_by   timestamptz,
    is_seen       boolean     NOT NULL DEFAULT false,
    CONSTRAINT expected_bill_pkey PRIMARY KEY (integrator_id)
);
COMMENT ON TABLE expected_bill IS
    'Bills that an integrator expects, as said last; no time: not expected any more.';

CREATE TABLE lab (
    lab_id            text        NOT NULL COLLATE "C",
    first_received_at timestamptz NOT NULL,
    last_received_at  timestamptz NOT NULL,
    CONSTRAINT lab_pkey PRIMARY KEY (lab_id)
);
COMMENT ON TABLE lab IS 'When the first and the last event of a lab were received.';

CREATE TABLE delay (
    lab_id     text    NOT NULL COLLATE "C",
    day        date    NOT NULL,
    seconds    integer NOT NULL,
    deliveries bigint  NOT NULL,
    CONSTRAINT delay_pkey PRIMARY KEY (lab_id, day, seconds)
);
COMMENT ON TABLE delay IS
    'How many events a lab''s webhooks brought on a day, by how long after the event they came.';

CREATE TABLE unreadable_event (
    lab_id   text   NOT NULL COLLATE "C",
    bill_id  text   NOT NULL COLLATE "C",
    position bigint NOT NULL,
    reason   text   NOT NULL COLLATE "C",
    path     text   NOT NULL,
    detail   text   NOT NULL
);
COMMENT ON TABLE unreadable_event IS 'Events of the log that this version cannot read, and why.';

CREATE TABLE parked_bill (
    lab_id   text   NOT NULL COLLATE "C",
    bill_id  text   NOT NULL COLLATE "C",
    position bigint NOT NULL,
    error    text   NOT NULL
);
COMMENT ON TABLE parked_bill IS 'Bills that could not be folded, and why; they have no other rows.';

CREATE TABLE checkpoint (
    only_row     boolean NOT NULL DEFAULT true,
    position     bigint  NOT NULL,
    fold_version integer NOT NULL,
    CONSTRAINT checkpoint_pkey PRIMARY KEY (only_row),
    CONSTRAINT checkpoint_only_row_check CHECK (only_row)
);
COMMENT ON TABLE checkpoint IS 'The state is true for the log up to this position.';
