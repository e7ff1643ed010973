-- Apart from the tables, for a rebuild fills them first. Lists are read newest change first, by a
-- cursor on position and, where one position has several rows, on the key.

ALTER TABLE bill ADD CONSTRAINT bill_pkey PRIMARY KEY (lab_id, bill_id);
CREATE INDEX bill_position_idx ON bill (position);
CREATE INDEX bill_lab_idx ON bill (lab_id, position);
CREATE INDEX bill_state_idx ON bill (state, position);
CREATE INDEX bill_integrator_idx ON bill (integrator_id, position) WHERE integrator_id IS NOT NULL;
-- For lists of reports. What waits to be sorted into the last is read by each that uses it, and
-- sorted in by the follower, which should take no time that anybody notices: kilobytes.
CREATE INDEX bill_completed_idx ON bill (position) WHERE true = ANY (completed);
CREATE INDEX bill_open_idx ON bill (position) WHERE false = ANY (completed);
CREATE INDEX bill_tests_idx ON bill USING gin (test_ids) WITH (gin_pending_list_limit = 512);

ALTER TABLE missing_event
    ADD CONSTRAINT missing_event_pkey PRIMARY KEY (lab_id, bill_id, test_id, event_type);
-- What was waived stays for good; the lists of what is still missing go past it.
CREATE INDEX missing_event_received_idx
    ON missing_event (evidence_received_at, lab_id, bill_id, test_id, event_type)
    WHERE waived_at IS NULL;
CREATE INDEX missing_event_lab_idx
    ON missing_event (lab_id, evidence_received_at, bill_id, test_id, event_type)
    WHERE waived_at IS NULL;
CREATE INDEX missing_event_waived_idx
    ON missing_event (evidence_received_at, lab_id, bill_id, test_id, event_type)
    WHERE waived_at IS NOT NULL;

ALTER TABLE request_line
    ADD CONSTRAINT request_line_pkey PRIMARY KEY (lab_id, bill_id, request, event_type, test_id);
CREATE INDEX request_line_request_idx
    ON request_line (request, lab_id, bill_id, test_id, event_type);
CREATE INDEX request_line_open_idx
    ON request_line (request, lab_id, bill_id, test_id, event_type) WHERE state = 'requested';
CREATE INDEX request_line_received_idx
    ON request_line (received_position) WHERE received_position IS NOT NULL;

ALTER TABLE former_integrator
    ADD CONSTRAINT former_integrator_pkey PRIMARY KEY (lab_id, bill_id, integrator_id);
CREATE INDEX former_integrator_id_idx ON former_integrator (integrator_id);

ALTER TABLE desk_event ADD CONSTRAINT desk_event_pkey PRIMARY KEY (lab_id, position);
CREATE INDEX desk_event_kind_idx ON desk_event (kind, request);

ALTER TABLE subscription ADD CONSTRAINT subscription_pkey PRIMARY KEY (lab_id, position);

ALTER TABLE expectation ADD CONSTRAINT expectation_pkey PRIMARY KEY (lab_id, position);
CREATE INDEX expectation_integrator_idx ON expectation (integrator_id, position);
CREATE INDEX expected_bill_unseen_idx
    ON expected_bill (expected_by, integrator_id) WHERE NOT is_seen AND expected_by IS NOT NULL;


ALTER TABLE unreadable_event
    ADD CONSTRAINT unreadable_event_pkey PRIMARY KEY (lab_id, bill_id, position);
CREATE INDEX unreadable_event_position_idx ON unreadable_event (position);
CREATE INDEX unreadable_event_reason_idx ON unreadable_event (reason, position);

ALTER TABLE parked_bill ADD CONSTRAINT parked_bill_pkey PRIMARY KEY (lab_id, bill_id);
