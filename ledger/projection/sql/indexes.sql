-- Keys and indexes, created after a rebuild has filled the tables. Lists read the newest change
-- first, by a cursor on position and, where several rows share one, on the key.

ALTER TABLE bill ADD CONSTRAINT bill_pkey PRIMARY KEY (lab_id, bill_id);
CREATE INDEX bill_position_idx ON bill (position);
CREATE INDEX bill_lab_idx ON bill (lab_id, position);
CREATE INDEX bill_state_idx ON bill (state, position);
CREATE INDEX bill_integrator_idx ON bill (integrator_id, position) WHERE integrator_id IS NOT NULL;
-- Lists of reports go from bill to bill; these skip bills that have no report of the wanted kind.
CREATE INDEX bill_completed_idx ON bill (position) WHERE reports_completed > 0;
-- Few bills have missing events.
CREATE INDEX bill_missing_idx ON bill (position) WHERE missing > 0;
CREATE INDEX bill_pending_idx ON bill (position) WHERE reports_completed < reports_total;

ALTER TABLE report ADD CONSTRAINT report_pkey PRIMARY KEY (lab_id, bill_id, test_id);
CREATE INDEX report_test_idx ON report (test_id, position);
-- Few reports of a test are pending among very many that are not.
CREATE INDEX report_pending_idx ON report (test_id, position) WHERE evidence IS NULL;

ALTER TABLE missing_event
    ADD CONSTRAINT missing_event_pkey PRIMARY KEY (lab_id, bill_id, test_id, event_type);
-- Waived events stay for ever; lists of what is still missing skip them.
CREATE INDEX missing_event_received_idx
    ON missing_event (evidence_received_at, lab_id, bill_id, test_id, event_type)
    WHERE waived_at IS NULL;
CREATE INDEX missing_event_lab_idx
    ON missing_event (lab_id, evidence_received_at, bill_id, test_id, event_type)
    WHERE waived_at IS NULL;
-- A page counts some thousands of the oldest of each certainty.
CREATE INDEX missing_event_certainty_idx
    ON missing_event (certainty, evidence_received_at)
    WHERE waived_at IS NULL;
CREATE INDEX missing_event_waived_idx
    ON missing_event (evidence_received_at, lab_id, bill_id, test_id, event_type)
    WHERE waived_at IS NOT NULL;

ALTER TABLE request_line
    ADD CONSTRAINT request_line_pkey PRIMARY KEY (lab_id, bill_id, request, event_type, test_id);
CREATE INDEX request_line_request_idx
    ON request_line (request, lab_id, bill_id, test_id, event_type);
CREATE INDEX request_line_requested_idx
    ON request_line (request, lab_id, bill_id, test_id, event_type)
    WHERE state = 'requested';
CREATE INDEX request_line_received_idx
    ON request_line (received_position)
    WHERE received_position IS NOT NULL;

ALTER TABLE support_request ADD CONSTRAINT support_request_pkey PRIMARY KEY (lab_id, position);
CREATE INDEX support_request_number_idx ON support_request (request);
ALTER TABLE support_request_window
    ADD CONSTRAINT support_request_window_pkey PRIMARY KEY (lab_id, position, nth);
ALTER TABLE support_request_closing
    ADD CONSTRAINT support_request_closing_pkey PRIMARY KEY (lab_id, position);
CREATE INDEX support_request_closing_number_idx ON support_request_closing (request, position);
ALTER TABLE loss_window_closing
    ADD CONSTRAINT loss_window_closing_pkey PRIMARY KEY (lab_id, position);

ALTER TABLE former_integrator
    ADD CONSTRAINT former_integrator_pkey PRIMARY KEY (lab_id, bill_id, integrator_id);
CREATE INDEX former_integrator_id_idx ON former_integrator (integrator_id);

ALTER TABLE subscription ADD CONSTRAINT subscription_pkey PRIMARY KEY (lab_id, position);

ALTER TABLE expectation ADD CONSTRAINT expectation_pkey PRIMARY KEY (lab_id, position);
CREATE INDEX expectation_integrator_idx ON expectation (integrator_id, lab_id, position);
CREATE INDEX expected_bill_integrator_idx ON expected_bill (integrator_id);
CREATE INDEX expected_bill_unseen_idx
    ON expected_bill (expected_by, integrator_id, lab_id)
    WHERE NOT is_seen AND expected_by IS NOT NULL;

-- Questions are about the last days of all labs, or of some.
CREATE INDEX delay_day_idx ON delay (day);

ALTER TABLE unreadable_event
    ADD CONSTRAINT unreadable_event_pkey PRIMARY KEY (lab_id, bill_id, position);
CREATE INDEX unreadable_event_position_idx ON unreadable_event (position);
CREATE INDEX unreadable_event_lab_idx ON unreadable_event (lab_id, position);
CREATE INDEX unreadable_event_reason_idx ON unreadable_event (reason, position);

ALTER TABLE parked_bill ADD CONSTRAINT parked_bill_pkey PRIMARY KEY (lab_id, bill_id);
ALTER TABLE flabs_subscription
    ADD CONSTRAINT flabs_subscription_pkey PRIMARY KEY (lab_id, position);
